"""What a field is called in figures: one table of words and symbols, by the field's dotted name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grokfast.fields import SHORT_NAMES, short_name
from grokfast.figures.numbers import is_number, number
from grokfast.figures.style import plain
from grokfast.grid import Grid


@dataclass(frozen=True)
class Label:
    """Words for an axis, and the symbol that stands for them beside a value, if any."""

    words: str
    symbol: str = ""

    @property
    def on_axis(self) -> str:
        return f"{self.words} {self.symbol}".rstrip()


_LABELS: dict[str, Label] = {
    "batch_size": Label("batch size"),
    "batches.order": Label("order of batches"),
    "batches.remainder": Label("remainder of batches"),
    "batches.share": Label("largest share of a batch"),
    "evaluation.every": Label("steps between evaluations"),
    "model.activation": Label("activation"),
    "model.depth": Label("linear layers"),
    "model.dropout": Label("dropout probability"),
    "model.embedding_dim": Label("embedding dimension"),
    "model.feedforward": Label("feed-forward width"),
    "model.heads": Label("attention heads"),
    "model.init": Label("initialisation"),
    "model.init_scale": Label("initialisation scale"),
    "model.norm": Label("normalisation"),
    "model.positions": Label("positional encoding"),
    "model.seed": Label("model seed"),
    "model.width": Label("width"),
    "optimizer.beta1": Label("Adam's", r"$\beta_1$"),
    "optimizer.beta2": Label("Adam's", r"$\beta_2$"),
    "optimizer.encoder_lr": Label("encoder learning rate"),
    "optimizer.encoder_weight_decay": Label("encoder weight decay"),
    "optimizer.eps": Label("Adam's", r"$\epsilon$"),
    "optimizer.kind": Label("optimizer"),
    "optimizer.lr": Label("learning rate"),
    "optimizer.update_noise": Label("noise of updates"),
    "optimizer.warmup": Label("warm-up steps"),
    "optimizer.weight_decay": Label("weight decay"),
    "optimizer.weight_decay_memorised": Label("weight decay once memorised"),
    "optimizer.weight_noise": Label("noise of weights"),
    "phase.gap": Label("grokking gap (steps)"),
    "phase.kept": Label("kept accuracy"),
    "phase.threshold": Label("accuracy threshold"),
    "phase.tolerance": Label("accuracy tolerance"),
    "phase.window": Label("window (steps)"),
    "steps": Label("budget (steps)"),
    "task.corruption": Label("share of corrupted labels", r"$\xi$"),
    "task.corruption_seed": Label("corruption seed"),
    "task.flip": Label("probability of a flipped label"),
    "task.fraction": Label("training fraction", r"$\alpha$"),
    "task.k": Label("relevant inputs", "$k$"),
    "task.n": Label("inputs", "$n$"),
    "task.outliers": Label("outliers"),
    "task.p": Label("number of symbols", "$p$"),
    "task.seed": Label("data seed"),
    "task.train_size": Label("training samples"),
    "task.val_size": Label("validation samples"),
}


def words(name: str) -> str:
    """A name as it is said: ``attention_entropy`` is ``attention entropy``."""
    return plain(name.rsplit(".", 1)[-1].replace("_", " "))


def label_of(name: str, grid: Grid) -> Label:
    """Of a field, by its short or dotted name, or of a named setting. Where early layers have a
    learning rate of their own, the usual one is the decoder's (Liu et al. 2022)."""
    label = _LABELS.get(SHORT_NAMES.get(name, name), Label(words(name)))
    name = short_name(name)
    encoders = grid.values_of("optimizer.encoder")
    decays = grid.values_of("optimizer.encoder_weight_decay")
    own = name == "lr" or (name == "weight_decay" and None not in decays)
    if own and "none" not in encoders:
        return Label(f"decoder {label.words}")
    return label


def with_value(name: str, value: Any, grid: Grid) -> str:
    """A field and its value in a title or a sentence: ``weight decay 5``, ``batch 8``, a symbol
    = 0.5."""
    label = label_of(name, grid)
    whole = is_number(value) and name.endswith("seed")  # is a name: without commas
    shown = str(value) if whole else number(value)
    return f"{label.symbol} = {shown}" if label.symbol else f"{label.words} {shown}"
