"""Plain ways of training the two-layer net of modular arithmetic, as a user of each would write it.

The authors' code multiplies one-hot inputs ``[N, 2p]`` with the first layer's weights; gathers do
with less arithmetic, and stacked tensors train several models at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from grokfast.bench import Contender, Unavailable
from grokfast.bench.trials import EagerLoop
from grokfast.bucket import Bucket
from grokfast.models.layers import Plain


def check_is_modular(bucket: Bucket) -> Plain:
    """Refuses any other net than an embedding sum, a square and one linear layer."""
    net = bucket.plain
    if net is None or not net.activate_embedding or net.activation != "square" or net.bias:
        raise Unavailable("written for the two-layer net of modular arithmetic only")
    if len(net.sizes) != 2 or bucket.cell.loss != "mse" or bucket.cell.predict != "argmax":
        raise Unavailable("written for two layers, mse and argmax only")
    return net


def one_hot(tokens: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
    """Sum of the one-hot vectors of each sample's tokens, [N, P]."""
    return nn.functional.one_hot(tokens, vocabulary).sum(1).to(dtype)


class OneHotNet(nn.Module):
    """The same parameters behind one-hot inputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.first, self.last = net.embedding.weight, net.layers[0].weight  # type: ignore[union-attr,index]

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.first).square() @ self.last.T


class OneHotLoop(EagerLoop):
    """The authors' loop."""

    def __init__(
        self, bucket: Bucket, device: torch.device, wrap: Callable[[nn.Module], nn.Module]
    ) -> None:
        net = check_is_modular(bucket)
        super().__init__(bucket, device)
        self.x, self.x_val = (
            one_hot(x, net.vocabulary, bucket.dtype) for x in (self.x, self.x_val)
        )
        self.model = wrap(OneHotNet(self.model))


class GatherLoop(EagerLoop):
    """Two gathers and a sum in place of the first product."""

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        check_is_modular(bucket)
        super().__init__(bucket, device)
        self.model = _compile(self.model)


class StackedModular:
    """All models in stacked tensors: batched products, autograd, a fused AdamW."""

    elsewhere = False
    precision = "ieee"

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        net = check_is_modular(bucket)
        if len(bucket.init) > 1 or len(bucket.x_train) > 1 or bucket.orders is not None:
            raise Unavailable("written for full batches of models that share their data")
        if (bucket.lr != bucket.lr[0, 0]).any() or (
            bucket.weight_decay != bucket.weight_decay[0, 0]
        ).any():
            raise Unavailable("written for models that share their hyperparameters")
        self.bucket, self.step = bucket, 0
        self.cells = range(bucket.num_cells)
        self.params = [
            p.to(device).expand(len(self.cells), *p.shape).clone().requires_grad_()
            for p in bucket.init[0]
        ]
        o = bucket.cell.optimizer
        self.optimizer = torch.optim.AdamW(
            self.params,
            lr=float(bucket.lr[0, 0]),
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            weight_decay=float(bucket.weight_decay[0, 0]),
            fused=True,
        )
        self.x, self.x_val = (
            one_hot(x[0], net.vocabulary, bucket.dtype).to(device)
            for x in (bucket.x_train, bucket.x_val)
        )
        assert bucket.targets is not None
        self.y, self.y_val = bucket.y_train[0].to(device), bucket.y_val[0].to(device)
        self.goal = bucket.targets[0][bucket.y_train[0]].to(device)  # [N, p]
        self.losses = torch.zeros(len(self.cells), device=device)
        never = torch.full((len(self.cells),), -1, device=device)
        self.t_train, self.t_val = never, never.clone()
        self.forward = torch.compile(self._forward, fullgraph=True, dynamic=False)

    @staticmethod
    def _forward(first: Tensor, last: Tensor, x: Tensor) -> Tensor:
        return torch.matmul(x, first).square() @ last.mT  # [M, N, p]

    def advance(self, steps: int) -> None:
        bucket = self.bucket
        for _ in range(steps):
            self.step += 1
            output = self.forward(*self.params, self.x)
            losses = (output - self.goal).square().mean((1, 2))
            self.optimizer.zero_grad()
            losses.sum().backward()
            self.optimizer.step()
            self.losses = losses.detach()
            if bucket.evaluates(self.step):
                with torch.no_grad():
                    correct = (output.argmax(2) == self.y).sum(1)
                    val = (self.forward(*self.params, self.x_val).argmax(2) == self.y_val).sum(1)
                    for t, right, need in (
                        (self.t_train, correct, bucket.need_train),
                        (self.t_val, val, bucket.need_val),
                    ):
                        t.copy_(torch.where((t < 0) & (right >= need), self.step, t))

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.losses.cpu(), self.t_train.cpu(), self.t_val.cpu()

    def close(self) -> None:
        pass


def _compile(net: nn.Module) -> nn.Module:
    return torch.compile(net, fullgraph=True, dynamic=False)  # type: ignore[return-value]


MODULAR_PEERS: dict[str, Contender] = {
    "one-hot eager": lambda bucket, device: OneHotLoop(bucket, device, lambda net: net),
    "one-hot torch.compile": lambda bucket, device: OneHotLoop(bucket, device, _compile),
    "gathers torch.compile": GatherLoop,
    "one-hot stacked torch.compile": StackedModular,
}
