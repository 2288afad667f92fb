"""Synthetic Results, made without training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from grokfast.agree.tables import PUBLISHED, load_reference
from grokfast.fields import short_name
from grokfast.grid import Grid
from grokfast.phases import classify
from grokfast.presets import preset
from grokfast.results import ALWAYS, DIVERGED, OK, PENDING, Results

STEPS = {"C": (300, 700), "G": (300, 20_000), "M": (900, -1), "F": (-1, -1), "X": (-1, -1)}


def columns(grid: Grid) -> dict:
    """Hyperparameters of each cell; unlike the package's own, fast for 10,000 of them."""
    found = {short_name(p): np.full(grid.size, grid.experiment.get(p)) for p in ALWAYS}
    product = zip(*itertools.product(*grid.axes.values()), strict=True)
    for path, values in zip(grid.axes, product, strict=True):
        array = np.array(values)
        found[short_name(path)] = array.astype(object) if array.dtype.kind == "U" else array
    return found


def make_results(
    grid: Grid,
    t_train,
    t_val,
    *,
    diverged=(),
    pending=(),
    runs=None,
    points=60,
    snapshots=0,
    dim=1,
    observed=0,
) -> Results:
    """Results of a grid (or of the cells ``runs``) with given steps and made-up curves."""
    runs = np.arange(grid.size) if runs is None else np.asarray(runs)
    t_train = np.broadcast_to(np.asarray(t_train, np.int64), len(runs)).copy()
    t_val = np.broadcast_to(np.asarray(t_val, np.int64), len(runs)).copy()
    status = np.full(len(runs), OK, np.uint8)
    status[list(diverged)], status[list(pending)] = DIVERGED, PENDING
    t_train[list(pending)] = t_val[list(pending)] = -1
    budget = grid.experiment.steps
    ended = np.where((t_train >= 0) & (t_val >= 0), np.maximum(t_train, t_val), budget)
    ended[list(pending)] = 0
    variables = {
        "run": (("run",), runs.astype(np.int64)),
        **{k: (("run",), v[runs]) for k, v in columns(grid).items()},
        "status": (("run",), status),
        "t_train": (("run",), t_train),
        "t_val": (("run",), t_val),
        "diverged_at": (("run",), np.where(status == DIVERGED, 77, -1)),
        "steps_done": (("run",), ended),
        "phase": (
            ("run",),
            classify(t_train, t_val, grid.experiment.phase, finished=status != PENDING),
        ),
    }
    if points:
        step = np.unique(np.geomspace(1, budget, points).astype(np.int64))
        variables["step"] = (("step",), step)
        rng = np.random.default_rng(0)
        for name, t in (("train", t_train), ("val", t_val)):
            middle = np.where(t < 0, 3.0 * budget, t)[:, None]
            acc = 0.1 + 0.9 / (1 + (middle / step) ** 3)
            acc = np.clip(acc + rng.normal(0, 0.01, acc.shape), 0, 1)
            acc[step[None] > ended[:, None]] = np.nan
            variables[f"{name}_acc"] = (("run", "step"), acc.astype(np.float32))
            variables[f"{name}_loss"] = (("run", "step"), (3 * (1.01 - acc)).astype(np.float32))
    if snapshots:
        rng = np.random.default_rng(1)
        time = np.arange(snapshots)[None, :, None, None]
        start = rng.uniform(-0.5, 0.5, (len(runs), 1, 10, dim))
        goal = np.linspace(-1, 1, 10)[None, None, :, None] * np.linspace(1, 0.2, dim)
        pull = 1 - np.exp(-time / (0.3 * snapshots))
        values = start + (goal - start) * pull * (t_val >= 0)[:, None, None, None]
        values = values + 0.01 * rng.normal(size=values.shape)
        variables["snapshot"] = (("snapshot",), np.arange(snapshots, dtype=np.int64) * 10)
        variables["embeddings"] = (
            ("run", "snapshot", "token", "component"),
            values.astype(np.float32),
        )
    if observed:
        rng = np.random.default_rng(2)
        step = np.unique([0, *np.geomspace(1, budget, observed).astype(np.int64)])
        norms = rng.uniform(1, 3, (len(runs), len(step), 7)).astype(np.float32)
        norms[:, -1] = np.nan  # not reached
        variables["observed"] = (("observed",), step)
        variables["norms"] = (("run", "observed", "parameter"), norms)
    return Results(
        grid=grid,
        variables=variables,
        provenance={"engine": "compiled", "device": "cpu", "package_version": "0.1.0"},
        complete=not len(pending),
    )


def from_letters(grid: Grid, rows, **options) -> Results:
    """Results whose phases over (weight decay, lr) are the given rows of letters (F: confusion)."""
    letters = "".join(rows)
    order = list(grid.axes).index("optimizer.lr")
    if order == 0:  # the grid's last axis varies fastest
        letters = "".join("".join(column) for column in zip(*rows, strict=True))
    t_train, t_val = zip(*(STEPS[c] for c in letters), strict=True)
    return make_results(grid, t_train, t_val, **options)


FOUR = ["CCCMM", "CGGMM", "GGGMX", "GGMXX"]


def small_grid(**axes) -> Grid:
    return preset("addition-regression").grid(
        **{"lr": np.logspace(-5, -2, 5).tolist(), "weight_decay": [0.0, 3.0, 6.0, 10.0], **axes}
    )


@pytest.fixture(scope="session")
def make():
    """``make(grid, t_train, t_val, ...)``: Results of any grid."""
    return make_results


@pytest.fixture(scope="session")
def letters():
    """``letters(rows, axes={}, ...)``: Results over a 5 x 4 grid from rows of phase letters."""

    def build(rows=FOUR, *, axes=None, **options) -> Results:
        return from_letters(small_grid(**(axes or {})), rows, **options)

    return build


@pytest.fixture
def small() -> Results:
    """5 learning rates x 4 decays, all four phases, and the norms of their seven parameters."""
    return from_letters(small_grid(), FOUR, snapshots=400, observed=20)


@pytest.fixture(scope="session")
def published():
    """The published 21 x 21 diagram of toy regression."""
    tables = load_reference(PUBLISHED / "toy_phase_diagrams.json")
    (table,) = (
        t for t in tables if t.experiment.loss == "mse" and t.experiment.model.activation == "tanh"
    )
    letters = np.array(list("CGMF"))[table.phase].reshape(21, 21)
    return from_letters(preset("addition-regression"), ["".join(row) for row in letters])
