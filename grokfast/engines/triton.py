"""The triton engine: persistent fused kernels, one program a model (kernels/).

Bitwise invariant like the native engine: a cell does not depend on its neighbours, on their
order, on the number of programs or on the length of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.engines import facts
from grokfast.engines.base import Tick
from grokfast.engines.support import unsupported
from grokfast.errors import EnvironmentProblem
from grokfast.installation import absent
from grokfast.state import State

#: Steps a launch: the host looks at signals in between. One toy step of 441 models is estimated
#: at 0.1 ms, so a launch of this length is a fraction of a second; packing costs 0.1 ms.
_STEPS_A_LAUNCH = 1000


class TritonEngine:
    """The CUDA default; see :class:`grokfast.engines.base.Engine` for the meaning of a step."""

    name = "triton"
    chunk = 10_000
    keeps_partial = True
    invariant = True

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        try:
            import triton
            from triton import knobs
        except ImportError as error:
            raise EnvironmentProblem(
                f"the triton engine needs triton ({error})", hint="pip install triton"
            ) from error
        try:
            from grokfast import kernels
        except ImportError as error:
            raise absent(self.name, error, "reinstall grokfast") from error
        if device.type != "cuda" and not knobs.runtime.interpret:
            raise EnvironmentProblem(
                f"the triton engine runs on CUDA, not on {device}",
                hint="TRITON_INTERPRET=1 runs its kernels on the CPU, very slowly",
            )
        self._kernels = kernels
        self.device = device
        kind = "interpreter"
        if device.type == "cuda":
            kind = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
        # Tiles and code depend on both.
        self.detail = facts.listed(
            {"capability": kind, "triton": triton.__version__, "draws": facts.draws()}
        )
        #: Of ``kernels.train``: ``programs`` and ``tiles``, where they are to be tried. No bit of
        #: a result depends on the first.
        self.launch: dict[str, Any] = {}

    def unsupported(self, bucket: Bucket) -> str | None:
        if reason := unsupported(self.name, bucket):
            return reason
        spec = self._kernels.Spec(
            **self._constant(bucket),
            num_train=bucket.num_train,
            num_val=bucket.num_val,
            num_tokens=bucket.x_train.shape[2] if bucket.vocabulary else 0,
            dtype=bucket.cell.dtype,
            every_step=bucket.eval_steps is None,
        )
        return self._kernels.unsupported(spec)

    def measures(self, bucket: Bucket) -> frozenset[str]:
        return frozenset()

    def advance(
        self, bucket: Bucket, state: State, cells: Tensor, until: int, tick: Tick | None = None
    ) -> None:
        cells = listed = cells.to(self.device)
        begun = int(state.step[listed].sum())
        tensors = self._tensors(bucket)
        while True:
            cells = cells[~state.frozen(bucket)[cells] & (state.step[cells] < until)]
            if not len(cells):
                return
            start = int(state.step[cells].min())
            stretch = min(until, start + _STEPS_A_LAUNCH)
            order = {}
            if bucket.orders is not None:
                first = start // bucket.steps_per_epoch
                last = -(-stretch // bucket.steps_per_epoch)
                epochs = bucket.orders.order(first, last)  # [R, E, N]
                order = {"order": epochs.int().to(self.device), "first_epoch": first}
            self._kernels.train(
                **self._constant(bucket),
                **tensors,
                **order,
                **_state_tensors(state),
                cells=cells,
                until=stretch,
                need_train=bucket.need_train,
                need_val=bucket.need_val,
                need_train_more=torch.tensor(bucket.need_train_more, dtype=torch.int64),
                need_val_more=torch.tensor(bucket.need_val_more, dtype=torch.int64),
                stop=bucket.stop_at_both,
                **self.launch,
            )
            if tick is not None and tick(int(state.step[listed].sum()) - begun):
                return

    def _constant(self, bucket: Bucket) -> dict[str, Any]:
        """What the kernel is compiled for."""
        cell, o, net = bucket.cell, bucket.cell.optimizer, bucket.plain
        assert net is not None  # else it is refused
        return {
            "sizes": net.sizes,
            "activation": net.activation,
            "activate_embedding": net.activate_embedding,
            "bias": net.bias,
            "train_accuracy": cell.evaluation.train,
            "loss": cell.loss,
            "predict": cell.predict,
            "num_classes": bucket.num_classes,
            "batch_size": bucket.batch_size,
            "embedding": (net.vocabulary, net.sizes[0]) if net.vocabulary else None,
            "optimizer": o.kind,
            "beta1": o.beta1,
            "beta2": o.beta2,
            "eps": o.eps,
            "precision": cell.precision,
        }

    def _tensors(self, bucket: Bucket) -> dict[str, Any]:
        """Data and hyperparameters on the device, moved once a bucket."""
        moved = bucket.extra.get("triton")
        if moved is None:
            tokens = bool(bucket.vocabulary)
            moved = {
                "lr": bucket.lr,
                "weight_decay": bucket.weight_decay,
                "x_train": bucket.x_train.int() if tokens else bucket.x_train,
                "y_train": bucket.y_train.int(),
                "x_val": bucket.x_val.int() if tokens else bucket.x_val,
                "y_val": bucket.y_val.int(),
                "targets": bucket.targets,
                "data_index": bucket.data_index.int(),
                "order_index": bucket.order_index.int(),
                "eval_steps": bucket.eval_steps,
                "curve_steps": bucket.curve_steps,
            }
            bucket.extra["triton"] = moved = {
                k: None if t is None else t.contiguous().to(self.device) for k, t in moved.items()
            }
        return moved  # type: ignore[return-value]


def _state_tensors(state: State) -> dict[str, Any]:
    tables = (state.slots, state.progress, state.crossings, state.curves)
    return {"params": state.params} | {k: v for table in tables for k, v in table.items()}
