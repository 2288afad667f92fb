"""The reference engine: one model, one step at a time, autograd and ``torch.optim``.

Obviously right, any dtype, any device; slow is fine. The truth the other engines are tested
against. It imports no other engine.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grokfast.bucket import Bucket
from grokfast.engines import facts
from grokfast.engines.base import Tick
from grokfast.model import MLP
from grokfast.state import State


class ReferenceEngine:
    """Plain PyTorch; see :class:`grokfast.engines.base.Engine` for the meaning of a step."""

    name = "reference"
    chunk = 1000
    keeps_partial = True

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
        if bucket.cell.dtype == "float32" and bucket.cell.precision != "ieee":
            return f"precision {bucket.cell.precision!r}; it computes in ieee only"
        return None

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


class _Cell:
    """One model on its way: an ``nn.Module``, a ``torch.optim.AdamW`` and the cell's counters."""

    def __init__(self, bucket: Bucket, state: State, m: int, device: torch.device) -> None:
        self.bucket, self.state, self.m = bucket, state, m
        self.step = int(state.step[m])
        self.frozen = False
        d = int(bucket.data_index[m])
        self.x_train = bucket.x_train[d].to(device)  # [N, I] or [N, K]
        self.y_train = bucket.y_train[d].to(device)  # [N]
        self.x_val = bucket.x_val[d].to(device)
        self.y_val = bucket.y_val[d].to(device)
        self.targets = None if bucket.targets is None else bucket.targets[d].to(device)
        self.model = MLP(
            bucket.sizes, bucket.cell.model.activation, bucket.vocabulary, bucket.dtype
        ).to(device)
        with torch.no_grad():
            for p, stacked in zip(self.model.parameters(), state.params, strict=True):
                p.copy_(stacked[m])
        self.optimizer = self._make_optimizer()

    def _make_optimizer(self) -> torch.optim.AdamW:
        bucket, m, o = self.bucket, self.m, self.bucket.cell.optimizer
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p],
                    "lr": float(bucket.lr[g, m]),
                    "weight_decay": float(bucket.weight_decay[g, m]),
                }
                for g, p in enumerate(self.model.parameters())
            ],
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            foreach=False,
        )
        for g, p in enumerate(self.model.parameters()):
            optimizer.state[p] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": self.state.exp_avg[g][m].clone(),
                "exp_avg_sq": self.state.exp_avg_sq[g][m].clone(),
            }
        return optimizer

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Mean loss of outputs ``[B, O]`` for labels ``[B]``."""
        if self.bucket.cell.loss == "cross_entropy":
            return nn.functional.cross_entropy(output, label)
        assert self.targets is not None
        return nn.functional.mse_loss(output, self.targets[label])

    def correct(self, output: Tensor, label: Tensor) -> int:
        """Number of right predictions: the largest output, or the nearest target row."""
        if self.bucket.cell.predict == "argmax":
            prediction = output.argmax(dim=1)
        else:
            assert self.targets is not None
            distance = (output[:, None, :] - self.targets).square().sum(dim=2)  # [B, C]
            prediction = distance.argmin(dim=1)
        return int((prediction == label).sum())

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the next step."""
        bucket = self.bucket
        if bucket.shuffles is None:
            return self.x_train, self.y_train
        epoch, k = divmod(self.step, bucket.steps_per_epoch)
        order = bucket.shuffles.order(epoch, epoch + 1)[int(bucket.init_index[self.m]), 0]
        rows = order[k * bucket.batch_size : (k + 1) * bucket.batch_size].to(self.x_train.device)
        return self.x_train[rows], self.y_train[rows]

    def advance(self) -> None:
        """One step."""
        bucket, state, m = self.bucket, self.state, self.m
        i = self.step + 1
        x, y = self.batch()
        output = self.model(x)
        loss = self.loss(output, y)
        if not torch.isfinite(loss):
            state.diverged_at[m] = i
            self.frozen = True
            return
        if self.step % bucket.steps_per_epoch == 0:
            state.epoch_correct[m] = 0
            state.epoch_loss[m] = 0.0
        state.epoch_correct[m] += self.correct(output.detach(), y)
        state.epoch_loss[m] += float(loss.detach())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step = i
        if bucket.evaluates(i):
            self.evaluate(i)
        every = bucket.cell.record.embeddings
        if every and i % every == 0:
            state.embeddings[m, i // every] = next(self.model.parameters()).detach()
        if bucket.stop_at_both:
            self.frozen = bool(state.t_train[m] >= 0 and state.t_val[m] >= 0)

    @torch.no_grad()
    def evaluate(self, i: int) -> None:
        """Accuracies after step i: T_train, T_val and the curves."""
        bucket, state, m = self.bucket, self.state, self.m
        output = self.model(self.x_val)
        val_correct = self.correct(output, self.y_val)
        if state.t_train[m] < 0 and state.epoch_correct[m] >= bucket.need_train:
            state.t_train[m] = i
        if state.t_val[m] < 0 and val_correct >= bucket.need_val:
            state.t_val[m] = i
        j = bucket.curve_index.get(i)
        if j is not None:
            state.train_loss[m, j] = state.epoch_loss[m] / bucket.steps_per_epoch
            state.train_acc[m, j] = state.epoch_correct[m] / bucket.num_train
            state.val_loss[m, j] = self.loss(output, self.y_val)
            state.val_acc[m, j] = val_correct / bucket.num_val

    def store(self) -> None:
        """Parameters, moments and step back into the stacked state."""
        state, m = self.state, self.m
        for g, p in enumerate(self.model.parameters()):
            moments = self.optimizer.state[p]
            state.params[g][m] = p.detach()
            state.exp_avg[g][m] = moments["exp_avg"]
            state.exp_avg_sq[g][m] = moments["exp_avg_sq"]
        state.step[m] = self.step
