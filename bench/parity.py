"""Sparse parity: the plain loop of torch against `native`, run for run.

    python bench/parity.py [--runs=10] [--threads=2] [--repetitions=3] [--out=...]

The plain loop is what a user would write for one run: a module, ``torch.optim.SGD``, losses and
accuracies of both whole sets and the spectral norm of the first layer after every epoch, on one
thread. ``native`` trains all runs of the preset and measures the same. Checks that both compute the
same first; says what training, evaluation and the norm take; ends with one JSON line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import grokfast as gf
from grokfast.bench import describe
from grokfast.bucket import Bucket
from grokfast.bucketing import make_buckets
from grokfast.cli import script
from grokfast.engines import make_engine
from grokfast.hardware import cores
from grokfast.observing import Observer
from grokfast.state import State

CPU = torch.device("cpu")
#: Epochs over which losses must agree: later on rounding has grown.
CHECKED = 20
TOLERANCE = 1e-4


def runs_of(runs: int, **changes: object) -> Bucket:
    """So many runs of the published setting, the spectral norm recorded after every epoch."""
    grid = gf.preset("parity-baseline")
    seeds = {"task.seed": list(range(runs)), "record.weights": False}
    (epoch,) = {b.steps_per_epoch for b in make_buckets([grid.experiment], [0])}
    grid = grid.grid(**{**seeds, "record.observables": (f"spectral_norm:{epoch}",), **changes})
    (bucket,) = make_buckets(grid.cells, range(grid.size))
    return bucket


def plain_loop(bucket: Bucket, m: int, evaluate: bool = True, norm: bool = True) -> Tensor:
    """Trains run m; the training loss after every epoch, [epochs]."""
    d, cell = int(bucket.data_index[m]), bucket.cell
    x, x_val = bucket.x_train[d], bucket.x_val[d]
    assert bucket.targets is not None and bucket.orders is not None
    y, y_val = bucket.targets[d, bucket.y_train[d], 0], bucket.targets[d, bucket.y_val[d], 0]
    inputs, width = x.shape[1], bucket.shapes[0][0]
    net = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 1, bias=False))
    with torch.no_grad():
        for p, initial in zip(
            net.parameters(), bucket.init[int(bucket.init_index[m])], strict=True
        ):
            p.copy_(initial)
    o = cell.optimizer
    optimizer = torch.optim.SGD(net.parameters(), lr=o.lr, weight_decay=o.weight_decay)
    losses = []
    epochs = cell.steps // bucket.steps_per_epoch
    orders = bucket.orders.order(0, epochs)[int(bucket.order_index[m])]
    for epoch in range(epochs):
        for rows in orders[epoch].split(bucket.batch_size):
            loss = torch.relu(1 - y[rows] * net(x[rows])[:, 0]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not evaluate:
            continue
        with torch.no_grad():
            found = []
            for inputs_of, sign in ((x, y), (x_val, y_val)):
                margin = sign * net(inputs_of)[:, 0]
                found += [float(torch.relu(1 - margin).mean()), float((margin > 0).float().mean())]
            if norm:
                found.append(float(torch.linalg.matrix_norm(net[0].weight, 2)))
            losses.append(found[0])
    return torch.tensor(losses)


def native(bucket: Bucket, threads: int) -> State:
    """Trains all runs, as the trainer would."""
    engine = make_engine("native", "cpu", threads)
    state, observer = State.initial(bucket), Observer(bucket, engine.measures(bucket))
    observer.prepare(state)
    engine.advance(bucket, state, torch.arange(bucket.num_cells), bucket.cell.steps)
    return state


def check(bucket: Bucket, threads: int) -> None:
    """Raises SystemExit where the two do not compute the same."""
    own = native(bucket, threads).train_loss
    own = own[:, -(bucket.cell.steps // bucket.steps_per_epoch) :]  # without the initial state
    for m in range(2):
        error = float((plain_loop(bucket, m) - own[m])[:CHECKED].abs().max())
        if not error <= TOLERANCE:
            sys.exit(f"run {m}: training losses differ by {error:.1e} > {TOLERANCE:.0e}")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(
    runs: int = 10, threads: int | None = None, repetitions: int = 3, out: str | None = None
) -> None:
    """Measures and prints.

    Args:
        runs: that native trains at once.
        threads: of native; all cores where not given.
        repetitions: of every contender, in turn.
        out: a file of raw rows to append to.
    """
    torch.set_num_threads(1)
    threads = threads or cores()
    whole = runs_of(runs)
    no_norm = runs_of(runs, **{"record.observables": ()})
    training = runs_of(runs, **{"record.observables": (), "evaluation.schedule": "end"})
    check(whole, threads)
    contenders: dict[str, Callable[[], object]] = {
        "plain": lambda: plain_loop(whole, 0),
        "plain, no norm": lambda: plain_loop(whole, 0, norm=False),
        "plain, training alone": lambda: plain_loop(whole, 0, evaluate=False),
        "native": lambda: native(whole, threads),
        "native, no norm": lambda: native(no_norm, threads),
        "native, training alone": lambda: native(training, threads),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, work in contenders.items():
            times[name].append(seconds(work))
    row = summary(whole, runs, threads, times)
    if out:
        with Path(out).open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(json.dumps({k: row[k] for k in ("seconds_a_run", "throughput", "of_peak")}))


def summary(
    bucket: Bucket, runs: int, threads: int, times: dict[str, list[float]]
) -> dict[str, Any]:
    """Prints medians with their spread and parts; the raw row."""
    from grokfast import _native

    peak = _native.peak() * min(threads, cores())
    a_run = {
        name: [t / (runs if name.startswith("native") else 1) for t in own]
        for name, own in times.items()
    }
    middle = {name: statistics.median(own) for name, own in a_run.items()}
    for name, own in a_run.items():
        low, high = 1e3 * min(own), 1e3 * max(own)
        print(f"{name:24}{1e3 * middle[name]:9.1f} ms a run ({low:.1f} to {high:.1f})")
    for who in ("plain", "native"):
        alone, evaluated = middle[f"{who}, training alone"], middle[f"{who}, no norm"]
        parts = {
            "training": alone,
            "evaluation": evaluated - alone,
            "norm": middle[who] - evaluated,
        }
        print(f"{who}: " + ", ".join(f"{part} {1e3 * t:.1f}" for part, t in parts.items()) + " ms")
    weights = bucket.shapes[0][0] * bucket.shapes[0][1]
    epochs = bucket.cell.steps // bucket.steps_per_epoch
    samples = 2 * bucket.num_train, bucket.num_train + bucket.num_val  # forward and update; forward
    of_peak = {
        "training": 2e-9 * epochs * weights * samples[0] / middle["native, training alone"] / peak,
        "no norm": 2e-9 * epochs * weights * sum(samples) / middle["native, no norm"] / peak,
    }
    ratio = middle["plain"] / middle["native"]
    print(f"native on {threads} threads: {ratio:.1f} times the throughput of the plain loop on one")
    return {
        "task": "parity-baseline",
        "runs": runs,
        "threads": threads,
        "seconds": times,
        "seconds_a_run": middle,
        "throughput": ratio,
        "of_peak": of_peak,
        "peak_gflops": peak,
        "machine": describe(CPU),
    }


if __name__ == "__main__":
    sys.exit(script(main))
