"""Fields of an experiment by name: ``optimizer.lr`` or ``lr``, their types, and their texts.

A field is a scalar, or a tuple of numbers or words (then its text joins them with ``+``). One that
is a name of a registry is annotated with it: ``Annotated[str, LOSSES]``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from grokfast.bounds import bounds_of, hints
from grokfast.errors import UsageError
from grokfast.registry import Registry

#: Short names of the fields that are most often an axis.
SHORT_NAMES: dict[str, str] = {
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "data_seed": "task.seed",
    "model_seed": "model.seed",
    "activation": "model.activation",
    "init_scale": "model.init_scale",
    "width": "model.width",
    "depth": "model.depth",
}
_SHORT_OF = {path: short for short, path in SHORT_NAMES.items()}


def short_name(path: str) -> str:
    """The name of a field in files and figures: ``optimizer.lr`` is ``lr``."""
    return _SHORT_OF.get(path, path)


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    """Field -> type annotation of a dataclass, less bounds; in order of declaration."""
    annotations = hints(cls)
    return {f.name: without_bounds(annotations[f.name]) for f in dataclasses.fields(cls)}


def walk(experiment: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, type annotation and value of every field that is no dataclass, in order of
    declaration."""
    for name, kind in _kinds(type(experiment)).items():  # type: ignore[arg-type]
        value = getattr(experiment, name)
        if hasattr(type(value), "__dataclass_fields__"):  # quicker than dataclasses.is_dataclass
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield prefix + name, kind, value


def scalar_fields(experiment: Any) -> dict[str, Any]:
    """Dotted name -> type annotation of the fields of :func:`walk`."""
    return {path: kind for path, kind, _ in walk(experiment)}


def without_bounds(kind: Any) -> Any:
    """The type in an annotation; names of a registry keep it."""
    return kind.__origin__ if bounds_of(kind) is not None else kind


def resolve_field(experiment: Any, name: str) -> str:
    """Dotted name of the field called ``name`` (short or dotted).

    Raises:
        UsageError: no such field; the message suggests the closest one.
    """
    path = SHORT_NAMES.get(name, name)
    known = scalar_fields(experiment)
    if path in known:
        return path
    close = difflib.get_close_matches(name, [*known, *SHORT_NAMES], n=1, cutoff=0.5)
    if not close:  # the leaf alone: `beta2` for `optimizer.beta2`
        close = [p for p in known if p.rsplit(".", 1)[-1] == name][:1]
    hint = f"did you mean {close[0]}?" if close else "grokfast fields lists them all"
    raise UsageError(f"unknown field {name!r}", hint=hint)


def is_tuple(kind: Any) -> bool:
    """Whether a field of this type holds several numbers or words."""
    return typing.get_origin(kind) is tuple


