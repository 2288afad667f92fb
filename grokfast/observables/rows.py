"""Rows of matrices as they are: of the embedding, of the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grokfast.errors import UsageError
from grokfast.observables.base import Snapshot, observable

if TYPE_CHECKING:
    from torch import Tensor


@observable("embeddings", dims=("token", "component"), label="embedding")
def embeddings(cells: Snapshot) -> Tensor:
    """The embedding ``[K, P, E]``; of a transformer with ``positions=learned-rows`` the last rows
    are the positions."""
    if "embedding.weight" not in cells.params:
        raise UsageError("record=embeddings: this experiment has no embedding to record")
    return cells.params["embedding.weight"]


@observable("output_rows", dims=("class", "component"), label="output row")
def output_rows(cells: Snapshot) -> Tensor:
    """Rows of the output matrix ``[K, O, H]``, one a class: of the last layer, or of the embedding
    where a transformer has its head tied to it."""
    model, shape = cells.experiment.model, cells.shape
    assert shape is not None
    for name, p in reversed(cells.params.items()):
        if p.ndim == 3 and model.group(name, shape) == "output":
            return p
    if getattr(model, "tied", False):
        return cells.params["embedding.weight"][:, : shape.outputs]
    raise UsageError("output_rows: this experiment has no output matrix")
