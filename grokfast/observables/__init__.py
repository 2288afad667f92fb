"""What is measured of the parameters of cells at chosen steps; see ``base``.

Imports no torch.
"""

# In the order in which their names are listed.
from grokfast.observables import rows, norms, attention, ipr  # isort: skip
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
