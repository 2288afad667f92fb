"""Small nets of modular arithmetic, and a plain loop that trains one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from grokfast.analyses import Neurons
from grokfast.analyses.module import SumOfNeurons
from grokfast.tasks import Modular


def random_net(p: int, width: int, activation: str = "square", seed: int = 0) -> Neurons:
    u, v, w = np.random.default_rng(seed).normal(size=(3, width, p))
    return Neurons(u, v, w.T.copy(), activation)


class Normed(SumOfNeurons):
    """With a norm between the square and the last layer, as trained nets name it."""

    def __init__(self, p: int, width: int, norm: type[nn.Module]) -> None:
        super().__init__(p, width)
        self.norms = nn.ModuleList([norm(width)])

    def forward(self, x):
        h = self.embedding(x).sum(dim=1)
        return self.layers[0](self.norms[0](h * h))


def train(task: Modular, width: int, steps: int, weight_decay: float) -> SumOfNeurons:
    """A net after AdamW steps on the whole training set, mean squared error, as the authors."""
    data = task.build()
    torch.manual_seed(0)
    net = SumOfNeurons(task.p, width)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, (16 * width) ** (-1 / 3))
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
    """``normed(p, width, norm)``: a module with nn.BatchNorm1d or nn.LayerNorm."""
    return Normed


@pytest.fixture(scope="session")
def trained():
    """``trained(task, width, steps, weight_decay)``: a module."""
    return train
