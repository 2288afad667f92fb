"""What is measured of the parameters of cells at chosen steps; see ``base``.

Imports no torch.
"""

from grokfast.observables import attention, ipr, norms, rows
from grokfast.observables.base import (
    OBSERVABLES,
    UNORDERED,
    Observable,
    Samples,
    Snapshot,
    observable,
)
from grokfast.observables.norms import largest_singular_value

__all__ = [
    "OBSERVABLES",
    "UNORDERED",
    "Observable",
    "Samples",
    "Snapshot",
    "attention",
    "ipr",
    "largest_singular_value",
    "norms",
    "observable",
    "rows",
]
