"""What is measured: our engines, and the way the publications trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from grokfast.bucket import Bucket
from grokfast.engines import make_engine
from grokfast.engines.triton import TritonEngine
from grokfast.errors import GrokfastError
from grokfast.state import State


class Unavailable(Exception):
    """A contender that cannot run here; the message says why."""


class Trial(Protocol):
    """Models of a bucket on their way."""

    cells: Sequence[int]  # positions in the bucket of the models that are trained
    precision: str  # of the products
    elsewhere: bool  # where its memory is not seen: in other processes, of another allocator

    def advance(self, steps: int) -> None:
        """Trains every model further; the work is done when this returns, or is queued on CUDA."""

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of the epoch so far (full batch: of the last step), T_train, T_val: [len(cells)]."""

    def close(self) -> None:
        """Ends processes, frees memory."""


#: Makes a trial of a bucket on a device, or raises Unavailable.
Contender = Callable[[Bucket, torch.device], Trial]


class EngineTrial:
    """One of our engines, in calls of as many steps as asked for."""

    elsewhere = False

    def __init__(
        self,
        name: str,
        bucket: Bucket,
        device: torch.device,
        cells: Sequence[int] | None = None,
        precision: str = "ieee",
        launch: dict[str, Any] | None = None,
    ) -> None:
        try:
            self.engine = make_engine(name, str(device))
        except GrokfastError as error:
            raise Unavailable(str(error)) from error
        if launch:
            assert isinstance(self.engine, TritonEngine)
            self.engine.launch.update(launch)
        self.precision = precision
        bucket = replace(bucket, cell=bucket.cell.replace(precision=precision))
        reason = self.engine.unsupported(bucket)
        if reason:
            raise Unavailable(reason)
        self.bucket = bucket
        self.cells: Sequence[int] = range(bucket.num_cells) if cells is None else cells
        self.state = State.initial(bucket).to(device)
        self.step = 0

    def advance(self, steps: int) -> None:
        self.step += steps
        self.engine.advance(self.bucket, self.state, torch.tensor(self.cells), self.step)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        rows, s = torch.tensor(self.cells), self.state
        return s.epoch_loss.cpu()[rows], s.t_train.cpu()[rows], s.t_val.cpu()[rows]

    def close(self) -> None:
        pass


class EagerLoop:
    """The publications' own way: an ``nn.Module``, ``torch.optim.AdamW``, one model at a time."""

    elsewhere = False
    precision = "ieee"

    def __init__(self, bucket: Bucket, device: torch.device, cell: int = 0) -> None:
        self.bucket, self.step = bucket, 0
        self.cells: Sequence[int] = [cell]
        d = int(bucket.data_index[cell])
        self.x, self.y = bucket.x_train[d].to(device), bucket.y_train[d].to(device)
        self.x_val, self.y_val = bucket.x_val[d].to(device), bucket.y_val[d].to(device)
        self.targets = None if bucket.targets is None else bucket.targets[d].to(device)
        model = bucket.module()
        with torch.no_grad():
            for p, initial in zip(
                model.parameters(), bucket.init[int(bucket.init_index[cell])], strict=True
            ):
                p.copy_(initial)
        self.model = model.to(device)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for g, p in enumerate(self.model.parameters()):
            key = float(bucket.lr[g, cell]), float(bucket.weight_decay[g, cell])
            groups.setdefault(key, []).append(p)
        o = bucket.cell.optimizer
        self.optimizer = torch.optim.AdamW(
            [{"params": ps, "lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()],
            betas=(o.beta1, o.beta2),
            eps=o.eps,
        )
        self.rates = [lr for lr, _ in groups]
        self.t_train = self.t_val = -1
        self.epoch_loss = torch.zeros((), device=device)
        self.epoch_correct = 0

    def advance(self, steps: int) -> None:
        bucket = self.bucket
        for _ in range(steps):
            x, y = self._batch()
            self._warm_up()
            if self.step % bucket.steps_per_epoch == 0:
                self.epoch_loss, self.epoch_correct = torch.zeros_like(self.epoch_loss), 0
            self.step += 1
            output = self.model(x)
            loss = self._loss(output, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                self.epoch_loss += loss
                self.epoch_correct += self._correct(output, y)
                if bucket.evaluates(self.step):
                    self._evaluate()

    def _warm_up(self) -> None:
        if not bool(self.bucket.warmup[self.cells[0]] > 0):
            return
        factor = float(self.bucket.lr_factor(self.step + 1)[self.cells[0]])
        for group, lr in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = lr * factor

    def _batch(self) -> tuple[Tensor, Tensor]:
        bucket = self.bucket
        if bucket.orders is None:
            return self.x, self.y
        epoch = self.step // bucket.steps_per_epoch
        order = bucket.orders.order(epoch, epoch + 1)[int(bucket.order_index[self.cells[0]]), 0]
        rows = order[slice(*bucket.batch_rows(self.step))]
        return self.x[rows], self.y[rows]

    def _evaluate(self) -> None:
        self.model.eval()
        val = self._correct(self.model(self.x_val), self.y_val)
        train = self.epoch_correct
        if self.bucket.cell.evaluation.train == "after":
            train = self._correct(self.model(self.x), self.y)
        self.model.train()
        if self.t_train < 0 and train >= self.bucket.need_train:
            self.t_train = self.step
        if self.t_val < 0 and val >= self.bucket.need_val:
            self.t_val = self.step

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        if self.bucket.cell.loss == "cross_entropy":
            return nn.functional.cross_entropy(output, y)
        assert self.targets is not None
        return nn.functional.mse_loss(output, self.targets[y])

    def _correct(self, output: Tensor, y: Tensor) -> int:
        if self.bucket.cell.predict == "argmax":
            return int((output.argmax(1) == y).sum())
        assert self.targets is not None
        distance = (output[:, None, :] - self.targets).square().sum(2)
        return int((distance.argmin(1) == y).sum())

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.epoch_loss.cpu()[None], torch.tensor([self.t_train]), torch.tensor([self.t_val])

    def close(self) -> None:
        pass


def engine(name: str, precision: str = "ieee", **launch: Any) -> Contender:
    """One of our engines; ``native`` on the machine's CPU whatever the device.

    Args:
        launch: of the triton engine, for its kernel: ``programs``, ``tiles``.
    """

    def contender(bucket: Bucket, device: torch.device) -> Trial:
        where = torch.device("cpu") if name == "native" else device
        trial = EngineTrial(name, bucket, where, precision=precision, launch=launch)
        trial.elsewhere = where.type != device.type
        return trial

    return contender


#: What `grokfast bench` compares; bench/peers.py has more.
BASIC: dict[str, Contender] = {
    "eager loop": EagerLoop,
    "compiled": engine("compiled"),
    "native": engine("native"),
    "triton": engine("triton"),
}
#: And on a GPU: products with fewer bits.
FEWER_BITS: dict[str, Contender] = {
    f"{name} {precision}": engine(name, precision)
    for name, precision in (("triton", "tf32x3"), ("triton", "tf32"), ("compiled", "tf32"))
}
