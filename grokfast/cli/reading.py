"""Commands that read results files: plot, info, agree, export, merge. None of them needs torch,
but for figures that train a cell again or have epochs of minibatches along x."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grokfast.cli import overrides, show
from grokfast.cli.signatures import closest
from grokfast.errors import UsageError, counted
from grokfast.fields import short_name
from grokfast.results import Results
from grokfast.storage.files import check_file, user_path, writable


def plot(
    file: str,
    kind: str | None,
    *,
    cell: str | None,
    where: str | None,
    rule: str | None,
    budget: str | None,
    over: str | None,
    outcome: str | None,
    out: str | None,
    x: str | None,
    y: str | None,
    epochs: str | None,
    size: str | None,
    dpi: str | None,
    **options: Any,
) -> None:
    """Draws one figure and prints where it is; further options are those of ``figures.draw``."""
    from grokfast.figures import KINDS, draw
    from grokfast.figures.choice import usual_kind
    from grokfast.figures.page import inches_of

    if kind is not None and kind not in KINDS:
        close = closest(kind, KINDS)
        raise UsageError(
            f"--kind={kind!r} is not one of {', '.join(KINDS)}",
            hint=f"did you mean {close}?" if close else None,
        )
    _check(file)
    replicates = [] if over is None else list(filter(None, map(_name, over.split(","))))
    slice_, read = overrides.parse_where(where), overrides.parse_rule(rule)
    cells = None if cell == "all" else overrides.parse_cells(cell)
    steps = overrides.parse_count("budget", budget, example=30000)
    at = overrides.parse_epochs(epochs)
    dots = overrides.parse_count("dpi", dpi, example=300, most=10_000)
    if size is not None:
        inches_of(size)
    if out is not None:
        _check_figure(user_path(out))
    results = _seen(load(file), slice_, read)
    check_cells(cells, results)
    if kind is None:
        kind = usual_kind(results, replicates)
    named = [outcome] if outcome and re.fullmatch(r"[\w.]+", outcome) else []
    named += [re.sub(r"[^\w.-]+", "-", text) for text in (where, rule) if text is not None]
    suffix = ".".join(["", kind, *named, *(f"over-{name}" for name in replicates), "png"])
    path = beside(user_path(file), suffix) if out is None else user_path(out)
    _check_figure(path)

    for written in draw(
        results,
        kind,
        cells="all" if cell == "all" else cells,
        out=path,
        budget=steps,
        over=replicates,
        x=None if x is None else _name(x),
        y=None if y is None else _name(y),
        outcome=outcome,
        epochs=at,
        size=size,
        dpi=dots,
        **options,
    ):
        print(written)


def _check_figure(path: Path) -> None:
    """Raises UsageError where no figure can be written."""
    from grokfast.figures import FORMATS

    if path.suffix.removeprefix(".").lower() not in FORMATS:
        raise UsageError(
            f"cannot tell the format of {path}",
            hint="end its name in " + ", ".join(f".{f}" for f in FORMATS),
        )
    writable(path, "--out=")


def _seen(
    results: Results,
    where: Mapping[str, Any] | None,
    rule: tuple[str | None, dict[str, str]] | None,
) -> Results:
    """A slice of the results, or with phases by another rule, as ``--where`` and ``--rule`` say."""
    if where is not None:
        check_cells([where], results, "where")
        results = results.where(**where)
    return results if rule is None else results.reread(rule[0], **rule[1])


def info(file: str, json: bool) -> None:
    """Prints what the file holds."""
    show.info(file, load(file), json)


def agree(file: str, reference: str | None, json: bool) -> None:
    """Prints the agreement with every table of the reference that the file has cells of."""
    from grokfast.agree import agree as compare

    show.agreement(compare(load(file), reference), json)


def export(file: str, out: str, long: bool, overwrite: bool) -> None:
    """Writes the table and prints where it is, or the table itself."""
    from grokfast.export import STDOUT, check_target
    from grokfast.export import export as write

    check_target(out, long=long, overwrite=overwrite, stdout=True)
    path, source = user_path(out), user_path(file)
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"--out={out} is the results file itself")
    written = write(load(file), out, long=long, overwrite=overwrite)
    if out != STDOUT:
        print(written)


def merge(files: list[str], out: str, overwrite: bool) -> None:
    """Joins the shards and says what to type next."""
    from grokfast.merge import merge as join

    merged = join(files, out, overwrite=overwrite)
    counts = ", ".join(f"{name} {n}" for name, n in merged.counts().items())
    cells, shards = counted(len(merged), "cell"), counted(len(files), "file")
    print(f"{cells} of {shards}, in {out}: {counts}")
    commands = [*plots(shlex.quote(out), merged), f"info {shlex.quote(out)}"]
    print("next:", "\n      ".join(f"grokfast {c}" for c in commands))


def plots(file: str, results: Results) -> list[str]:
    """The command that draws these results: a diagram, of a single cell its curves."""
    if any(len(values) > 1 for values in results.axes.values()):
        return [f"plot {file}"]
    return [f"plot {file} --kind=curves"] if "train_acc" in results else []


def beside(path: Path, suffix: str) -> Path:
    """``r.h5`` -> ``r<suffix>``; of another name nothing is cut: ``lr0.5`` has no suffix."""
    known = path.suffix in (".h5", ".hdf5", ".nc")
    return path.with_name((path.stem if known else path.name) + suffix)


def _name(axis: str) -> str:
    """As files have it: ``model-seed`` is ``model_seed``."""
    return short_name(axis.strip().replace("-", "_"))


def check_cells(
    cells: Sequence[Mapping[str, Any]] | None, results: Results, option: str = "cell"
) -> None:
    """Raises UsageError, with a suggestion, where an option such as ``--cell`` names what is no
    axis."""
    for axis in (axis for chosen in cells or () for axis in chosen):
        if axis not in results.hyperparameters:
            close = closest(axis, results.hyperparameters)
            known = f"axes are {', '.join(results.axes)}"
            hint = f"did you mean {close}?" if close else known
            raise UsageError(f"--{option}: unknown axis {axis!r}", hint=hint)


def load(file: str) -> Results:
    """The results of a file; of a missing one with a suggestion."""
    _check(file)
    return Results.load(file)


def _check(file: str) -> None:
    """Raises UsageError, with a suggestion, where there is no such file."""
    path = user_path(file)
    if path.is_dir():
        raise UsageError(f"{file} is a folder; name a results file")
    if not path.exists() and not path.is_symlink() and path.parent.is_dir():
        here = [p.name for p in path.parent.glob("*.h5")]
        close = closest(path.name, here)
        hint = f"did you mean {path.parent / close}?" if close else None
        raise UsageError(f"no such file: {file}", hint=hint)
    check_file(path)
