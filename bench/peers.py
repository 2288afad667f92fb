"""The other ways of doing the same work: eager and compiled stacks, a process a core, JAX.

Written as a user of each would write it, with the same evaluation, T_train and T_val. They train
models that see the same data in the same order; JAX's are written for the toy model and for
the transformer.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from modular_peers import MODULAR_PEERS
from torch import Tensor
from transformer_peers import TRANSFORMER_PEERS, check_is_the_reproduction

from grokfast import hardware
from grokfast.bench import Contender, Unavailable
from grokfast.bench.trials import EagerLoop
from grokfast.bucket import Bucket
from grokfast.models import Mlp, Transformer

StackedStep = Callable[..., tuple[Tensor, ...]]


class Stacked:
    """All models in stacked tensors, in lockstep: batched products and elementwise AdamW."""

    elsewhere = False
    precision = "ieee"

    def __init__(
        self, bucket: Bucket, device: torch.device, wrap: Callable[[StackedStep], StackedStep]
    ) -> None:
        net = bucket.plain
        if net is None or not net.bias or net.activation == "square":
            raise Unavailable("written for layers with biases, and tanh or ReLU")
        if len(bucket.init) > 1 or len(bucket.x_train) > 1:
            raise Unavailable("written for models that share data and orders")
        self.bucket = bucket
        self.cells = range(bucket.num_cells)
        self.params = [
            p.to(device).expand(len(self.cells), *p.shape).clone() for p in bucket.init[0]
        ]
        self.m = [torch.zeros_like(p) for p in self.params]
        self.v = [torch.zeros_like(p) for p in self.params]
        self.lr, self.decay = (h.float().to(device) for h in (bucket.lr, bucket.weight_decay))
        self.x, self.x_val = (
            self._dense(x[0]).to(device) for x in (bucket.x_train, bucket.x_val)
        )  # [N, P] counts of tokens, or [N, I]
        self.y, self.y_val = bucket.y_train[0].to(device), bucket.y_val[0].to(device)
        self.targets = None if bucket.targets is None else bucket.targets[0].to(device)
        self.activation = getattr(torch, net.activation)
        self.need = bucket.need_train, bucket.need_val  # torch.compile cannot ask for them
        count = torch.zeros(len(self.cells), device=device)
        self.counters = count.clone(), count.long(), count.long() - 1, count.long() - 1
        # In float64: 1 - 0.999**step would lose four digits in float32.
        self.step = torch.zeros((), dtype=torch.float64, device=device)
        self.done = 0
        self.run = wrap(self._step)

    def _dense(self, x: Tensor) -> Tensor:
        p = self.bucket
        if not p.vocabulary:
            return x
        return torch.nn.functional.one_hot(x, p.vocabulary).sum(1).to(p.dtype)

    @torch.no_grad()
    def advance(self, steps: int) -> None:
        x, y = self.x, self.y
        for i in range(self.done, self.done + steps):
            if self.bucket.orders is not None:
                epoch, k = divmod(i, self.bucket.steps_per_epoch)
                order = self.bucket.orders.order(epoch, epoch + 1)[0, 0]
                rows = order[k * self.bucket.batch_size :][: self.bucket.batch_size]
                x, y = self.x[rows], self.y[rows]
            first = i % self.bucket.steps_per_epoch == 0
            evaluates = self.bucket.evaluates(i + 1)
            self.counters = self.run(
                x, y, self.params, self.m, self.v, self.step, self.counters, first, evaluates
            )
        self.done += steps

    def _step(
        self,
        x: Tensor,
        y: Tensor,
        params: list[Tensor],
        m: list[Tensor],
        v: list[Tensor],
        step: Tensor,
        counters: tuple[Tensor, ...],
        first: bool,
        evaluates: bool,
    ) -> tuple[Tensor, ...]:
        epoch_loss, epoch_correct, t_train, t_val = counters
        *inputs, output = self._forward(params, x)
        loss, d = self._loss(output, y)
        correct = self._correct(output, y)
        if not first:
            loss, correct = epoch_loss + loss, epoch_correct + correct
        gradients: list[Tensor] = []
        layers = params[len(params) % 2 :]
        for w, h in zip(reversed(layers[::2]), reversed(inputs), strict=True):
            gradients = [torch.bmm(d.mT, h), d.sum(1), *gradients]
            if len(gradients) < len(layers):
                slope = 1 - h * h if self.activation is torch.tanh else (h > 0).to(h.dtype)
                d = torch.bmm(d, w) * slope
            elif len(params) % 2:
                gradients = [x.T @ torch.bmm(d, w), *gradients]
        step += 1
        c1, c2 = 1 - 0.9**step, (1 - 0.999**step).sqrt()
        for g, p in enumerate(params):
            lr, decay = (h[g].view(-1, *[1] * (p.ndim - 1)) for h in (self.lr, self.decay))
            m[g].lerp_(gradients[g], 0.1)
            v[g].mul_(0.999).addcmul_(gradients[g], gradients[g], value=0.001)
            p.mul_(1 - lr * decay).sub_(lr / c1 * m[g] / (v[g].sqrt() / c2 + 1e-8))
        if evaluates:
            val = self._correct(self._forward(params, self.x_val)[-1], self.y_val)
            number = step.long()
            t_train = torch.where((t_train < 0) & (correct >= self.need[0]), number, t_train)
            t_val = torch.where((t_val < 0) & (val >= self.need[1]), number, t_val)
        return loss, correct, t_train, t_val

    def _forward(self, params: list[Tensor], x: Tensor) -> list[Tensor]:
        """Inputs of every layer, then the output: each [M, N, width]."""
        embedded = len(params) % 2 == 1
        layers = params[embedded:]
        h = x @ params[0] if embedded else x.expand(len(layers[0]), *x.shape)
        found = [h]
        for k in range(0, len(layers), 2):
            w, b = layers[k], layers[k + 1][:, None]
            # A product over one number is an outer product.
            z = h * w.mT + b if h.shape[2] == 1 else torch.baddbmm(b, h, w.mT)
            h = self.activation(z) if k + 2 < len(layers) else z
            found.append(h)
        return found

    def _loss(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [M] and its gradient [M, N, O]."""
        if self.bucket.cell.loss == "cross_entropy":
            log_p = output.log_softmax(2)
            own = torch.nn.functional.one_hot(y, output.shape[2]).to(output.dtype)
            return -(log_p * own).sum(2).mean(1), (log_p.exp() - own) / len(y)
        assert self.targets is not None
        error = output - self.targets[y]
        return error.square().mean((1, 2)), error * (2 / error[0].numel())

    def _correct(self, output: Tensor, y: Tensor) -> Tensor:
        if self.bucket.cell.predict == "argmax":
            return (output.argmax(2) == y).sum(1)
        assert self.targets is not None
        distance = (output[:, :, None] - self.targets).square().sum(3)
        return (distance.argmin(2) == y).sum(1)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        loss, _, t_train, t_val = self.counters
        return loss.cpu(), t_train.cpu(), t_val.cpu()

    def close(self) -> None:
        pass


