"""Contenders do the same work: first whether it is right, then how long it takes.

The work is a preset's training, with the loss, the validation pass, T_train and T_val on the
evaluation's schedule (full batch: at every step). Every time is microseconds a model-step: one
update of one model.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grokfast.bench.trials import Contender, EngineTrial, Trial, Unavailable
from grokfast.bucket import Bucket
from grokfast.bucketing import make_buckets
from grokfast.presets import preset

#: Steps after which every contender's losses are compared with float64, by default.
CHECK_STEPS = 60
#: Cells of it whose losses are: the float64 reference is slow.
CHECK_CELLS = 4
#: Repetitions of a contender on a quiet machine differ by no larger factor.
QUIET = 1.5


@dataclass(frozen=True)
class Work:
    """What every contender does: a preset's training, never stopping.

    Attributes:
        task: name of the preset.
        batch: samples a minibatch (a remainder is dropped, as is a preset's own shorter one: all
            steps are of equal work); 0 for the preset's.
        evaluation_points: of the ``log-epochs`` schedule; 0 evaluates after every epoch, which is
            the same work at every step wherever a repetition begins; 3 next to never.
        every: not 0: training and validation set are evaluated after every so many steps.
        check_steps: after which losses are compared.
    """

    task: str
    evaluation_points: int = 0
    batch: int = 0
    every: int = 0
    check_steps: int = CHECK_STEPS

    def bucket(self, models: int, dtype: str = "float32") -> Bucket:
        """``models`` cells spread over the preset's grid.

        The threshold is lowered, so that T_train and T_val of some are set within the steps that
        are compared; it costs nothing.
        """
        schedule: dict[str, object] = {"evaluation.schedule": "every-epoch"}
        if self.evaluation_points:
            schedule = {
                "evaluation.schedule": "log-epochs",
                "evaluation.points": self.evaluation_points,
            }
        if self.every:
            schedule = {"evaluation.schedule": "every-steps", "evaluation.every": self.every}
        if self.batch:
            schedule |= {
                "batch_size": self.batch,
                "batches.order": "continued",
                "batches.remainder": "dropped",
            }
        grid = preset(self.task)
        if grid.experiment.batches.remainder == "short":
            schedule["batches.remainder"] = "dropped"
        samples = len(grid.experiment.task.build().y_train)
        per_epoch = samples // (self.batch or grid.experiment.batch_size or samples)
        grid = grid.grid(
            steps=10**6 // per_epoch * per_epoch,
            stop="never",
            dtype=dtype,
            **{
                "evaluation.train": "after" if self.every else "running",
                "record.curve_points": 0,
                "record.curves": "log-spaced",
                "record.observables": (),
                "phase.threshold": 0.15,
                **schedule,
            },
        )
        # The corners are left out where they can be: cells that diverge there would cost nothing.
        spread = np.linspace(0, grid.size - 1, models + 2)[1:-1].round().astype(int)
        if models > grid.size:  # the same hyperparameters again are as much work
            spread = np.arange(models) % grid.size
        values = list(itertools.product(*grid.axes.values()))
        cells = [
            grid.experiment.replace(**dict(zip(grid.axes, values[i], strict=True))) for i in spread
        ]
        (bucket,) = make_buckets(cells, list(range(models)))
        return bucket


def checked(bucket: Bucket) -> list[int]:
    """Positions of the cells whose results are compared with float64."""
    last = bucket.num_cells - 1
    return sorted({round(i * last / (CHECK_CELLS - 1)) for i in range(CHECK_CELLS)})


class Wrong(Exception):
    """A contender computes something else than the others; the message says what."""


@dataclass(frozen=True)
class Truth:
    """The float64 reference after ``check_steps`` steps, and how far plain float32 is from it."""

    loss: Tensor  # [K] float64
    t_train: Tensor
    t_val: Tensor
    tolerance: float  # relative, of the losses

    @classmethod
    def of(cls, work: Work, models: int) -> Truth:
        found = []
        for dtype in ("float64", "float32"):
            bucket = work.bucket(models, dtype)
            trial = EngineTrial("reference", bucket, torch.device("cpu"), checked(bucket))
            trial.advance(work.check_steps)
            found.append(trial.results())
        (loss, t_train, t_val), (rough, *_) = found
        # Sums in another order may be a few times as far off.
        return cls(loss, t_train, t_val, float(4 * (rough / loss - 1).abs().max() + 1e-6))

    def error_of(self, trial: Trial, bucket: Bucket) -> float:
        """Largest relative error of the losses.

        Raises:
            Wrong: beyond the tolerance, or T_train or T_val differ by over an epoch.
        """
        # Tensor cores cut sums off where FFMA rounds them; TF32 keeps 10 bits of 23, which moves
        # T_train, too (emulated: losses 100 times as far off).
        allowed = {"ieee": self.tolerance, "tf32x3": max(self.tolerance, 1e-5)}.get(
            trial.precision, 100 * self.tolerance
        )
        both = [
            (trial.cells.index(c), k) for k, c in enumerate(checked(bucket)) if c in trial.cells
        ]
        own, true = torch.tensor(both).T
        loss, t_train, t_val = (r[own] for r in trial.results())
        error = float((loss.double() / self.loss[true] - 1).abs().max())
        if not error <= allowed:
            raise Wrong(f"loss off by {error:.1e} > {allowed:.1e}")
        if trial.precision != "tf32":
            for name, own_t, true_t in (
                ("T_train", t_train, self.t_train),
                ("T_val", t_val, self.t_val),
            ):
                if bool(((own_t - true_t[true]).abs() > bucket.steps_per_epoch).any()):
                    raise Wrong(f"{name} is not right")
        return error


@dataclass
class Row:
    """One contender at one number of models; a raw row of bench/results."""

    task: str
    evaluation_points: int
    contender: str
    models: int
    precision: str = "ieee"  # of the products
    floor_us: float | None = None  # a model-step, if nothing but the products took time
    times_us: list[float] = field(default_factory=list)  # a model-step, one entry a repetition
    steps: int = 0  # a repetition
    error: float | None = None
    memory_mb: float | None = None  # of this process at its peak, or of the GPU
    compile_s: float | None = None
    skipped: str | None = None  # why nothing was timed
    batch: int = 0  # samples a minibatch; 0 for the preset's
    every: int = 0  # steps between evaluations of everything; 0 for the schedule's

    @property
    def median_us(self) -> float:
        return statistics.median(self.times_us)

    @property
    def spread(self) -> float:
        """The slowest repetition, in multiples of the fastest."""
        return max(self.times_us) / min(self.times_us) if self.times_us else 1.0

    @property
    def disturbed(self) -> bool:
        """Whether repetitions differ by more than they do on a machine with nothing else to do."""
        return self.spread > QUIET


def measure(
    work: Work,
    models: int,
    contenders: dict[str, Contender],
    device: torch.device,
    *,
    repetitions: int = 5,
    seconds: float = 1.0,
    say: Callable[[str], None] = lambda line: None,
    skipped: set[str] | None = None,
) -> list[Row]:
    """Every contender on the same models, in turn, ``repetitions`` times.

    One that cannot run here, fails or computes something else is not timed; its row says why.

    Args:
        skipped: what has been said of such contenders, and is not said again.
    """
    skipped = set() if skipped is None else skipped
    bucket = work.bucket(models)
    truth = Truth.of(work, models)
    rows, trials = [], {}
    for name, contender in contenders.items():
        row = Row(
            work.task, work.evaluation_points, name, models, batch=work.batch, every=work.every
        )
        rows.append(row)
        memory = Memory(device)
        start = time.perf_counter()
        try:
            trial = contender(bucket, device)
            trial.advance(work.check_steps)
            row.error = truth.error_of(trial, bucket)
            row.compile_s = time.perf_counter() - start
            row.memory_mb = None if trial.elsewhere else memory.grown_mb()
            row.steps = _steps_for(trial, seconds, device)
        except Exception as reason:  # whatever it is: the others are worth measuring
            row.skipped = _why_not(reason)
            line = f"  {name}: not timed: {row.skipped}"
            if line not in skipped:
                skipped.add(line)
                say(line)
            continue
        row.precision = trial.precision
        trials[name] = trial
        say(f"  {name}: right to {row.error:.1e}; {row.steps} steps a repetition")
    for _ in range(repetitions):
        for row in rows:
            if row.contender in trials:
                trial = trials[row.contender]
                took = _timed(trial, row.steps, device)
                row.times_us.append(took / row.steps / len(trial.cells) * 1e6)
    for trial in trials.values():
        trial.close()
    return rows


def _why_not(reason: Exception) -> str:
    if isinstance(reason, Unavailable):
        return str(reason)
    if isinstance(reason, Wrong):
        return f"wrong: {reason}"
    first = next(iter(str(reason).splitlines()), "")
    return f"failed: {type(reason).__name__}: {first}"


def _steps_for(trial: Trial, seconds: float, device: torch.device) -> int:
    """Steps of a repetition: of an engine at least 100, on a GPU 1,000, because it packs and
    unpacks its state (or captures a graph) at every call; the trainer's calls are of 500 and more.
    Where a step takes milliseconds that is nothing.
    """
    took = _timed(trial, 10, device)
    least = 20 if took < 1 else 5
    if isinstance(trial, EngineTrial) and took < 0.1:
        least = 1000 if trial.engine.device.type == "cuda" else 100
    return max(least, round(10 * seconds / took))


def _timed(trial: Trial, steps: int, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    trial.advance(steps)
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Memory:
    """How far memory grows from here at its peak: allocated on the GPU, resident on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device) / 2**20
        else:
            # What earlier contenders have freed goes back to the system, and the kernel's record
            # of the peak starts anew (Linux; elsewhere nothing is told).
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            self.before = _resident("VmRSS")

    def grown_mb(self) -> float | None:
        """MiB since the beginning; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20 - self.before
        peak = _resident("VmHWM")
        return peak - self.before if peak else None


def _resident(name: str) -> float:
    """MiB, or 0 where there is no such record."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return 0.0
