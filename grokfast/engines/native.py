"""The native engine: C++ workers, one model a thread, weights in cache (csrc/).

Bitwise invariant: a cell has the same bits alone or in any grid, in any order, on any number of
threads, in chunks of any length, and after any interruption.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.engines import facts
from grokfast.engines.base import Tick
from grokfast.engines.support import unsupported
from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.hardware import cores
from grokfast.installation import absent
from grokfast.observing import observed_steps
from grokfast.state import State

#: Longest stretch of minibatch orders handed over at once: bounds their memory (4 bytes a sample).
_EPOCHS_A_CALL = 2000

#: Smaller side of the largest matrix whose norm a worker takes: a step of MNIST's 784 x 200 takes
#: as long as its norm.
_LARGEST_NORM = 256


class NativeEngine:
    """The CPU default; see :class:`grokfast.engines.base.Engine` for the meaning of a step."""

    name = "native"
    chunk = 1000
    keeps_partial = True
    invariant = True

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        if device.type != "cpu":
            raise EnvironmentProblem(f"the native engine runs on the CPU, not on {device}")
        try:
            from grokfast import _native
        except ImportError as error:
            advice = "install a C++17 compiler and reinstall grokfast"
            raise absent(self.name, error, advice) from error
        try:
            level = _native.levels()["active"]
        except ValueError as error:  # of GROKFAST_NATIVE_LEVEL
            raise UsageError(str(error)) from None
        self.detail = facts.listed({"level": level, "libm": facts.libm(), "draws": facts.draws()})
        self._native = _native
        self.device = device
        self.threads = threads or cores()

    def unsupported(self, bucket: Bucket) -> str | None:
        return unsupported(self.name, bucket)

    def measures(self, bucket: Bucket) -> frozenset[str]:
        """The spectral norm, of a first layer that is not too large to do so by reflections."""
        net = bucket.plain
        known = net is not None and not net.vocabulary and min(net.sizes[:2]) <= _LARGEST_NORM
        return frozenset({"spectral_norm"} if known else ())

    def advance(
        self, bucket: Bucket, state: State, cells: Tensor, until: int, tick: Tick | None = None
    ) -> None:
        job = self._job(bucket, state, cells)
        per_epoch = bucket.steps_per_epoch
        done = 0
        while True:
            start = int(state.step[cells].min()) if len(cells) else until
            stretch = until
            if bucket.orders is not None:
                first = start // per_epoch
                last = min(first + _EPOCHS_A_CALL, -(-until // per_epoch))
                order = bucket.orders.order(first, last)  # [R, E, N]
                job["order"] = np.ascontiguousarray(order.numpy().astype(np.int32))
                job["first_epoch"] = first
                stretch = min(until, last * per_epoch)
            stopped = False

            def forward(steps: int, base: int = done) -> bool:
                nonlocal stopped
                stopped = tick is not None and tick(base + steps)
                return stopped

            before = int(state.step[cells].sum())
            self._native.train(job | {"until": stretch, "tick": forward if tick else None})
            done += int(state.step[cells].sum()) - before
            if stopped or stretch >= until:
                return
            cells = cells[~state.frozen(bucket)[cells]]
            if not len(cells):
                return
            job["cells"] = _int32(cells)

    def _job(self, bucket: Bucket, state: State, cells: Tensor) -> dict[str, Any]:
        """The arguments of ``_native.train``: views of the state's own memory, and the bucket."""
        fixed = bucket.extra.get("native")
        if fixed is None:
            fixed = bucket.extra["native"] = self._fixed(bucket)
        job: dict[str, Any] = dict(fixed)  # type: ignore[call-overload]
        job["params"] = [t.numpy() for t in state.params]
        for name, tensors in state.slots.items():
            job[name] = [t.numpy() for t in tensors]
        for table in (state.progress, state.crossings, state.curves):
            job |= {name: tensor.numpy() for name, tensor in table.items()}
        norms = state.observed.get("spectral_norm")
        if norms is not None and "spectral_norm" in self.measures(bucket):
            steps = observed_steps(bucket.cell.record, bucket.cell.steps)["spectral_norm"]
            job |= {"norm_steps": steps, "spectral_norm": norms.numpy()}
        job["cells"] = _int32(cells)
        job["threads"] = self.threads
        return job

    def _fixed(self, bucket: Bucket) -> dict[str, Any]:
        cell, o, net = bucket.cell, bucket.cell.optimizer, bucket.plain
        assert net is not None  # else it is refused
        tokens, memorised = bool(net.vocabulary), bucket.weight_decay_memorised
        return {
            "dtype": cell.dtype,
            "sizes": list(net.sizes),
            "embedding": (net.vocabulary, net.sizes[0]) if tokens else None,
            "activate_embedding": net.activate_embedding,
            "activation": net.activation,
            "bias": net.bias,
            "output_bias": net.output_bias,
            "loss": cell.loss,
            "predict": cell.predict,
            "optimizer": o.kind,
            "beta1": o.beta1,
            "beta2": o.beta2,
            "eps": o.eps,
            "momentum": o.momentum,
            "lr": bucket.lr.numpy(),
            "weight_decay": bucket.weight_decay.numpy(),
            "weight_decay_memorised": None if memorised is None else memorised.numpy(),
            "x_train": _int32(bucket.x_train) if tokens else bucket.x_train.numpy(),
            "y_train": _int32(bucket.y_train),
            "x_val": _int32(bucket.x_val) if tokens else bucket.x_val.numpy(),
            "y_val": _int32(bucket.y_val),
            "targets": None if bucket.targets is None else bucket.targets.numpy(),
            "num_classes": bucket.num_classes,
            "data_index": _int32(bucket.data_index),
            "batch_size": bucket.batch_size,
            "steps_per_epoch": bucket.steps_per_epoch,
            "order": None,
            "order_index": _int32(bucket.order_index),
            "first_epoch": 0,
            "train_accuracy": cell.evaluation.train,
            "recorded_loss": cell.evaluation.train_loss,
            "eval_steps": None if bucket.eval_steps is None else bucket.eval_steps.numpy(),
            "need_train": bucket.need_train,
            "need_val": bucket.need_val,
            "need_train_more": np.array(bucket.need_train_more, np.int64),
            "need_val_more": np.array(bucket.need_val_more, np.int64),
            "stop": bucket.stop_at_both,
            "curve_steps": bucket.curve_steps.numpy(),
            "norm_steps": None,
            "level": None,
        }


def _int32(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy().astype(np.int32))