def check_is_toy(bucket: Bucket) -> None:
    e = bucket.cell
    m = e.model
    if not isinstance(m, Mlp) or (m.depth, m.embedding_dim, m.activation) != (3, 1, "tanh"):
        raise Unavailable("written for the toy model only")


def stacked_eager(bucket: Bucket, device: torch.device) -> Stacked:
    return Stacked(bucket, device, lambda step: step)


def stacked_compiled(bucket: Bucket, device: torch.device) -> Stacked:
    """The best plain way: one compiled function for the whole step of all models."""
    return Stacked(bucket, device, lambda step: torch.compile(step, fullgraph=True, dynamic=False))


class Processes:
    """A single-threaded process a core, each with the plain loop over a model of its own."""

    elsewhere = True
    precision = "ieee"

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        if device.type != "cpu":
            raise Unavailable("one process a core is for the CPU")
        cores = hardware.cores()
        if bucket.num_cells < cores:
            raise Unavailable(f"needs at least {cores} models, one a core")
        self.cells = range(cores)
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for cell in self.cells:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, bucket, cell), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        self.last = self._all("ready")

    def _all(self, message: object) -> list[Any]:
        for pipe in self.pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self.pipes]

    def advance(self, steps: int) -> None:
        self.last = self._all(steps)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        loss, t_train, t_val = (torch.tensor(column) for column in zip(*self.last, strict=True))
        return loss, t_train, t_val

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


def _serve(pipe: Connection, bucket: Bucket, cell: int) -> None:
    """Trains one model as many steps as each message says, until one says None."""
    torch.set_num_threads(1)
    loop = EagerLoop(bucket, torch.device("cpu"), cell)
    while (message := pipe.recv()) is not None:
        if isinstance(message, int):
            loop.advance(message)
        pipe.send([float(r) for r in loop.results()])


class Jax:
    """``jit(fori_loop(vmap(step)))``: XLA sees all steps of a call (a scan that keeps no outputs)
    and all models."""

    precision = "ieee"

    def __init__(self, bucket: Bucket, device: torch.device) -> None:
        if isinstance(bucket.cell.model, Transformer):
            check_is_the_reproduction(bucket)
            if bucket.cell.batches.order != "fixed" or len(bucket.x_train) > 1:
                raise Unavailable("written for one order of one data set")
        else:
            check_is_toy(bucket)
        # Else JAX takes three quarters of a GPU's memory, whatever it needs.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        try:
            import jax
        except ImportError:
            raise Unavailable("jax is not installed (pip install jax)") from None
        if isinstance(bucket.cell.model, Transformer):
            from jax_transformer import make
        else:
            from jax_peer import make

        kind = "gpu" if device.type == "cuda" else "cpu"
        try:
            where = jax.devices(kind)[0]
        except RuntimeError as error:
            raise Unavailable(f"jax has no {kind}: {error}") from None
        self.elsewhere = kind == "gpu"
        self.cells = range(bucket.num_cells)
        self.carry, self.run = make(bucket, where)

    def advance(self, steps: int) -> None:
        self.carry = self.run(self.carry, steps)
        for result in self.carry[-3:]:
            result.block_until_ready()

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        import numpy as np

        loss, t_train, t_val = (torch.from_numpy(np.array(r)) for r in self.carry[-3:])
        return loss, t_train.long(), t_val.long()

    def close(self) -> None:
        pass


PEERS: dict[str, Contender] = {
    "eager loop": EagerLoop,
    "a process a core": Processes,
    "stacked eager": stacked_eager,
    "stacked torch.compile": stacked_compiled,
    "jax vmap + scan": Jax,
    **MODULAR_PEERS,
    **TRANSFORMER_PEERS,
}