def options(kind: Any) -> tuple[Any, ...]:
    """The values that a field of this type may take, where they can be listed; else empty."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    registry = _registry(kind)
    return tuple(registry) if registry is not None else ()


def _registry(kind: Any) -> Registry[Any] | None:
    extras = getattr(kind, "__metadata__", ())
    return next((x for x in extras if isinstance(x, Registry)), None)


def tolerate(kind: Any, value: Any) -> None:
    """A name from a file under which nothing is registered here: see :meth:`Registry.tolerate`."""
    registry = _registry(kind)
    if registry is not None and isinstance(value, str):
        registry.tolerate(value)


def parse_value(path: str, kind: Any, text: str) -> Any:
    """One value of a field from its command-line text.

    Raises:
        UsageError: the text is no value of the field's type.
    """
    if is_tuple(kind):
        inner = typing.get_args(kind)[0]
        return tuple(parse_value(path, inner, part) for part in text.split("+") if part != "none")
    if known := options(kind):
        if text in known:
            return text
        close = difflib.get_close_matches(text, known, n=1)
        raise UsageError(
            f"{short_name(path)}={text!r} is not one of {', '.join(known)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    if isinstance(kind, types.UnionType):
        if text.lower() == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise UsageError(f"{short_name(path)}={text!r} is not true or false")
    try:
        if kind is int:
            number = float(text)
            if number != int(number):
                raise ValueError
            return int(text) if text.lstrip("+-").isdigit() else int(number)
        if kind is float:
            return float(text)
    except (ValueError, OverflowError):
        what = "a whole number, such as 1000 or 1e5" if kind is int else "a number, such as 1e-3"
        raise UsageError(f"{short_name(path)}={text!r} is not {what}") from None
    return text


def value_text(value: Any) -> str:
    """The inverse of :func:`parse_value`: the text that is read back as this very value."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return "+".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def as_field_type(kind: Any, value: Any) -> Any:
    """Numbers from NumPy and whole floats take the field's own Python type, lists become tuples."""
    if is_tuple(kind) and isinstance(value, (list, tuple)):
        return tuple(as_field_type(typing.get_args(kind)[0], v) for v in value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, int) and not _fits(value):
        return value  # check_type says what is wrong
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == (float | None) and isinstance(value, int):
        return float(value)
    return value


def _fits(value: int) -> bool:
    """Whether 64 bits hold a whole number."""
    return -(2**63) <= value < 2**63


def check_type(path: str, value: Any, kind: Any) -> None:
    """Looks at whether a field has a value of its type.

    Raises:
        UsageError: it has not; the message names the field, the value and what would do.
    """
    if type(value) is kind and kind in (bool, float):
        return  # as most are; grids make thousands of experiments
    if is_tuple(kind):
        if not isinstance(value, tuple):
            raise UsageError(f"{path} is {value!r}; give a tuple")
        for one in value:
            check_type(path, one, typing.get_args(kind)[0])
        return
    registry = _registry(kind)
    known = options(kind)
    if registry is not None or known:
        admitted = registry.admits(value) if registry is not None else value in known
        if not admitted:
            raise UsageError(f"{path} is {value!r}; give one of {', '.join(map(str, known))}")
        return
    accepted = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if float in accepted:
        accepted = (*accepted, int)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join(k.__name__ for k in accepted if k is not type(None))
        raise UsageError(f"{path} is {value!r}; give a value of type {names}")
    if isinstance(value, str):
        check_text(path, value)
    if isinstance(value, int) and not _fits(value):
        raise UsageError(f"{path} is a number of {value.bit_length()} bits; give one of 64 at most")


def check_text(what: str, text: str) -> None:
    """Looks at whether files and figures can hold a text.

    Raises:
        UsageError: it has a NUL, or bytes of the command line that are no UTF-8.
    """
    try:
        storable = b"\0" not in text.encode()
    except UnicodeEncodeError:
        storable = False
    if not storable:
        raise UsageError(f"{what} is {text!r}; give text in UTF-8 without NUL")


def replace_tree(value: Any, tree: dict[str, Any]) -> Any:
    """A copy of nested dataclasses with the leaves of ``tree`` changed.

    Raises:
        UsageError: a class of its own does not admit its new values.
    """
    changes = {
        name: replace_tree(getattr(value, name), inner) if isinstance(inner, dict) else inner
        for name, inner in tree.items()
    }
    try:
        return dataclasses.replace(value, **changes)
    except ValueError as error:  # a task's own check
        raise UsageError(str(error)) from error


def without_newer(value: Any) -> dict[str, Any]:
    """``dataclasses.asdict`` less the fields that came later and are at their default: what
    identifies an experiment does not change with the fields that grokfast learns."""
    kept: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        inner = getattr(value, f.name)
        usual = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if "since" in f.metadata and inner == usual:
            continue
        if dataclasses.is_dataclass(inner):
            kept[f.name] = without_newer(inner)
        else:
            kept[f.name] = list(inner) if isinstance(inner, tuple) else inner
    return kept
