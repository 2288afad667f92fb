"""The other ways of doing the same work: eager and compiled stacks, a process a core, JAX.

Written as a user of each would write it, with the same validation, T_train and T_val at every
step. They know the toy model (an embedding of one number, two hidden tanh layers) and no other.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from grokfast.bench import Contender, Unavailable
from grokfast.bench.trials import EagerLoop
from grokfast.program import Program

StackedStep = Callable[..., tuple[Tensor, ...]]


class Stacked:
    """All models in stacked tensors, in lockstep: batched products and elementwise AdamW."""

    def __init__(
        self, program: Program, device: torch.device, wrap: Callable[[StackedStep], StackedStep]
    ) -> None:
        check_is_toy(program)
        self.cells = range(program.num_cells)
        self.params = [
            torch.stack([m[g] for m in program.init])[program.init_index].to(device)
            for g in range(len(program.names))
        ]
        self.m = [torch.zeros_like(p) for p in self.params]
        self.v = [torch.zeros_like(p) for p in self.params]
        self.lr, self.decay = (h.float().to(device) for h in (program.lr, program.weight_decay))
        self.x, self.x_val = (
            torch.nn.functional.one_hot(x[0], program.vocabulary).sum(1).float().to(device)
            for x in (program.x_train, program.x_val)
        )  # [N, P], [V, P]
        self.y, self.y_val = program.y_train[0].to(device), program.y_val[0].to(device)
        self.targets = None if program.targets is None else program.targets[0].to(device)
        self.t_train = torch.full((len(self.cells),), -1, device=device)
        self.t_val = self.t_train.clone()
        self.loss = torch.zeros(len(self.cells), device=device)
        self.step = torch.zeros((), device=device)
        self.need = program.need_train, program.need_val
        self.run = wrap(self._step)

    @torch.no_grad()
    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.loss, self.t_train, self.t_val = self.run(
                self.params, self.m, self.v, self.step, self.t_train, self.t_val
            )

    def _step(
        self,
        params: list[Tensor],
        m: list[Tensor],
        v: list[Tensor],
        step: Tensor,
        t_train: Tensor,
        t_val: Tensor,
    ) -> tuple[Tensor, ...]:
        _, w1, _, w2, _, w3, _ = params
        s, h1, h2, output = self._forward(params, self.x)
        loss, d = self._loss(output)
        train = self._correct(output, self.y)
        gradients = [d.mT @ h2, d.sum(1)]
        d = torch.bmm(d, w3) * (1 - h2 * h2)
        gradients = [torch.bmm(d.mT, h1), d.sum(1), *gradients]
        d = torch.bmm(d, w2) * (1 - h1 * h1)
        gradients = [torch.bmm(d.mT, s), d.sum(1), *gradients]
        gradients = [self.x.T @ torch.bmm(d, w1), *gradients]
        step += 1
        c1, c2 = 1 - 0.9**step, (1 - 0.999**step).sqrt()
        for g, p in enumerate(params):
            lr, decay = (h[g].view(-1, *[1] * (p.ndim - 1)) for h in (self.lr, self.decay))
            m[g].lerp_(gradients[g], 0.1)
            v[g].mul_(0.999).addcmul_(gradients[g], gradients[g], value=0.001)
            p.mul_(1 - lr * decay).sub_(lr / c1 * m[g] / (v[g].sqrt() / c2 + 1e-8))
        val = self._correct(self._forward(params, self.x_val)[-1], self.y_val)
        number = step.long()
        t_train = torch.where((t_train < 0) & (train >= self.need[0]), number, t_train)
        t_val = torch.where((t_val < 0) & (val >= self.need[1]), number, t_val)
        return loss, t_train, t_val

    def _forward(self, params: list[Tensor], x: Tensor) -> tuple[Tensor, ...]:
        embedding, w1, b1, w2, b2, w3, b3 = params
        s = x @ embedding  # [M, N, 1]
        h1 = torch.tanh(s * w1.mT + b1[:, None])
        h2 = torch.tanh(torch.baddbmm(b2[:, None], h1, w2.mT))
        return s, h1, h2, torch.baddbmm(b3[:, None], h2, w3.mT)

    def _loss(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [M] and its gradient [M, N, O]."""
        if self.targets is None:
            log_p = output.log_softmax(2)
            own = torch.nn.functional.one_hot(self.y, output.shape[2]).to(output.dtype)
            return -(log_p * own).sum(2).mean(1), (log_p.exp() - own) / len(self.y)
        error = output - self.targets[self.y]
        return error.square().mean((1, 2)), error * (2 / error[0].numel())

    def _correct(self, output: Tensor, y: Tensor) -> Tensor:
        if self.targets is None:
            return (output.argmax(2) == y).sum(1)
        distance = (output[:, :, None] - self.targets).square().sum(3)
        return (distance.argmin(2) == y).sum(1)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.loss.cpu(), self.t_train.cpu(), self.t_val.cpu()

    def close(self) -> None:
        pass


def check_is_toy(program: Program) -> None:
    e = program.cell
    if (e.model.depth, e.model.embedding_dim, e.model.activation) != (3, 1, "tanh"):
        raise Unavailable("written for the toy model only")


def stacked_eager(program: Program, device: torch.device) -> Stacked:
    return Stacked(program, device, lambda step: step)


def stacked_compiled(program: Program, device: torch.device) -> Stacked:
    """The best plain way: one compiled function for the whole step of all models."""
    return Stacked(program, device, lambda step: torch.compile(step, fullgraph=True, dynamic=False))


class Processes:
    """A single-threaded process a core, each with the plain loop over a model of its own."""

    def __init__(self, program: Program, device: torch.device) -> None:
        if device.type != "cpu":
            raise Unavailable("one process a core is for the CPU")
        cores = len(os.sched_getaffinity(0))
        if program.num_cells < cores:
            raise Unavailable(f"needs at least {cores} models, one a core")
        self.cells = range(cores)
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for cell in self.cells:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, program, cell), daemon=True)
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


def _serve(pipe: Connection, program: Program, cell: int) -> None:
    """Trains one model as many steps as each message says, until one says None."""
    torch.set_num_threads(1)
    loop = EagerLoop(program, torch.device("cpu"), cell)
    while (message := pipe.recv()) is not None:
        if isinstance(message, int):
            loop.advance(message)
        pipe.send([float(r) for r in loop.results()])


class Jax:
    """``jit(scan(vmap(step)))``: XLA sees all steps of a call and all models."""

    def __init__(self, program: Program, device: torch.device) -> None:
        check_is_toy(program)
        try:
            import jax
        except ImportError:
            raise Unavailable("jax is not installed (pip install jax)") from None
        from jax_peer import make

        kind = "gpu" if device.type == "cuda" else "cpu"
        try:
            where = jax.devices(kind)[0]
        except RuntimeError as error:
            raise Unavailable(f"jax has no {kind}: {error}") from None
        self.cells = range(program.num_cells)
        self.carry, self.run = make(program, where)

    def advance(self, steps: int) -> None:
        self.carry = self.run(self.carry, steps)

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
}
