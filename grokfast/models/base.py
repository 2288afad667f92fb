"""What a model is: a network as a deterministic function of its fields and of the data's shape.

A user's own model is a small frozen dataclass; the reference engine trains any ``nn.Module``::

    @gf.model("linear")
    @dataclass(frozen=True, kw_only=True)
    class Linear(gf.Model):
        def build(self, shape: gf.Shape) -> torch.nn.Module:
            return torch.nn.Linear(shape.inputs, shape.outputs)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from grokfast.bounds import SEED
from grokfast.errors import UsageError
from grokfast.models.layers import Layer, Linear, parameter_names
from grokfast.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grokfast.models.stacked import Stacked


@dataclass(frozen=True)
class Shape:
    """What a model must know of its data.

    Attributes:
        inputs: I of dense inputs ``[N, I]``, or K tokens of a sample ``[N, K]``.
        outputs: O: the classes, or the width of their dense targets.
        vocabulary: distinct tokens P; 0 for dense inputs.
    """

    inputs: int
    outputs: int
    vocabulary: int = 0


@dataclass(frozen=True, kw_only=True)
class Model:
    """Base of every model. Every field must be a scalar.

    Attributes:
        seed: the model seed, of the initial values and, with minibatches, of their order; ``None``
            goes on with the generator that the task has drawn its data from.
    """

    seed: Annotated[int | None, SEED] = 0

    #: The registered name; set by :func:`model`.
    name: ClassVar[str] = ""
    #: Fields that may differ between cells that are trained together, besides the seed: they
    #: change numbers, not operations.
    per_cell: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Looks at the values of the fields, whose types are right.

        Raises:
            UsageError: a value that cannot be; the message says what would do.
        """

    def fits(self, shape: Shape, task: str) -> None:
        """Looks at whether the model can take the data of the task.

        Raises:
            UsageError: it cannot.
        """

    def build(self, shape: Shape) -> nn.Module:
        """The network with its initial values, drawn from torch's global CPU generator (which
        has been seeded, and is restored afterwards). Its ``forward`` maps ``[B, I]`` or tokens
        ``[B, K]`` to ``[B, O]``; parameters are in the order of ``parameters()``."""
        raise NotImplementedError

    def layers(self, shape: Shape) -> tuple[Layer, ...] | None:
        """The network as a chain of layers, which is what ``native`` and ``triton`` read; None
        where it is no such chain."""
        return None

    def stacked(self, shape: Shape) -> Stacked | None:
        """The network in stacked tensors, which is what ``compiled`` trains; None where it has no
        such form: then ``reference`` alone trains it."""
        layers = self.layers(shape)
        if layers is None:
            return None
        from grokfast.models.chain import StackedChain

        return StackedChain(layers)

    @property
    def has_embedding(self) -> bool:
        """Whether tokens have learned vectors, as the parameter ``embedding.weight``."""
        return bool(getattr(self, "embedding_dim", 0) or getattr(self, "one_hot", False))

    def parameter_names(self, shape: Shape) -> tuple[str, ...]:
        """Names of the parameters in their order, without torch; empty where it cannot tell."""
        return parameter_names(self.layers(shape) or ())

    def multiply_adds(self, shape: Shape) -> int:
        """Of the products of one sample's forward pass; 0 where it cannot tell."""
        chain = self.layers(shape) or ()
        return sum(x.inputs * x.outputs for x in chain if isinstance(x, Linear))

    def least_parameters(self) -> int:
        """How many parameters it has at least, whatever the data."""
        return 0

    def group(self, parameter: str, shape: Shape) -> str:
        """The group of a parameter: ``embedding``, ``hidden`` or ``output`` (the last layer)."""
        return "hidden"

    def shape_of(self, tensors: Mapping[str, Tensor]) -> Shape:
        """The shape of the data, from the trained parameters by name.

        Raises:
            UsageError: this model cannot tell.
        """
        raise UsageError(f"model {self.name!r} cannot be built from stored weights")


MODELS: Registry[type[Model]] = Registry("model")

M = TypeVar("M", bound=type[Model])


def model(name: str):
    """Class decorator: registers a :class:`Model` under ``name``, for presets, JSON and files."""

    def register(cls: M) -> M:
        cls.name = name
        MODELS.add(name, cls)
        return cls

    return register


def stand_in(name: str, values: dict[str, Any]) -> Model:
    """A model that is not registered here, as a file tells of it: what has been found can be read
    and drawn, but there is no network to train."""
    fields = [(key, type(value)) for key, value in values.items() if key != "seed"]

    def build(self: Model, shape: Shape) -> nn.Module:
        MODELS[name]  # raises
        raise AssertionError

    # Nobody can tell, and what was recorded has been recorded.
    namespace = {"build": build, "name": name, "has_embedding": True}
    cls: type[Model] = make_dataclass(
        name, fields, bases=(Model,), namespace=namespace, frozen=True, kw_only=True
    )
    return cls(**values)
