"""``grokfast run``: from checked text to a trained grid, or to a plan of it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokfast.cli import mnist, overrides, show
from grokfast.cli.arrays import shard_of_task
from grokfast.errors import GrokfastError, UsageError, counted
from grokfast.fields import short_name
from grokfast.grid import Grid
from grokfast.hardware import MAX_THREADS
from grokfast.storage.files import results_path

if TYPE_CHECKING:  # it imports torch
    from grokfast.planning import Plan
    from grokfast.results import Results

#: In --out, of a shard: which one it is.
SHARD = "{shard}"


@dataclass(frozen=True)
class Job:
    """A run with everything checked that can be checked without torch."""

    grid: Grid
    out: Path
    engine: str
    device: str
    threads: int | None
    shard: tuple[int, int] | None
    overwrite: bool
    checkpoint: bool
    save_every: float | None
    launcher: str
    address: str | None

    @property
    def options(self) -> dict[str, Any]:
        """What trainer's ``run`` and ``plan`` both take."""
        return {
            "out": self.out,
            "overwrite": self.overwrite,
            "engine": self.engine,
            "device": self.device,
            "threads": self.threads,
            "shard": self.shard,
        }


def parse(
    preset: str,
    fields: dict[str, str | None],
    *,
    sets: str | None,
    setting: str | None,
    record: str | None,
    out: str | None,
    engine: str,
    device: str,
    threads: str | None,
    shard: str | None,
    data_dir: str | None,
    overwrite: bool,
    checkpoint: bool,
    save_every: str | None,
    launcher: str,
    address: str | None,
) -> Job:
    """Checks all options of a run.

    Raises:
        UsageError: the first that is wrong.
    """
    grid = overrides.build_grid(preset, fields, sets, record, setting)
    part = _shard(shard)
    if part is not None:
        grid.shard(*part)
    path = results_path(_named(preset, out, part), "--out=")
    overrides.check_launcher(launcher, address, shard, checkpoint)
    if data_dir is not None:
        mnist.look_in(data_dir, grid.experiment.task.name, preset)
    job = Job(
        grid=grid,
        out=path,
        engine=overrides.parse_engine(engine),
        device=overrides.parse_device(device),
        threads=overrides.parse_count("threads", threads, example=2, most=MAX_THREADS),
        shard=part,
        overwrite=overwrite,
        checkpoint=checkpoint,
        save_every=overrides.parse_seconds("save-every", save_every),
        launcher=launcher,
        address=address,
    )
    overrides.check_cells(grid)  # last: large grids take a moment
    return job


def _shard(text: str | None) -> tuple[int, int] | None:
    """The shard asked for; of a job array with a line on stderr that says which."""
    if text != "auto":
        return overrides.parse_shard(text)
    index, count, told = shard_of_task(os.environ)
    print(f"shard {index}/{count}: {told}", file=sys.stderr)
    return index, count


def _named(preset: str, out: str | None, part: tuple[int, int] | None) -> str:
    """The results file asked for; ``{shard}`` stands for i-of-n."""
    if part is not None:
        own = "{}-of-{}".format(*part)
        return (out or f"{preset}.shard-{SHARD}.h5").replace(SHARD, own)
    if out is not None and SHARD in out:
        raise UsageError(
            f"--out={out} is for shards, and there is no --shard", hint="give --shard=i/n or auto"
        )
    return out or f"{preset}.h5"


def run(job: Job) -> None:
    """Trains, and says what came out and what to type next."""
    from grokfast.cli.reading import beside, plots

    begun = time.monotonic()
    results = _trained(job)
    diverged = int((results["diverged_at"] >= 0).sum())
    counts = [f"{name} {n}" for name, n in results.counts().items()]
    counts += [f"diverged {diverged}"] if diverged else []
    print(f"{counted(len(results), 'cell')}: {', '.join(counts)}")
    print(f"{_duration(time.monotonic() - begun)}, in {job.out}")
    file = shlex.quote(str(job.out))
    if job.shard is None:
        table = shlex.quote(str(beside(job.out, ".csv")))
        commands = [*plots(file, results), f"info {file}", f"export {file} --out={table}"]
    else:
        commands = [f"info {file}", f"merge {_all_shards(job)}"]
    print("next:", "\n      ".join(f"grokfast {c}" for c in commands))


