"""The part of the page about Shabalin, Sadrtdinov, Shabalin 2023: their figures and ours.

What a figure shows is known from the project's specifications of the experiments; every number is
read from our files, and of a file that is not there the page says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from committed import agreements, counts, load, phases, pictures, share, table, what_ran
from numpy.typing import NDArray

from grokfast.agree import Agreement
from grokfast.fields import short_name
from grokfast.phases import UNKNOWN
from grokfast.results import Results

_HEAD = """\
## Shabalin, Sadrtdinov, Shabalin 2023, figure by figure

Their reproduction of Liu et al. 2022 (arXiv 2205.10343): toy addition and MNIST. What the authors
say it cost them: about 5 minutes a toy cell on one Xeon core (1e5 steps), 2.5 hours a diagram on
16 cores; 30 minutes an MNIST cell on one V100, about 105 GPU hours for the 210 cells of the
extended grid.
"""

Says = Callable[[str, Results], list[str]]


@dataclass(frozen=True)
class Figure:
    """A published figure, or a pair of them.

    Attributes:
        title: such as "Figures 3 and 4".
        shows: what it shows.
        runs: our files -> the command that makes each, without its ``--out``, and the kinds of
            figures that ``grokfast plot`` draws of it.
        says: what a file says beyond what it says for those kinds.
        notes: what must be known to compare.
    """

    title: str
    shows: str
    runs: dict[str, tuple[str, tuple[str, ...]]]
    says: tuple[Says, ...] = ()
    notes: str = ""


def _agreement(name: str, results: Results) -> list[str]:
    lines = []
    for found in agreements(name):
        if not isinstance(found, Agreement):
            continue
        parts = [f"{kind} {share(s.agree, s.of)}" for kind, s in found.phases.items() if s.of]
        whose = "published" if "interior" in found.phases else "by the authors' code, run again"
        lines.append(f"Same phase as {whose}: {', '.join(parts)}.")
        apart = {
            f"{theirs} there, {ours} here": n
            for theirs, row in found.confusion.items()
            for ours, n in row.items()
            if n and ours != theirs
        }
        if apart:
            most = sorted(apart.items(), key=lambda pair: -pair[1])
            lines.append("What differs: " + "; ".join(f"{n} {what}" for what, n in most) + ".")
        for what, s in found.steps.items():
            if what.endswith("all cells") and s.of:
                lines.append(f"T_train and T_val, {what}: {share(s.agree, s.of)}.")
    return lines


_EARLY = 100_000


def turned(results: Results) -> Counter[tuple[str, str]]:
    """How many cells have one phase after 1e5 steps and another at the end."""
    names = results.rule.phases
    both = zip(results.phases(_EARLY).tolist(), results.phases().tolist(), strict=True)
    return Counter((names[a], names[b]) for a, b in both if a != b and UNKNOWN not in (a, b))


def _later(name: str, results: Results) -> list[str]:
    early, late = results.phases(_EARLY), results.phases()
    lines = [f"After {_EARLY:,} steps: {counts(early, results)}."]
    for (a, b), n in turned(results).most_common():
        names = results.rule.phases
        where = (early == names.index(a)) & (late == names.index(b))
        lines.append(f"{n} cells turn from {a} to {b}: {_where(results, where)}.")
    if not turned(results):
        lines.append("No cell has another phase at the end than then.")
    return lines


def _where(results: Results, where: NDArray[np.bool_]) -> str:
    """Ranges of the axes over some cells."""
    parts = []
    for path in ("optimizer.lr", "optimizer.weight_decay"):
        values = results[short_name(path)][where]
        parts.append(f"{short_name(path)} {values.min():.3g} to {values.max():.3g}")
    return ", ".join(parts)


def _convergence(name: str, results: Results) -> list[str]:
    steps = results["t_train"][results["t_train"] >= 0]
    if not len(steps):
        return ["No cell has memorised."]
    low, middle, high = np.quantile(steps, [0, 0.5, 1])
    return [
        f"Training reaches the threshold in {share(len(steps), len(results))} cells, after "
        f"{low:,.0f} to {high:,.0f} steps, in the median {middle:,.0f}."
    ]


def seeds(results: Results) -> dict[tuple[float, float], list[str]]:
    """Learning rate and decay -> the phases of its replicates."""
    names, found = results.rule.phases, dict[tuple[float, float], list[str]]()
    for lr, decay, phase in zip(
        results["lr"].tolist(), results["weight_decay"].tolist(), results.phases(), strict=True
    ):
        if phase != UNKNOWN:
            found.setdefault((lr, decay), []).append(names[phase])
    return found


def _seeds(name: str, results: Results) -> list[str]:
    data, model = results["data_seed"], results["model_seed"]
    panels = sorted(set(zip(data.tolist(), model.tolist(), strict=True)))
    phase, names = results.phases(), results.rule.phases
    rows = []
    for a, b in panels:
        own = phase[(data == a) & (model == b)]
        rows.append([a, b, *((own == k).sum() for k in range(len(names)))])
    found = [phases for phases in seeds(results).values() if len(phases) == len(panels)]
    alike = sum(len(set(phases)) == 1 for phases in found)
    grok = Counter(phases.count("grokking") for phases in found)
    spread = ", ".join(f"{k} seeds at {n}" for k, n in sorted(grok.items()))
    return [
        f"Of {len(found)} pairs of learning rate and decay with all {len(panels)} seeds, {alike} "
        "have the same phase for all.",
        f"How many seeds grok, at how many pairs: {spread}.",
        "\n" + table(("data seed", "model seed", *names), rows),
    ]


def _curves(name: str, results: Results) -> list[str]:
    lines = []
    for what in ("train_acc", "val_acc"):
        if what in results and np.isfinite(results[what][0]).any():
            curve = results[what][0][np.isfinite(results[what][0])]
            low, high, last = curve.min(), curve.max(), curve[-1]
            points = f"{low:.3f} to {high:.3f} at {len(curve)} recorded steps, at last {last:.3f}"
            lines.append(f"{what}: {points}.")
    return lines or ["No curves were recorded."]


def _embeddings(name: str, results: Results) -> list[str]:
    if "embeddings" not in results:
        return ["No embeddings were recorded."]
    _, snapshots, tokens, _ = results["embeddings"].shape
    return [f"{snapshots} snapshots of {tokens} embeddings of {len(results)} cells."]


#: Kind of figure -> what there is to say with it.
_OF_KIND: dict[str, Says] = {
    "phases": lambda name, results: [phases(results)],
    "convergence": _convergence,
    "curves": _curves,
    "embeddings": _embeddings,
}

_TOY = ("addition-classification", "addition-regression")
_PHASES = ("phases",)

FIGURES = (
    Figure(
        "Figure 1",
        "Phases of toy addition over learning rate and weight decay, classification and "
        "regression: tanh, data seed 42, model seed 102, 1e5 steps.",
        {task: (f"make diagrams DIAGRAMS={task}", _PHASES) for task in _TOY},
        (_agreement,),
        "Nearly all cells that differ lie on borders, where float32 training is chaotic. The "
        "authors' own function, run again, misses the published figure on 1 of 25 cells of each "
        "task, too.",
    ),
    Figure(
        "Figure 2",
        "MNIST on the original grid of 10 x 10 learning rates (of the last layer) and decays.",
        {"mnist-original": ("grokfast run mnist-original", _PHASES)},
        (_agreement,),
        "The authors train in float64, as `mnist-original.2500-steps.float64.h5` does, to their "
        "very steps (table above); in float32 rounding decides which swing of the accuracy passes "
        "the threshold first.",
    ),
    Figure(
        "Figures 3 and 4",
        "Both toy tasks to 3e5 steps: discrete diagrams, and smooth ones with T_val - T_train in "
        "colour where a cell generalised, and T_train where it did not.",
        {
            f"{task}.300000-steps": (f"grokfast run {task} --steps=300000", ("phases", "smooth"))
            for task in _TOY
        },
        (_agreement, _later),
    ),
    Figure(
        "Figures 5 and 6",
        "MNIST on the extended grid of 15 learning rates and 14 decays, with the original range "
        "marked; steps to convergence of training; accuracies of one unstable cell off the grid "
        "(lr 50, decay 1e-7).",
        {
            "mnist-extended.12000-steps": (
                "grokfast run mnist-extended --steps=12000",
                ("phases", "smooth", "convergence"),
            ),
            "mnist-extended.unstable-cell": (
                "grokfast run mnist-extended --lr=50 --weight-decay=1e-7 --steps=100000",
                ("curves",),
            ),
        },
        notes="The published diagrams are those after 1e5 and 1.5e5 steps: a shorter run cannot "
        "know what becomes of slow cells.",
    ),
    Figure(
        "Figures 7 and 8",
        "3 x 3 panels over data seeds 41, 42, 43 and model seeds 101, 102, 103, one figure a task.",
        {
            f"{task}.panels": (
                f"grokfast run {task} --data-seed=41,42,43 --model-seed=101,102,103 "
                f"--lr=1e-05,3.9810717055349695e-05,0.00015848931924611142,0.000630957344480193,"
                f"0.0025118864315095794,0.01 --weight-decay=linspace:0:{end}:6 --record=curves:20",
                _PHASES,
            )
            for task, end in zip(_TOY, (20, 10), strict=True)
        },
        (_agreement, _seeds),
        "Ours have fewer values of both axes. Of the published panels the middle one is known as a "
        "table, that of Figure 1.",
    ),
    Figure(
        "Figures 9 and 10",
        "Phases of toy addition with ReLU and LeakyReLU(0.1), both tasks.",
        {
            f"{task}.{name}": (f"make diagrams ACTIVATION={name} DIAGRAMS={task}", _PHASES)
            for task in _TOY
            for name in ("relu", "leaky_relu")
        },
        (_agreement,),
        "Of regression with ReLU the cells that differ lie between memorization and confusion: the "
        "training accuracy swings just below the threshold there, and one sample at one step "
        "decides.",
    ),
    Figure(
        "Figures 11 and 12",
        "Embeddings of the 10 symbols against steps, of one cell of each phase: the first 2,000 "
        "steps, and the whole run.",
        {
            f"{task}.embeddings": (
                f"grokfast run {task} --lr={lr} --weight-decay={decays} "
                "--record=embeddings:10,curves:60",
                ("embeddings",),
            )
            for task, lr, decays in (
                ("addition-classification", "3.9810717055349695e-05", "3,11,16,20"),
            )
        },
    ),
)


def page() -> str:
    """All sections."""
    summary = []
    for figure in FIGURES:
        there, of = sum(load(name) is not None for name in figure.runs), len(figure.runs)
        ours = {0: "not computed", of: "computed"}.get(there, f"{there} of {of} files")
        summary.append([figure.title, figure.shows, ours])
    sections = [_section(figure) for figure in FIGURES]
    return "\n".join([_HEAD, table(("figure", "shows", "ours"), summary), *sections, _answers()])


def _section(figure: Figure) -> str:
    lines = [f"### {figure.title}", "", figure.shows, *(["", figure.notes] if figure.notes else [])]
    for name, (command, kinds) in figure.runs.items():
        results = load(name)
        if results is None:
            lines += ["", f"`{name}.h5`: not computed (`{command}`)."]
            continue
        says = [_OF_KIND[kind] for kind in kinds if kind in _OF_KIND] + list(figure.says)
        lines += ["", f"`{name}.h5`, from `{command}`:", ""]
        lines += [f"- {line}" for line in what_ran(results)]
        for line in (line for say in says for line in say(name, results)):
            lines.append(line if line.startswith("\n") else f"- {line}")
        drawn = [f"`grokfast plot bench/results/{name}.h5 --kind={kind}`" for kind in kinds]
        lines += [f"- {', '.join(drawn)}", "", *pictures(name)]
    return "\n".join(lines) + "\n"


def _answers() -> str:
    """What the figures are about, answered from our files."""
    rows = [(question, answer()) for question, answer in _QUESTIONS.items()]
    return "### What our data say\n\n" + table(("question", "answer"), rows)


_NOT = "Not computed."


def _four_phases() -> str:
    answers = []
    for task in _TOY:
        if (results := load(task)) is not None:
            missing = [name for name, n in results.counts().items() if not n]
            found = f"without {', '.join(missing)}" if missing else "all four"
            shares = [
                f"{share(a.phases['overall'].agree, a.phases['overall'].of)} as published"
                for a in agreements(task)
                if isinstance(a, Agreement) and "interior" in a.phases
            ]
            answers.append(f"{task}: {', '.join([found, *shares])}")
    return "; ".join(answers) + "." if answers else _NOT


def _mnist() -> str:
    if (results := load("mnist-original")) is None:
        return _NOT
    return f"Of {len(results)} cells of the original grid: {counts(results.phases(), results)}."


def _longer() -> str:
    answers = []
    for task in _TOY:
        if (results := load(f"{task}.300000-steps")) is None:
            continue
        memorised = int((results.phases(_EARLY) == results.rule.phases.index("memorization")).sum())
        n = turned(results)["memorization", "grokking"]
        answers.append(
            f"{task}: {n} of the {memorised} cells that only memorise in {_EARLY:,} steps"
        )
    return "; ".join(answers) + "." if answers else _NOT


def _other_seeds() -> str:
    answers = []
    for task in _TOY:
        if (results := load(f"{task}.panels")) is None:
            continue
        found = seeds(results).values()
        alike = sum(len(set(phases)) == 1 for phases in found)
        some = sum("grokking" in phases for phases in found)
        every = sum(set(phases) == {"grokking"} for phases in found)
        answers.append(
            f"{task}: {share(alike, len(found))} pairs have one phase for all seeds; some seed "
            f"groks in {some}, all in {every}"
        )
    return "; ".join(answers) + "." if answers else _NOT


def _activations() -> str:
    answers = []
    for task in _TOY:
        files = {"tanh": task, "ReLU": f"{task}.relu", "LeakyReLU": f"{task}.leaky_relu"}
        found = {word: r for word, name in files.items() if (r := load(name)) is not None}
        grok = [f"{word} {r.counts()['grokking']} of {len(r)}" for word, r in found.items()]
        answers += [f"{task}: {', '.join(grok)}"] if grok else []
    return "; ".join(answers) + "." if answers else _NOT


_QUESTIONS: dict[str, Callable[[], str]] = {
    "Do all four phases occur in toy addition, and where the figures have them?": _four_phases,
    "Does MNIST grok with large initial values?": _mnist,
    "Does memorization turn into grokking with three times the steps?": _longer,
    "Is the diagram the same for other splits and other initial values?": _other_seeds,
    "Does grokking depend on the activation (cells that grok)?": _activations,
}
