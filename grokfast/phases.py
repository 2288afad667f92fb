"""What was measured of a cell -> its learning phase, by one of several rules (pure NumPy).

A rule is a small frozen dataclass, registered by name. One of one's own::

    @gf.phase_rule("halves")
    @dataclass(frozen=True, kw_only=True)
    class Halves(gf.Rule):
        phases = ("good", "bad")
        letters = ("G", "B")

        def classify(self, outcomes):
            code = np.where(outcomes.final_val_acc >= 0.5, 0, 1)
            return np.where(outcomes.finished, code, -1).astype(np.int8)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, make_dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grokfast.bounds import BELOW_ONE, SHARE, Bounds, check_bounds
from grokfast.errors import UsageError

#: Code of a cell whose phase is not known: it is not finished, or the rule misses a measurement.
UNKNOWN = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes:
    """What became of R cells, as far as rules look at it; arrays of one shape, mostly ``[R]``.

    Attributes:
        t_train, t_val: first step over the rule's threshold, -1 for never.
        finished: False where a cell may still change.
        steps_done: optimizer steps taken, -1 where not known.
        final_train_acc, final_val_acc: at the last evaluation, NaN where not known.
        best_train_acc, best_val_acc: the highest at any evaluation, NaN where not known.
        late_train_acc: median over the evaluations kept of the last ``window`` steps of the rule,
            none of them before T_train; NaN where not known.
        budget: read the phases as of this many steps: later events have not happened. ``None``
            for all that was trained.
        cells: the experiment of each cell; empty where not known.
    """

    t_train: Any
    t_val: Any
    finished: Any = True
    steps_done: Any = -1
    final_train_acc: Any = np.nan
    final_val_acc: Any = np.nan
    best_train_acc: Any = np.nan
    best_val_acc: Any = np.nan
    late_train_acc: Any = np.nan
    budget: int | None = None
    cells: Sequence[Any] = ()

    def __post_init__(self) -> None:
        arrays = dict(zip(_ARRAYS, np.broadcast_arrays(*self._values()), strict=True))
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def _values(self) -> list[Any]:
        return [getattr(self, name) for name in _ARRAYS]

    def at(self, chosen: Sequence[int]) -> Outcomes:
        """Those of some cells, by position."""
        index = list(chosen)
        arrays = {name: value[index] for name, value in zip(_ARRAYS, self._values(), strict=True)}
        cells = [self.cells[k] for k in index] if self.cells else ()
        return Outcomes(**arrays, budget=self.budget, cells=cells)


_ARRAYS = tuple(f.name for f in fields(Outcomes) if f.name not in ("budget", "cells"))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Base of every rule. Fields must be scalars; each may be an axis of a grid.

    Attributes:
        threshold: accuracy from which on training and validation count as reached: what T_train
            and T_val are the first steps of.
    """

    threshold: Annotated[float, SHARE] = 0.9

    #: The registered name; set by :func:`phase_rule`.
    name: ClassVar[str] = ""
    #: Last steps of which the rule looks at medians; 0 where it does not.
    window = 0
    #: Names of the phases in the order of every legend: a phase's code is its place here.
    phases: ClassVar[tuple[str, ...]] = ()
    #: One letter a phase, as drawn inside the cells of a diagram.
    letters: ClassVar[tuple[str, ...]] = ()

    def classify(self, outcomes: Outcomes) -> NDArray[np.int8]:
        """Phase code of each cell, int8 of the shape of the outcomes, ``UNKNOWN`` where there is
        none (yet)."""
        raise NotImplementedError

    @property
    def sentence(self) -> str:
        """What decides, for the caption of a figure and the file."""
        return f"T: first step with accuracy ≥ {self.threshold:g}; phases by rule {self.name}."

    def needed(self, samples: int) -> int:
        """Fewest correct predictions of ``samples`` that reach the threshold."""
        return _fewest(self.threshold * samples)

    def check(self) -> None:
        """Raises UsageError where a field is out of range; the message names it."""
        try:
            check_bounds(self, lambda name: f"phase.{name}")
        except ValueError as error:
            raise UsageError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the inverse of :func:`rule_from_dict`."""
        return {"name": self.name, **asdict(self)}


PHASE_RULES: dict[str, type[Rule]] = {}

R = TypeVar("R", bound=type[Rule])


def phase_rule(name: str):
    """Class decorator: registers a :class:`Rule` under ``name``, for experiments, JSON and files.

    Raises:
        UsageError: phases that repeat a name, or not one letter of its own for each.
    """

    def register(cls: R) -> R:
        phases, letters = cls.phases, cls.letters
        if not phases or len(set(phases)) < len(phases):
            raise UsageError(f"rule {name!r} has the phases {phases}; give distinct names")
        if len(set(letters)) != len(phases) or any(len(letter) != 1 for letter in letters):
            raise UsageError(
                f"rule {name!r} has the letters {letters}; give {len(phases)}, one a phase"
            )
        cls.name = name
        PHASE_RULES[name] = cls
        return cls

    return register


@phase_rule("delay")
@dataclass(frozen=True, kw_only=True)
class PhaseRule(Rule):
    """The four phases of Liu et al. 2022 (arXiv 2205.10343, Table 1) with the rules that Shabalin,
    Sadrtdinov and Shabalin 2023 used for their figures: what was reached, and how far apart.

    An accuracy is reached at ``accuracy >= threshold - tolerance`` (``>`` where ``strict``).
    A cell that reached both is in comprehension where T_val - T_train < ``gap`` steps
    (``<=`` where ``gap_inclusive``), in grokking otherwise.

    Attributes:
        threshold: accuracy that T_train and T_val are the first steps of.
        tolerance: how far below the threshold an accuracy still counts as reached.
        strict: whether the accuracy must be larger, not only as large.
        gap: steps from T_train to T_val that part comprehension from grokking.
        gap_inclusive: whether a delay of exactly ``gap`` counts as comprehension.
    """

    tolerance: Annotated[float, BELOW_ONE] = 0.0
    strict: bool = False
    gap: Annotated[int, Bounds(0)] = 1000
    gap_inclusive: bool = False

    phases: ClassVar[tuple[str, ...]] = ("comprehension", "grokking", "memorization", "confusion")
    letters: ClassVar[tuple[str, ...]] = ("C", "G", "M", "X")

    def classify(self, outcomes: Outcomes) -> NDArray[np.int8]:
        t_train, t_val = outcomes.t_train, outcomes.t_val
        if outcomes.budget is not None:
            t_train = np.where(t_train > outcomes.budget, -1, t_train)
            t_val = np.where(t_val > outcomes.budget, -1, t_val)
        memorised, generalised = t_train >= 0, t_val >= 0
        delay = t_val - t_train
        close = delay <= self.gap if self.gap_inclusive else delay < self.gap
        both = memorised & generalised
        phase = np.full(t_train.shape, CONFUSION, np.int8)
        phase[memorised] = MEMORIZATION
        phase[both & ~close] = GROKKING
        phase[both & close] = COMPREHENSION
        # A cell that reached both cannot change any more, finished or not.
        return np.where(both | outcomes.finished, phase, UNKNOWN).astype(np.int8)

    @property
    def sentence(self) -> str:
        sign = ">" if self.strict else "≥"
        tolerance = f" \N{MINUS SIGN} {self.tolerance:g}" if self.tolerance else ""
        above = ">" if self.gap_inclusive else "≥"
        return (
            f"T: first step with accuracy {sign} {self.threshold:g}{tolerance}; "
            f"grokking where T(val) \N{MINUS SIGN} T(train) {above} {self.gap:,} steps."
        )

    def needed(self, samples: int) -> int:
        return _fewest((self.threshold - self.tolerance) * samples, strict=self.strict)

    def to_dict(self) -> dict[str, Any]:
        """Without a name, which files from before there were other rules do not have."""
        return asdict(self)


#: Phases, letters and codes of :class:`PhaseRule`.
PHASES, LETTERS = PhaseRule.phases, PhaseRule.letters
COMPREHENSION, GROKKING, MEMORIZATION, CONFUSION = range(4)


@phase_rule("inversion")
@dataclass(frozen=True, kw_only=True)
class InversionRule(Rule):
    """The six phases of learning from partly corrupted labels: Doshi, Das, He and Gromov 2024
    (arXiv 2310.13061), Appendix C, Table 2, from accuracies alone.

    With the corrupted share xi of the cell's task (its ``corruption`` or ``flip``, 0 where it has
    none), the first that holds:

    1. coexistence: final validation and training accuracy >= ``threshold``;
    2. full inversion: validation >= ``threshold``, training < 1 + ``margin`` - xi: at most the
       true labels and a few by chance;
    3. partial inversion: validation >= ``threshold``;
    4. memorization: training >= ``threshold``;
    5. forgetting: validation was >= ``threshold`` once, and fell;
    6. confusion.

    Coexistence is tested first because the table's conditions overlap for xi <= margin + 1 -
    threshold: there, partial inversion is empty, and at xi = 0 every model that groks would be
    fully inverted. The authors tell forgetting from confusion by looking at curves, in which the
    weight norms collapse as well; here the best validation accuracy decides, norms do not.

    Attributes:
        margin: training accuracy beyond the true labels that full inversion allows.
    """

    margin: Annotated[float, BELOW_ONE] = 0.05

    phases = (
        "coexistence",
        "partial inversion",
        "full inversion",
        "memorization",
        "forgetting",
        "confusion",
    )
    letters = ("C", "P", "I", "M", "F", "X")

    def classify(self, outcomes: Outcomes) -> NDArray[np.int8]:
        """Raises UsageError where a budget is less than what was trained: there is no accuracy
        of then."""
        budget, trained = outcomes.budget, int(outcomes.steps_done.max(initial=0))
        if budget is not None and trained > budget:
            raise UsageError(
                f"phases by rule {self.name} follow from the last accuracies, so there are none as "
                f"of {budget} of {trained} steps",
                hint="leave the budget out",
            )
        # In float32, as accuracies are kept: 9 of 10 reach a threshold of 0.9.
        train, val, best = (
            np.asarray(a, np.float32)
            for a in (outcomes.final_train_acc, outcomes.final_val_acc, outcomes.best_val_acc)
        )
        corruption = [_corruption(cell.task) for cell in outcomes.cells] or 0.0
        clean = np.asarray(1 + self.margin - np.asarray(corruption), np.float32)
        high = np.float32(self.threshold)
        in_order = [
            ("coexistence", (val >= high) & (train >= high)),
            ("full inversion", (val >= high) & (train < clean)),
            ("partial inversion", val >= high),
            ("memorization", train >= high),
            ("forgetting", best >= high),
        ]
        code = {name: k for k, name in enumerate(self.phases)}
        phase = np.select(
            [holds for _, holds in in_order],
            [code[name] for name, _ in in_order],
            code["confusion"],
        )
        known = outcomes.finished & ~np.isnan(train) & ~np.isnan(val)
        known &= ~np.isnan(best) | (phase < code["forgetting"])
        return np.where(known, phase, UNKNOWN).astype(np.int8)

    @property
    def sentence(self) -> str:
        high, less = f"{self.threshold:g}", f"{1 + self.margin:g} \N{MINUS SIGN} ξ"
        return (
            "Phases by final accuracies, the first that holds: coexistence: validation and "
            f"training ≥ {high}; full inversion: validation ≥ {high}, training < {less} (ξ: "
            f"share of corrupted labels); partial inversion: validation ≥ {high}; memorization: "
            f"training ≥ {high}; forgetting: validation was once ≥ {high}; confusion: the rest. "
            f"T: first step with accuracy ≥ {high}."
        )


def _corruption(task: Any) -> float:
    """Share of the training labels that a task corrupts, by whichever name it has it."""
    return float(getattr(task, "corruption", getattr(task, "flip", 0.0)))


@phase_rule("collapse")
@dataclass(frozen=True, kw_only=True)
class CollapseRule(PhaseRule):
    """The four phases of :class:`PhaseRule`, and collapse: a network that had memorised, and whose
    training accuracy is below ``kept`` in the median of its last ``window`` steps.

    First steps and a median: the last accuracy alone would tell a network that has just slipped,
    as transformers under weight decay do every few hundred steps, from none that has unlearned.
    Needs recorded curves.

    Attributes:
        window: last steps of which the median is taken.
        kept: training accuracy below which it has collapsed.
    """

    window: Annotated[int, Bounds(1)] = 1000
    kept: Annotated[float, SHARE] = 0.9

    phases = (*PhaseRule.phases, "collapse")
    letters = (*PhaseRule.letters, "L")

    def classify(self, outcomes: Outcomes) -> NDArray[np.int8]:
        phase = super().classify(outcomes)
        reached = outcomes.t_train >= 0
        if outcomes.budget is not None:
            reached &= outcomes.t_train <= outcomes.budget
        late = np.asarray(outcomes.late_train_acc, np.float32)
        phase[reached & (late < np.float32(self.kept))] = self.phases.index("collapse")
        known = outcomes.finished & (~reached | ~np.isnan(late))
        return np.where(known, phase, UNKNOWN).astype(np.int8)

    @property
    def sentence(self) -> str:
        return (
            f"{super().sentence.removesuffix('.')}; collapse where training had reached it and its "
            f"median over the last {self.window:,} steps is < {self.kept:g}."
        )

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


def late_medians(
    step: ArrayLike, accuracy: ArrayLike, t_train: ArrayLike, ends: ArrayLike, window: ArrayLike
) -> NDArray[np.float64]:
    """What :attr:`Outcomes.late_train_acc` is, ``[R]``.

    Args:
        step: recorded steps, ascending, ``[T]``.
        accuracy: of the cells there, ``[R, T]``, NaN where not measured.
        t_train: ``[R]``, -1 for never.
        ends: where the cells stand, ``[R]``.
        window: steps ``[R]``, 0 for none.
    """
    found = np.full(len(np.asarray(ends)), np.nan)
    rows = zip(*map(np.asarray, (accuracy, t_train, ends, window)), strict=True)
    for k, (values, reached, end, back) in enumerate(rows):
        first, last = np.searchsorted(step, (max(end - back + 1, reached), end + 1))
        some = values[first:last]
        some = some[np.isfinite(some)]
        found[k] = np.median(some) if back and len(some) else np.nan
    return found


def rule_from_dict(data: dict[str, Any]) -> Rule:
    """The rule that :meth:`Rule.to_dict` tells of; without a name, a :class:`PhaseRule`. One that
    is not registered is a stand-in: what it applies to can be read, but the phases are not known.

    Raises:
        TypeError: a field that the rule does not have.
    """
    values = dict(data)
    name = str(values.pop("name", PhaseRule.name))
    return PHASE_RULES[name](**values) if name in PHASE_RULES else _stand_in(name, values)


def _stand_in(name: str, values: dict[str, Any]) -> Rule:
    def classify(self: Rule, outcomes: Outcomes) -> NDArray[np.int8]:
        return np.full(outcomes.t_train.shape, UNKNOWN, np.int8)

    def needed(self: Rule, samples: int) -> int:
        raise UsageError(
            f"unknown phase rule {name!r}; known are {', '.join(PHASE_RULES)}",
            hint="register a rule of your own with @grokfast.phase_rule first",
        )

    own = [(key, type(value)) for key, value in values.items() if key != "threshold"]
    namespace = {"classify": classify, "needed": needed, "name": name}
    cls: type[Rule] = make_dataclass(
        "UnknownRule", own, bases=(Rule,), namespace=namespace, frozen=True, kw_only=True
    )
    return cls(**values)


def classify(
    t_train: ArrayLike,
    t_val: ArrayLike,
    rule: Rule | Sequence[Rule],
    **known: Any,
) -> NDArray[np.int8]:
    """Phase code of each cell.

    Args:
        t_train, t_val: see :class:`Outcomes`.
        rule: of all cells, or one for each.
        known: further fields of :class:`Outcomes`, as ``finished`` and ``budget``.

    Returns:
        int8 array of the broadcast shape: index into the ``phases`` of its rule, or ``UNKNOWN``.

    Raises:
        UsageError: a budget that the rule cannot go back to.
    """
    outcomes = Outcomes(t_train=t_train, t_val=t_val, **known)
    if isinstance(rule, Rule):
        return rule.classify(outcomes)
    places: dict[Rule, list[int]] = {}
    for k, one in enumerate(rule):
        places.setdefault(one, []).append(k)
    phase = np.full(outcomes.t_train.shape, UNKNOWN, np.int8)
    for one, mine in places.items():
        phase[mine] = one.classify(outcomes.at(mine))
    return phase


def sentence_of(rules: Sequence[Rule]) -> str:
    """What decides on the phases by rules of one kind; where they differ in numbers, the ranges of
    these."""
    sentences = list(dict.fromkeys(rule.sentence for rule in rules))
    if len(sentences) == 1:
        return sentences[0]
    words = [sentence.split(" ") for sentence in sentences]
    if len({len(own) for own in words}) == 1:
        merged = " ".join(_merged(list(dict.fromkeys(same))) for same in zip(*words, strict=True))
        return f"{merged} Of several values each cell has its own."
    differ = [
        f.name.replace("_", " ")
        for f in fields(rules[0])
        if len({getattr(rule, f.name) for rule in rules}) > 1
    ]
    return f"Phases by rule {rules[0].name}, of which each cell has its own {', '.join(differ)}."


def _merged(words: Sequence[str]) -> str:
    """``500`` and ``1,000;`` are ``500 to 1,000;``."""
    bare = [word.rstrip(".;:") for word in words]
    rest = words[0].removeprefix(bare[0])
    if len(words) == 1:
        return words[0]
    try:
        bare.sort(key=lambda word: float(word.replace(",", "")))
    except ValueError:
        return " or ".join(bare) + rest
    return f"{bare[0]} to {bare[-1]}{rest}"


def counts(phase: ArrayLike, names: Sequence[str] = PHASES) -> dict[str, int]:
    """Number of cells per phase name, all always present."""
    phase = np.asarray(phase)
    return {name: int((phase == code).sum()) for code, name in enumerate(names)}


def letters(rules: Iterable[Rule]) -> dict[str, str]:
    """Phase name -> letter, of the phases of all rules; ``diverged`` is D."""
    pairs = (pair for rule in rules for pair in zip(rule.phases, rule.letters, strict=True))
    return dict(pairs) | {"diverged": "D"}


def _fewest(bound: float, *, strict: bool = False) -> int:
    """Smallest whole number at (or, ``strict``, above) a bound."""
    # 0.6 * 1000 is 600.0000000000001 in binary floating point; counts are integers.
    nearest = round(bound)
    if math.isclose(bound, nearest, rel_tol=1e-12, abs_tol=1e-12):
        return nearest + 1 if strict else nearest
    return math.ceil(bound)
