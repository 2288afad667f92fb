"""Small nets of modular arithmetic, and a plain loop that trains one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from grokfast.analyses import Neurons
from grokfast.models import Mlp, Shape
from grokfast.tasks import Modular


def random_net(p: int, width: int, activation: str = "square", seed: int = 0) -> Neurons:
    u, v, w = np.random.default_rng(seed).normal(size=(3, width, p))
    return Neurons(u, v, w.T.copy(), activation)


def network(p: int, width: int, norm: str = "none") -> nn.Module:
    """The module that grokfast trains, with weights drawn from torch's global generator."""
    model = Mlp(
        width=width,
        depth=2,
        one_hot=True,
        bias=False,
        activation="square",
        norm=norm,
        init="cube-root",
    )
    return model.build(Shape(inputs=2, outputs=p, vocabulary=2 * p))


def train(task: Modular, width: int, steps: int, weight_decay: float) -> nn.Module:
    """A net after AdamW steps on the whole training set, mean squared error, as the authors."""
    data = task.build()
    torch.manual_seed(0)
    net = network(task.p, width)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    for _ in range(steps):
        loss = nn.functional.mse_loss(net(data.x_train), data.targets[data.y_train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@pytest.fixture(scope="session")
def make_net():
    """``make_net(p, width, activation)``: Gaussian weights."""
    return random_net


@pytest.fixture(scope="session")
def normed():
    """``normed(p, width, norm)``: a module with a norm, "batch" or "layer"."""
    return network


@pytest.fixture(scope="session")
def trained():
    """``trained(task, width, steps, weight_decay)``: a module."""
    return train
