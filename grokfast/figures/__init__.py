"""Figures: readers of Results, at the standard of a paper.

They draw on figure objects of their own and never touch pyplot's state. Names are loaded when
first used, so that importing this package waits neither for Matplotlib nor for anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokfast.figures.convergence import convergence_diagram
    from grokfast.figures.discrete import phase_diagram
    from grokfast.figures.drawing import draw
    from grokfast.figures.histories import curves
    from grokfast.figures.lines import outcome_lines
    from grokfast.figures.maps import preactivation_maps
    from grokfast.figures.observed import observables
    from grokfast.figures.outputs import output_map
    from grokfast.figures.pruned import pruning_curves
    from grokfast.figures.replayed import hidden_layouts, weight_densities
    from grokfast.figures.rows import neuron_rows
    from grokfast.figures.smooth import smooth_diagram
    from grokfast.figures.spectra import gamma_scatter, ipr_histograms, phase_histograms
    from grokfast.figures.times import grokking_times
    from grokfast.figures.trajectories import embedding_trajectories
    from grokfast.figures.widths import width_accuracy

#: Kinds that read the neurons of two-layer modular nets (see :mod:`grokfast.analyses`).
NEURON_KINDS: tuple[str, ...] = (
    "ipr",
    "rows",
    "gamma",
    "phase-sums",
    "pruning",
    "maps",
    "widths",
)

#: Kinds that train a cell again to find what the run did not keep.
REPLAYED_KINDS: tuple[str, ...] = ("tsne", "density")

#: What :func:`draw` and ``grokfast plot --kind=`` know.
KINDS: tuple[str, ...] = (
    "phases",
    "smooth",
    "convergence",
    "times",
    "lines",
    "curves",
    "observables",
    "embeddings",
    "outputs",
    *REPLAYED_KINDS,
    *NEURON_KINDS,
)

#: File formats, by suffix.
FORMATS: tuple[str, ...] = ("png", "pdf", "svg")

_HOMES = {
    "convergence_diagram": "convergence",
    "curves": "histories",
    "draw": "drawing",
    "embedding_trajectories": "trajectories",
    "gamma_scatter": "spectra",
    "grokking_times": "times",
    "hidden_layouts": "replayed",
    "ipr_histograms": "spectra",
    "neuron_rows": "rows",
    "observables": "observed",
    "outcome_lines": "lines",
    "output_map": "outputs",
    "phase_diagram": "discrete",
    "phase_histograms": "spectra",
    "preactivation_maps": "maps",
    "pruning_curves": "pruned",
    "smooth_diagram": "smooth",
    "weight_densities": "replayed",
    "width_accuracy": "widths",
}

__all__ = [
    "FORMATS",
    "KINDS",
    "NEURON_KINDS",
    "REPLAYED_KINDS",
    "convergence_diagram",
    "curves",
    "draw",
    "embedding_trajectories",
    "gamma_scatter",
    "grokking_times",
    "hidden_layouts",
    "ipr_histograms",
    "neuron_rows",
    "observables",
    "outcome_lines",
    "output_map",
    "phase_diagram",
    "phase_histograms",
    "preactivation_maps",
    "pruning_curves",
    "smooth_diagram",
    "weight_densities",
    "width_accuracy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'grokfast.figures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"grokfast.figures.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
