"""Writes bench/RESULTS.md from bench/results: ``make results``, or ``python bench/report.py``.

Every number on that page is read from committed results files and raw rows here, with the
functions that ``grokfast agree`` and ``grokfast info`` use; the sentences around them are below.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import shabalin
from committed import RESULTS, agreements, cost, load, phases, pictures, share, table, what_ran
from rows import read_rows

from grokfast.agree import MeasuredAgreement
from grokfast.cli import script
from grokfast.engines.support import markdown

PAGE = RESULTS.with_name("RESULTS.md")

_HEAD = """\
# Results

Written by `make results` (`python bench/report.py`) from the files in `bench/results`: do not edit.
What was predicted, what was tried and what did not help is in [LOG.md](LOG.md).

- [Agreement with published results](#agreement-with-published-results)
- [Shabalin et al. 2023](#shabalin-sadrtdinov-shabalin-2023-figure-by-figure), figure by figure
- [Modular arithmetic, parity, transformers](#modular-arithmetic-sparse-parity-transformers)
- [Speed](#speed)
- [More than one machine](#more-than-one-machine)
- [What each engine can train](#what-each-engine-can-train)
- [Hostile worlds](#hostile-worlds)
"""

_AGREEMENT = """\
## Agreement with published results

`grokfast agree FILE` compares a results file with the published tables that come with grokfast
(`grokfast/agree/published`, with their sources), `grokfast agree FILE OTHER` with another results
file or a table of your own. A cell is interior where its up to four neighbours in the published
table share its phase, else it lies on a border. Steps of a run that is shorter than the published
one are compared as of its budget. The published figures give phases alone; the exact T_train and
T_val of 5 x 5 cells of the toy tasks come from the authors' own code (torch 2.13, CPU, float32).
"""

_MEASURED = """\
Losses, accuracies and first steps that publications print or draw, number by number
(`grokfast agree FILE` shows each beside ours, with its tolerance):
"""

_OTHERS = """\
## Modular arithmetic, sparse parity, transformers

Sources: Gromov 2023 (arXiv 2301.02679); Doshi, Das, He and Gromov 2024 (arXiv 2310.13061); the
(n, k)-parity blog of 2023, after Merrill, Tsilivis and Shukla 2023 (arXiv 2303.11873); Power et al.
2022 (arXiv 2201.02177) and its reproduction, github.com/BendeguzToth/grokking.
"""

_SPEED = """\
## Speed

`make bench` checks every contender against float64 before it times it, in turn, in one run;
medians. The loss, the validation pass, T_train and T_val are included, after every epoch where
nothing else is said (full batch: every step). The floor is the products' multiply-adds at the peak
that was measured in the same run. MNIST is `python bench/run.py --tasks=mnist-original
--models=8,66`, modular arithmetic `--tasks=modular-addition --models=2 --evaluation-points=3`,
transformers `--tasks=power-division --models=1,4 --every=1000000,1`; sparse parity has a program of
its own, `python bench/parity.py`. The `triton` engine has not run on a GPU: nothing of it is timed.
"""

_MACHINES = """\
## More than one machine

`python bench/cluster.py --nodes=N` trains toy classification with `--launcher=ray` on N nodes of
Ray on one machine of two cores: there is no third core to win. A task is a block of cells; its
overhead is what it takes beside training, the tail the time in which the first worker has nothing
left to do.
"""

_ENGINES = """\
## What each engine can train

What an engine does not know it refuses by name, and `auto` takes the next. `native` and `triton`
know linear layers with one activation between, `compiled` chains of layers and the transformer,
`reference` any module. `grokfast doctor` prints the same table.
"""

_HOSTILE = """\
## Hostile worlds

`make campaign-damage`, `-kills`, `-faults`, `-fuzz` and `-signals` damage files, kill runs at
random moments, fail system calls and give malformed input, from a seed. SECURITY.md says what is
promised.
"""

#: Families of experiments -> files of theirs with published tables of phases or steps.
_TABLES: dict[str, tuple[str, ...]] = {
    "Toy addition, phase diagrams": (
        "addition-classification",
        "addition-regression",
        "addition-classification.relu",
        "addition-regression.relu",
        "addition-classification.leaky_relu",
        "addition-regression.leaky_relu",
    ),
    "Toy addition, T_train and T_val of the authors' code": (
        "addition-classification.5x5.reference",
        "addition-regression.5x5.reference",
        "addition-classification.5x5.compiled",
        "addition-regression.5x5.compiled",
    ),
    "MNIST, T_train and T_val": (
        "mnist-original",
        "mnist-original.2500-steps.float32",
        "mnist-original.2500-steps.float64",
    ),
}
#: Files with published numbers, and others of the same families -> what makes them.
_ROWS = ("modular-corruption", "parity-baseline", "parity-h1", "parity-h2", "power-division")
_FAMILIES: dict[str, str] = {
    "modular-corruption": "grokfast run modular-corruption",
    "modular-weight-decay.9x9x2": "grokfast run modular-weight-decay --weight-decay=0,15 "
    "--set=task.fraction=linspace:0.1:0.9:9,task.corruption=linspace:0.1:0.9:9",
    "parity-baseline": "grokfast run parity-baseline --data-seed=range:0:10",
    "parity-h1": "grokfast run parity-h1",
    "parity-h2": "grokfast run parity-h2",
    "parity-k3": "grokfast run parity-k3",
    "parity-noise": "grokfast run parity-noise",
    "parity-size": "grokfast run parity-size",
    "power-division": "grokfast run power-division",
    "power-s5": "grokfast run power-s5",
}


def _phases() -> str:
    blocks = []
    for title, names in _TABLES.items():
        rows = []
        for name in names:
            results = load(name)
            for found in agreements(name):
                if results is None or isinstance(found, MeasuredAgreement):
                    continue
                exact = next((n for n in found.steps if n.startswith("both equal, where")), None)
                near = next((n for n in found.steps if n.startswith("both within")), None)
                steps = [(n, found.steps[n]) for n in (near, exact) if n]
                rows.append(
                    [
                        f"`{name}.h5`",
                        f"`{results.provenance.get('engine')}`, {results.grid.experiment.dtype}",
                        f"{found.cells} of {found.published}",
                        *(
                            share(part.agree, part.of) if (part := found.phases.get(kind)) else ""
                            for kind in ("overall", "interior", "border")
                        ),
                        "; ".join(f"{n}: {share(s.agree, s.of)}" for n, s in steps if s.of),
                    ]
                )
        head = ("file", "engine", "cells", "same phase", "interior", "border", "steps")
        blocks.append(f"{title}:\n\n{table(head, rows)}")
    return "\n".join(blocks)


def _measured() -> str:
    rows = []
    for name in _ROWS:
        for found in agreements(name):
            if isinstance(found, MeasuredAgreement):
                verdicts = ", ".join(f"{n} {verdict}" for verdict, n in found.verdicts.items())
                rows.append([f"`{name}.h5`", found.table, found.cells, len(found.rows), verdicts])
    return table(("file", "published", "runs", "numbers", "verdicts"), rows)


def _costs() -> str:
    names = [name for names in _TABLES.values() for name in names]
    rows = [(f"`{name}.h5`", len(r), cost(r)) for name in names if (r := load(name)) is not None]
    head = ("file", "cells", "engine, machine, date, time")
    return f"What they took, on cores that other work shared:\n\n{table(head, rows)}"


def _families() -> str:
    lines = []
    for name, command in _FAMILIES.items():
        if (results := load(name)) is None:
            continue
        says = [*what_ran(results), phases(results)]
        for crossing in results.crossings:
            steps = results.moments(crossing)
            if len(results) <= 5 and np.isfinite(steps).any():
                says.append(f"{crossing}: " + ", ".join(f"{s:,.0f}" for s in steps) + ".")
        lines += [f"`{name}.h5`, from `{command}`:", "", *(f"- {line}" for line in says), ""]
        lines += [*drawn, ""] if (drawn := pictures(name)) else []
    return "\n".join(lines)


#: Contenders in the order of the tables: plain ways, then engines.
_ORDER = (
    "eager loop",
    "a process a core",
    "one-hot",
    "gathers",
    "nn.",
    "stacked",
    "jax",
    "compiled",
)


def _speed_tables() -> str:
    blocks = []
    for file in ("cpu", "modular", "transformer"):
        last: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
        for row in read_rows(RESULTS / f"{file}.jsonl"):
            if row["skipped"] is None:
                last.setdefault((_work(row), row["models"]), {})[row["contender"]] = row
        blocks.append(_speed(file, last))
    return "\n".join(blocks)


def _work(row: dict[str, Any]) -> str:
    """What was done, in words: rows are comparable where it is the same."""
    said = [row["task"]]
    if row.get("batch"):
        said.append(f"batches of {row['batch']}")
    if (every := row.get("every", 0)) > 1000 or row.get("evaluation_points"):
        said.append("next to no evaluation")
    elif every:
        said.append("evaluation at every step")
    return ", ".join(said)


def _speed(file: str, last: dict[tuple[str, int], dict[str, dict[str, Any]]]) -> str:
    def place(name: str) -> tuple[int, str]:
        found = [k for k, start in enumerate(_ORDER) if name.startswith(start)]
        return (found[0] if found else len(_ORDER), name)

    names = sorted({name for row in last.values() for name in row}, key=place)
    rows = []
    for (work, models), row in last.items():
        known = {name: row[name]["median_us"] for name in names if name in row}
        plain = [us for name, us in known.items() if name not in _OURS]
        ours = {name: us for name, us in known.items() if name in _OURS}
        if not ours or not plain:
            continue
        best = min(ours, key=ours.__getitem__)
        shown = {name: f"{us / 1e3:#.3g}".rstrip(".") for name, us in known.items()}
        shown[best] = f"**{shown[best]}**"
        floor = row[best]["floor_us"]
        rows.append(
            [
                *(work, models, *(shown.get(name, "-") for name in names), f"{floor / 1e3:#.3g}"),
                *(f"{min(plain) / ours[best]:.1f}", f"{floor / ours[best]:.0%}"),
            ]
        )
    newest = max((r for row in last.values() for r in row.values()), key=_time)
    machine, peak = newest["machine"], newest["ceilings"]["gflops"]
    return (
        f"`results/{file}.jsonl`, {machine['cores']} cores of an {machine['cpu']} (multiply-add "
        f"peak {peak:.0f} GFLOP/s), torch {machine['torch']}, {_time(newest)[:10]}; ms a "
        "model-step:\n\n"
        + table(["work", "models", *names, "floor", "times the best plain", "of the peak"], rows)
    )


_OURS = ("reference", "compiled", "native", "triton")


def _time(row: dict[str, Any]) -> str:
    return row["machine"]["time"]


def _clusters() -> str:
    rows = [
        [
            *(row["nodes"], f"{row['cells']} x {row['budget']:,}", row["tasks"]),
            *(f"{row['trains']:.1%}", f"{row['a_task_s']:.2f} s"),
            *(f"{row[part]:.1%}" for part in ("driver", "ray", "tail")),
            f"{row['load']:.1f}",
        ]
        for row in read_rows(RESULTS / "ray.jsonl")
    ]
    head = ("nodes", "cells x steps", "tasks", "workers train", "overhead a task")
    return table((*head, "driver, of a core", "Ray, of a core", "tail", "load beside"), rows)


def _campaigns() -> str:
    rows = []
    for row in read_rows(RESULTS / "campaigns.jsonl"):
        match row["campaign"]:
            case "damage":
                for what, n in row["counts"].items():
                    told = f"{n['crashes']} crashes, {n['hangs']} hangs, {n['wrong']} wrong values"
                    rows.append([f"damaged copies of a {what}", n["files"], told])
            case "kills":
                told = f"{row['unreadable']} unreadable files, {row['leftovers']} leftovers, "
                rows.append(
                    ["kills", row["kills"], f"{told}{row['differing']} differing histories"]
                )
            case "faults":
                told = f"{row['wrong']} wrong, at calls of {len(row['ends'])} writers"
                rows.append(["system calls that fail", row["faults"], told])
            case "fuzz":
                told = f"{row['wrong']} wrong; exits {', '.join(row['codes'])}"
                rows.append(["malformed inputs", row["inputs"], told])
            case other:
                rows.append([other, "", json.dumps(row.get("counts", {}))])
    return table(("what", "number", "outcome"), rows)


def page() -> str:
    """The whole page."""
    parts = [
        _HEAD,
        _AGREEMENT,
        _phases(),
        _MEASURED,
        _measured(),
        _costs(),
        shabalin.page(),
        _OTHERS,
        _families(),
        _SPEED,
        _speed_tables(),
        "![throughput against number of models](results/cpu.png)\n",
        _MACHINES,
        _clusters(),
        _ENGINES,
        markdown(),
        _HOSTILE,
        _campaigns(),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def main(out: str | None = None) -> None:
    """Writes the page.

    Args:
        out: where to; bench/RESULTS.md where not given.
    """
    Path(out or PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(script(main))
