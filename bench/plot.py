"""Throughput against models, from the raw rows: ``python bench/plot.py [--device=cuda]``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rows import read_rows

from grokfast.cli import script

RESULTS = Path(__file__).parent / "results"


def work(row: dict) -> str:
    """What a row's contender did, in words: rows are comparable where it is the same."""
    points = row.get("evaluation_points", 0)  # older rows have none
    return row["task"] + (f", {points} evaluations" if points else "")


def latest(rows: list[dict]) -> dict[tuple[str, str, int], dict]:
    """The last measurement of all work, contenders and numbers of models."""
    return {(work(r), r["contender"], r["models"]): r for r in rows if not r["skipped"]}


def main(device: str = "cpu", rows: str | None = None, out: str | None = None) -> None:
    """Draws model-steps a second, median with its spread, and the floor.

    Args:
        device: cpu or cuda: which file of rows.
        rows: another file of rows, or an archive of bench/gpu.py.
        out: the picture; bench/results/DEVICE.png where not given.
    """
    last = latest(read_rows(Path(rows) if rows else RESULTS / f"{device}.jsonl"))
    tasks = list(dict.fromkeys(task for task, _, _ in last))
    names = list(dict.fromkeys(name for _, name, _ in last))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4 * len(tasks) + 2, 4), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        own = [r for (t, _, _), r in last.items() if t == task]
        for k, name in enumerate(names):
            mine = sorted((r for r in own if r["contender"] == name), key=lambda r: r["models"])
            median = [1e6 / r["median_us"] for r in mine]
            spread = [
                [m - 1e6 / max(r["times_us"]) for m, r in zip(median, mine, strict=True)],
                [1e6 / min(r["times_us"]) - m for m, r in zip(median, mine, strict=True)],
            ]
            look = {"color": f"C{k}", "marker": "osv^Dpx*"[k % 8], "label": name}
            axis.errorbar([r["models"] for r in mine], median, spread, **look)
        for precision, floor in {r["precision"]: r["floor_us"] for r in own}.items():
            style = {"ieee": ":", "tf32x3": "-.", "tf32": "--"}[precision]
            bound = "bound" + ("" if precision == "ieee" else f", {precision}")
            axis.axhline(1e6 / floor, color="grey", linestyle=style, label=bound)
        axis.set(xscale="log", yscale="log", title=task, xlabel="models")
        ticks = sorted({r["models"] for r in own})
        axis.set_xticks(ticks, [str(n) for n in ticks])
        axis.xaxis.minorticks_off()
    axes[0][0].set_ylabel("model-steps a second")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(out or RESULTS / f"{device}.png", dpi=120)


if __name__ == "__main__":
    sys.exit(script(main))
