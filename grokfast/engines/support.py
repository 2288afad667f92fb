"""What each engine can do, as data: refusals, ``auto``, ``doctor``, ``fields`` and bench/RESULTS.md
follow from it.

A field of the experiment that reaches an engine stands in every engine's table with the values
that it knows; every other field is resolved before (into schedules, orders, initial values, rules)
and means the same to all. A test walks all values of all of them. What is called ``model.`` there
is of a chain of layers; a field of the transformer, ``transformer.``.
"""

from __future__ import annotations

from typing import Any

from grokfast.bucket import Bucket
from grokfast.fields import scalar_fields, short_name, value_text
from grokfast.models.layers import Plain

#: Whatever is registered.
ANY = None

Values = tuple[Any, ...] | None

#: Field -> the values of an engine that differentiates any chain of layers.
_CHAINS: dict[str, Values] = {
    "model.activation": ("tanh", "relu", "leaky_relu", "square"),
    "model.norm": ("none", "batch", "layer"),
    "model.dropout": ANY,
    "model.parametrization": ("standard", "mean-field"),
    "model.bias": (True, False),
    "model.output_bias": (True, False),
    "model.one_hot": (True, False),
    "loss": ANY,
    "predict": ("argmax", "nearest", "sign"),
    "optimizer.kind": ANY,
    "optimizer.warmup": ANY,
    "optimizer.weight_decay_memorised": ANY,
    "optimizer.decay_towards": ("zero", "initial"),
    "optimizer.update_noise": ANY,
    "optimizer.weight_noise": ANY,
    "batches.remainder": ("none", "dropped", "short"),
    "evaluation.train": ("running", "after"),
    "evaluation.train_loss": ("before", "after"),
    "dtype": ("float32", "float64"),
    "precision": ("ieee",),
}
#: Of one that knows a network by :class:`grokfast.models.layers.Plain` alone, with formulas of its
#: own for the losses and the update.
_FORMULAS: dict[str, Values] = _CHAINS | {
    "model.norm": ("none",),
    "model.dropout": (0.0,),
    "model.parametrization": ("standard",),
    "model.output_bias": (True,),
    "loss": ("cross_entropy", "mse"),
    "predict": ("argmax", "nearest"),
    "optimizer.kind": ("adamw",),
    "optimizer.warmup": (0,),
    "optimizer.weight_decay_memorised": (None,),
    "evaluation.train_loss": ("before",),
    "optimizer.decay_towards": ("zero",),
    "optimizer.update_noise": (0.0,),
    "optimizer.weight_noise": (0.0,),
}
#: What native has beyond that.
_NATIVE: dict[str, Values] = {
    "model.output_bias": (True, False),
    "loss": ("cross_entropy", "mse", "hinge"),
    "predict": ("argmax", "nearest", "sign"),
    "optimizer.kind": ("adamw", "sgd"),
    "optimizer.weight_decay_memorised": ANY,
    "evaluation.train_loss": ("before", "after"),
}

#: Of the transformer. Sizes are any.
_TRANSFORMER: dict[str, Values] = {
    "transformer.norm": ("post", "pre", "none"),
    "transformer.bias": (True, False),
    "transformer.tied": (True, False),
    "transformer.positions": ("learned-rows", "learned", "sinusoidal", "none"),
    "transformer.activation": ("relu", "gelu"),
    "transformer.dropout": ANY,
    "transformer.loss_at": ("answer",),
}
_NO_TRANSFORMER: dict[str, Values] = dict.fromkeys(_TRANSFORMER, ())

#: Engine -> field -> the values that it knows. Numbers stand for themselves: 0 dropout is none.
SUPPORT: dict[str, dict[str, Values]] = {
    "reference": _CHAINS | _TRANSFORMER,
    "compiled": _CHAINS | {"precision": ("ieee", "tf32")} | _TRANSFORMER,
    "native": _FORMULAS | _NATIVE | _NO_TRANSFORMER,
    "triton": _FORMULAS
    | _NO_TRANSFORMER
    | {"batches.remainder": ("none",), "precision": ("ieee", "tf32x3", "tf32")},
}

_PLAIN = ("native", "triton")


def unsupported(engine: str, bucket: Bucket, **here: Values) -> str | None:
    """Why an engine cannot train a bucket as far as its table tells, or None.

    Args:
        engine: its name.
        here: fields, by their last name, that it knows fewer values of on this device.
    """
    cell = bucket.cell
    fields = scalar_fields(cell)  # a user's own model has others
    if engine in _PLAIN and bucket.layers is None:
        return f"model {cell.model.name!r}; it has chains of layers only"
    if engine == "compiled" and bucket.stacked is None:
        return f"model {cell.model.name!r}; it has models with a stacked form only"
    # A user's own model that is no chain is what it is: its fields mean nothing here.
    own = cell.model.name if bucket.layers is None else "model"
    for row, values in SUPPORT[engine].items():
        part, _, leaf = row.rpartition(".")
        path = f"model.{leaf}" if part == own else row
        values = here.get(leaf, values)
        if values is ANY or path not in fields or (part == "model" != own):
            continue
        for value in bucket.values.get(path, (cell.get(path),)):
            if value not in values:
                return f"{short_name(path)} {value!r}; it has {' or '.join(map(str, values))} only"
    if engine in _PLAIN and not _knows(bucket.plain, SUPPORT[engine]):
        return f"model {cell.model.name!r}; it has linear layers with one activation between only"
    return None


def _knows(net: Plain | None, table: dict[str, Values]) -> bool:
    """Whether a table has what a network is made of, whoever made it."""
    if net is None or net.activation not in (table["model.activation"] or ()):
        return False
    return net.output_bias == net.bias or False in (table["model.output_bias"] or ())


def table() -> list[tuple[str, str, tuple[str, ...]]]:
    """Rows of a field, values of it, and the engines that know these: values that the same engines
    know share a row. ``any other``: whatever is registered, or any number."""
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    for path in next(iter(SUPPORT.values())):
        known = {engine: fields[path] for engine, fields in SUPPORT.items()}
        open_to_all = tuple(engine for engine, values in known.items() if values is ANY)
        groups: dict[tuple[str, ...], list[str]] = {}
        for value in dict.fromkeys(v for values in known.values() for v in values or ()):
            engines = tuple(e for e, values in known.items() if values is ANY or value in values)
            groups.setdefault(engines, []).append(value_text(value))
        if open_to_all:
            groups.setdefault(open_to_all, []).append("any other" if groups else "any")
        rows += [(path, ", ".join(values), engines) for engines, values in groups.items()]
    return rows


def markdown() -> str:
    """The table as bench/RESULTS.md has it."""
    lines = [
        f"| field | values | {' | '.join(f'`{engine}`' for engine in SUPPORT)} |",
        "|---|---|" + "---|" * len(SUPPORT),
    ]
    for path, values, engines in table():
        marks = " | ".join("yes" if engine in engines else "-" for engine in SUPPORT)
        lines.append(f"| `{path}` | {values} | {marks} |")
    return "\n".join(lines) + "\n"
