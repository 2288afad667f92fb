"""The reference engine: one model, one step at a time, autograd and ``torch.optim``.

Obviously right, any dtype, any device; slow is fine. The truth the other engines are tested
against. It imports no other engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.engines import facts
from grokfast.engines.base import Tick
from grokfast.engines.support import unsupported
from grokfast.experiment import Optimizer
from grokfast.measuring import count_correct, mean_loss, measure
from grokfast.models.noisy import Noisy
from grokfast.noise import UPDATE_NOISE, WEIGHT_NOISE, normal_like
from grokfast.optimizers import OPTIMIZERS
from grokfast.state import State


class ReferenceEngine:
    """Plain PyTorch; see :class:`grokfast.engines.base.Engine` for the meaning of a step."""

    name = "reference"
    chunk = 1000
    keeps_partial = True
    invariant = True

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self.device = device
        self.threads = threads or torch.get_num_threads()

    @property
    def detail(self) -> str:
        """The facts that decide the bits."""
        return facts.listed(
            {
                **facts.of_torch(self.device, self.threads),
                "arithmetic": facts.arithmetic(self.device, self.threads),
                "draws": facts.draws(),
            }
        )

    def unsupported(self, bucket: Bucket) -> str | None:
        return unsupported(self.name, bucket)

    def measures(self, bucket: Bucket) -> frozenset[str]:
        return frozenset()

    def advance(
        self, bucket: Bucket, state: State, cells: Tensor, until: int, tick: Tick | None = None
    ) -> None:
        with facts.on_threads(self.threads):
            self._advance(bucket, state, cells, until, tick)

    def _advance(
        self, bucket: Bucket, state: State, cells: Tensor, until: int, tick: Tick | None
    ) -> None:
        frozen = state.frozen(bucket)
        done = 0
        for m in cells.tolist():
            if frozen[m] or state.step[m] >= until:
                continue
            cell = _Cell(bucket, state, m, self.device)
            while cell.step < until and not cell.frozen:
                cell.advance()
                done += 1
                if tick is not None and tick(done):
                    cell.store()
                    return
            cell.store()


#: torch's own optimizers, by the names of OPTIMIZERS; a user's own has its update alone.
_TORCH: dict[str, Callable[[list[dict[str, Any]], Optimizer], torch.optim.Optimizer]] = {
    "adamw": lambda groups, o: torch.optim.AdamW(
        groups, betas=(o.beta1, o.beta2), eps=o.eps, foreach=False
    ),
    "adam": lambda groups, o: torch.optim.Adam(
        groups, betas=(o.beta1, o.beta2), eps=o.eps, foreach=False
    ),
    "sgd": lambda groups, o: torch.optim.SGD(groups, momentum=o.momentum, foreach=False),
}


class _Cell:
    """One model on its way: an ``nn.Module``, an optimizer and the cell's counters."""

    def __init__(self, bucket: Bucket, state: State, m: int, device: torch.device) -> None:
        self.bucket, self.state, self.m = bucket, state, m
        self.step = int(state.step[m])
        self.frozen = False
        self.memorised = False  # whether the decay has changed
        self.warms_up = bool(bucket.warmup[m] > 0)
        d = int(bucket.data_index[m])
        self.x_train = bucket.x_train[d].to(device)  # [N, I] or [N, K]
        self.y_train = bucket.y_train[d].to(device)  # [N]
        self.x_val = bucket.x_val[d].to(device)
        self.y_val = bucket.y_val[d].to(device)
        self.targets = None if bucket.targets is None else bucket.targets[d].to(device)
        self.model = bucket.module().to(device)
        self.parameters = list(self.model.parameters())
        with torch.no_grad():
            for p, stacked in zip(self.parameters, state.params, strict=True):
                p.copy_(stacked[m])
            for name, buffer in self.model.named_buffers():
                buffer.copy_(state.buffers[name][m])
        initial = bucket.init[int(bucket.init_index[m])]
        self.initial = [p.to(device) for p in initial]
        self.optimizer = self._make_optimizer()
        self.order: tuple[int, Tensor] | None = None  # an epoch, and its order of the rows

    def _make_optimizer(self) -> torch.optim.Optimizer:
        bucket, m, o = self.bucket, self.m, self.bucket.cell.optimizer
        groups = [
            {
                "params": [p],
                "lr": float(bucket.lr[g, m]),
                "weight_decay": float(bucket.weight_decay[g, m]),
            }
            for g, p in enumerate(self.parameters)
        ]
        make = _TORCH.get(o.kind, _Own)
        optimizer = make(groups, o)
        for g, p in enumerate(self.parameters):
            kept = {name: own[g][m].clone() for name, own in self.state.slots.items()}
            optimizer.state[p] = {"step": torch.tensor(float(self.step)), **kept}
        return optimizer

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the next step."""
        bucket = self.bucket
        if bucket.orders is None:
            return self.x_train, self.y_train
        epoch = self.step // bucket.steps_per_epoch
        if self.order is None or self.order[0] != epoch:
            orders = bucket.orders.order(epoch, epoch + 1)  # [R, 1, N]
            self.order = epoch, orders[int(bucket.order_index[self.m]), 0]
        first, last = bucket.batch_rows(self.step)
        rows = self.order[1][first:last].to(self.x_train.device)
        return self.x_train[rows], self.y_train[rows]

    def advance(self) -> None:
        """One step."""
        bucket, state, m = self.bucket, self.state, self.m
        i = self.step + 1
        x, y = self.batch()
        self.model.train()
        if isinstance(self.model, Noisy):
            self.model.noise = (int(bucket.noise_seeds[m]), i)
        before = [buffer.clone() for buffer in self.model.buffers()]
        clean = self.add_weight_noise(i)
        output = self.model(x)
        loss = mean_loss(bucket.cell, output, y, self.targets)
        if not torch.isfinite(loss):
            self.put_back(clean)
            for buffer, old in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(old)
            state.diverged_at[m] = i
            self.frozen = True
            return
        if self.step % bucket.steps_per_epoch == 0:
            state.epoch_correct[m] = 0
            state.epoch_loss[m] = 0.0
        state.epoch_correct[m] += count_correct(bucket.cell, output.detach(), y, self.targets)
        state.epoch_loss[m] += float(loss.detach())
        if self.warms_up:
            factor = float(bucket.lr_factor(i)[m])
            for g, group in enumerate(self.optimizer.param_groups):
                group["lr"] = float(bucket.lr[g, m]) * factor
        self.change_decay()
        self.optimizer.zero_grad()
        loss.backward()
        self.put_back(clean)
        self.update(i)
        self.step = i
        if bucket.evaluates(i):
            self.evaluate(i, float(loss.detach()))
        if bucket.stop_at_both:
            self.frozen = bool(state.t_train[m] >= 0 and state.t_val[m] >= 0)

    def update(self, i: int) -> None:
        """Every parameter in step i, by its gradient and besides."""
        try:
            self.optimizer.step()
            self.move_besides(i)
        except RuntimeError as error:
            # torch refuses a factor that the type cannot hold, such as a learning rate of 1e39,
            # which in its arithmetic is infinite: so are the parameters, and the next loss.
            if "without overflow" not in str(error):
                raise
            with torch.no_grad():
                for p in self.parameters:
                    p.fill_(torch.nan)

    def noise(self, site: int, i: int) -> list[Tensor]:
        """Standard normal numbers for every parameter in step i, at one of the sites."""
        device = self.parameters[0].device
        seeds = self.bucket.noise_seeds[self.m].to(device)[None]
        step = torch.tensor(i, device=device)
        return [z[0] for z in normal_like([p[None] for p in self.parameters], seeds, step, site)]

    def change_decay(self) -> None:
        """The decay of the steps after the one in which T_train came to exist."""
        decay = self.bucket.weight_decay_memorised
        if self.memorised or decay is None or self.state.t_train[self.m] < 0:
            return
        self.memorised = True
        for g, group in enumerate(self.optimizer.param_groups):
            group["weight_decay"] = float(decay[g, self.m])

    @torch.no_grad()
    def add_weight_noise(self, i: int) -> list[Tensor]:
        """Copies of the parameters, to which noise is added where the optimizer has it."""
        size = self.bucket.cell.optimizer.weight_noise
        if not size:
            return []
        clean = [p.clone() for p in self.parameters]
        for p, noise in zip(self.parameters, self.noise(WEIGHT_NOISE, i), strict=True):
            p.add_(size * noise)
        return clean

    @torch.no_grad()
    def put_back(self, clean: list[Tensor]) -> None:
        """The parameters as they were before :meth:`add_weight_noise`."""
        for p, own in zip(self.parameters, clean, strict=bool(clean)):
            p.copy_(own)

    @torch.no_grad()
    def move_besides(self, i: int) -> None:
        """What torch's optimizers do not have: decay to the initial values, noise."""
        o = self.bucket.cell.optimizer
        noise = self.noise(UPDATE_NOISE, i) if o.update_noise else []
        for g, (p, group) in enumerate(
            zip(self.parameters, self.optimizer.param_groups, strict=True)
        ):
            if p.grad is None:
                continue
            match o.decay_towards:
                case "zero":
                    pass
                case "initial":  # p - lr decay (p - initial), of which torch does the first half
                    p.add_(group["lr"] * group["weight_decay"] * self.initial[g])
                case other:
                    raise ValueError(f"unknown aim of decay {other!r}")
            if noise:
                p.sub_(group["lr"] * o.update_noise * noise[g])

    @torch.no_grad()
    def evaluate(self, i: int, batch_loss: float) -> None:
        """What is known after step i, whose batch had this loss before the update."""
        bucket, state, m = self.bucket, self.state, self.m
        self.model.eval()
        val_loss, val_correct = self.measure(self.x_val, self.y_val)
        evaluation = bucket.cell.evaluation
        match evaluation.train:
            case "running":
                train_correct = int(state.epoch_correct[m])
                train_loss = float(state.epoch_loss[m]) / bucket.steps_per_epoch
            case "after":
                now, train_correct = self.measure(self.x_train, self.y_train)
                train_loss = {"before": batch_loss, "after": now}[evaluation.train_loss]
            case other:
                raise ValueError(f"unknown training accuracy {other!r}")
        for name, correct in (("train", train_correct), ("val", val_correct)):
            need, more = getattr(bucket, f"need_{name}"), getattr(bucket, f"need_{name}_more")
            best = state.progress[f"best_{name}_correct"]
            state.progress[f"{name}_correct"][m] = correct
            best[m] = max(int(best[m]), correct)
            if state.progress[f"t_{name}"][m] < 0 and correct >= need:
                state.progress[f"t_{name}"][m] = i
            crossings = state.crossings[f"{name}_crossings"]
            for h, enough in enumerate(more):
                if crossings[m, h] < 0 and correct >= enough:
                    crossings[m, h] = i
        j = bucket.curve_index.get(i)
        if j is not None:
            # As tensors: a loss that float32 cannot hold is infinite there, and no error.
            state.train_loss[m, j] = torch.tensor(train_loss, dtype=torch.float64)
            state.train_acc[m, j] = train_correct / bucket.counted
            state.val_loss[m, j] = torch.tensor(val_loss, dtype=torch.float64)
            state.val_acc[m, j] = val_correct / bucket.num_val

    def measure(self, x: Tensor, y: Tensor) -> tuple[float, int]:
        """Mean loss and right predictions of samples."""
        return measure(self.model, self.bucket.cell, x, y, self.targets)

    def store(self) -> None:
        """Parameters, slots, buffers and step back into the stacked state."""
        state, m = self.state, self.m
        for g, p in enumerate(self.parameters):
            state.params[g][m] = p.detach()
            for name, own in state.slots.items():
                own[g][m] = self.optimizer.state[p][name]
        for name, buffer in self.model.named_buffers():
            state.buffers[name][m] = buffer
        state.step[m] = self.step


class _Own(torch.optim.Optimizer):
    """An update rule that torch does not have."""

    def __init__(self, groups: list[dict[str, Any]], settings: Optimizer) -> None:
        super().__init__(groups, {})
        self.rule, self.settings = OPTIMIZERS[settings.kind], settings

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:  # frozen, or not used: torch's own optimizers pass over it
                    continue
                kept = self.state[p]
                kept["step"] += 1
                new, slots = self.rule.update(
                    p,
                    p.grad,
                    [kept[name] for name in self.rule.slots],
                    group["lr"],
                    group["weight_decay"],
                    int(kept["step"]),
                    self.settings,
                )
                p.copy_(new)
                kept |= dict(zip(self.rule.slots, slots, strict=True))
