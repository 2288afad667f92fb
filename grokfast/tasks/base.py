"""What a task is: a data set, as a deterministic function of its fields.

A user's own task is a small frozen dataclass::

    @gf.task("xor")
    @dataclass(frozen=True, kw_only=True)
    class Xor(gf.Task):
        bits: int = 2

        def build(self) -> gf.TaskData: ...
"""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from grokfast.bounds import SEED, check_bounds
from grokfast.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class TaskData:
    """The tensors of one data set (CPU).

    Attributes:
        x_train: float inputs ``[N, I]``, or int tokens ``[N, K]`` for a model with an embedding.
        y_train: class labels, int64 ``[N]``.
        x_val, y_val: the same for the V validation samples.
        num_classes: C, labels lie in ``0..C-1``.
        targets: dense target of each class, float ``[C, O]``, for MSE, hinge, and prediction by
            target; ``None`` where the loss is cross-entropy (then O = C).
        vocabulary: number of distinct tokens P where inputs are tokens, else 0.
        y_clean: the training labels before some were corrupted, int64 ``[N]``; ``None`` where
            the task corrupts none.
        corrupted: which training labels were redrawn (by chance some are right), bool ``[N]``;
            ``None`` where the task corrupts none.
        generator: state of torch's CPU generator after the data were drawn, for initial weights
            that go on from it; ``None`` where these have a seed of their own.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor
    num_classes: int
    targets: torch.Tensor | None = None
    vocabulary: int = 0
    y_clean: torch.Tensor | None = None
    corrupted: torch.Tensor | None = None
    generator: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Base of every task. Every field must be a scalar.

    Attributes:
        seed: the data seed.
    """

    seed: Annotated[int, SEED] = 0

    #: The registered name; set by :func:`task`.
    name = ""

    def check_bounds(self, *names: str) -> None:
        """Looks at the fields of these names, or at all, in ``__post_init__``.

        Raises:
            ValueError: one is out of its bounds.
        """
        check_bounds(self, lambda name: f"task.{name}", *names)

    def build(self) -> TaskData:
        """The data set, the same for equal fields on every machine."""
        raise NotImplementedError


TASKS: dict[str, type[Task]] = {}


def stand_in(name: str, values: dict[str, Any]) -> Task:
    """A task that is not registered here, as a file tells of it: what has been found can be read
    and drawn, but there is no data set to train on.
    """
    fields = [(key, type(value)) for key, value in values.items() if key != "seed"]

    def build(self: Task) -> TaskData:
        raise UsageError(
            f"unknown task {name!r}; known are {', '.join(TASKS)}",
            hint="register a task of your own with @grokfast.task first",
        )

    namespace = {"build": build, "name": name}
    cls: type[Task] = make_dataclass(
        name, fields, bases=(Task,), namespace=namespace, frozen=True, kw_only=True
    )
    return cls(**values)


T = TypeVar("T", bound=type[Task])


def task(name: str):
    """Class decorator: registers a :class:`Task` under ``name``, for presets, JSON and files."""

    def register(cls: T) -> T:
        cls.name = name
        TASKS[name] = cls
        return cls

    return register