def _trained(job: Job) -> Results:
    if job.launcher == "ray":
        from grokfast import cluster

        options = {name: value for name, value in job.options.items() if name != "shard"}
        return cluster.run(job.grid, address=job.address, save_every=job.save_every, **options)
    from grokfast.trainer import run as train

    return train(job.grid, checkpoint=job.checkpoint, save_every=job.save_every, **job.options)


def _all_shards(job: Job) -> str:
    """Arguments of ``merge``: of the default names, or of those like this one."""
    assert job.shard is not None
    mark = "{}-of-{}".format(*job.shard)
    before, found, after = job.out.name.rpartition(mark)
    if not found:
        return f"SHARD-1 ... SHARD-{job.shard[1]} --out=FILE"
    stem = before.removesuffix("shard-").rstrip(".-_ ") or "whole"
    whole = job.out.with_name(stem + after)
    start = str(job.out).removesuffix(mark + after)
    shards = f"{shlex.quote(start)}*{shlex.quote(f'-of-{job.shard[1]}{after}')}"
    return f"{shards} --out={shlex.quote(str(whole))}"


def dry_run(job: Job) -> None:
    """Prints what a run would take, and trains nothing but a few steps that are thrown away."""
    grid = job.grid
    shape = " x ".join(f"{short_name(p)} {len(v)}" for p, v in grid.axes.items()) or "no axes"
    print(f"preset   {grid.name}")
    print(f"cells    {grid.size} = {shape}")
    for path, values in grid.axes.items():
        print(f"axis     {short_name(path)}: {_listed(values)}")
        for text in grid.described(path) if path in grid.settings else ():
            print(f"           {text}")
    show.experiment(grid)

    if grid.experiment.task.name == "mnist":
        from grokfast.data import load_mnist

        load_mnist(download=False)

    from grokfast.planning import plan

    refused = None
    try:
        p = plan(grid, **job.options)
    except GrokfastError as error:
        refused = error  # where it is the file's fault; else this raises it again
        p = plan(grid, **job.options | {"out": None})
    if job.shard is not None:
        print(f"shard    {job.shard[0]}/{job.shard[1]}: {p.cells} of the {grid.size} cells")
    print(f"engine   {p.engine}")
    print(f"buckets  {p.buckets} (cells of equal shapes and operations train together)")
    print(f"memory   {_bytes(p.memory_bytes)}")
    print(f"disk     {_bytes(p.disk_bytes)}")
    if p.left:
        print(f"rate     {p.rate:,.0f} model-steps/s, measured over a few real steps")
        early = (
            "" if grid.experiment.stop == "never" else " at most; cells that stop early save time"
        )
        print(f"time     {_duration(p.seconds)}{early}")
    if refused is not None:
        print(f"out      {job.out} (exists: the run would end before any work)")
        raise refused
    print(f"out      {job.out}{_what_is_left(job, p)}")


def _what_is_left(job: Job, p: Plan) -> str:
    """How a run would stand to the file of this name."""
    if not job.out.exists():
        return ""
    if job.overwrite:
        return " (exists: the run would overwrite it)"
    if not p.left:
        return " (exists and is complete: nothing would be done)"
    return f" (exists: the run would continue it; {p.left:,} of {p.steps:,} model-steps are left)"


def _listed(values: tuple[Any, ...]) -> str:
    texts = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
    if len(texts) <= 8:
        return ", ".join(texts)
    return f"{', '.join(texts[:3])}, ..., {texts[-1]} ({len(texts)} values)"


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 100 else f"{hours / 24:.1f} days"
