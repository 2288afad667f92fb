"""Analyses of trained networks: what the two-layer nets of modular arithmetic have learned, and
what recorded curves say (:mod:`grokfast.analyses.dips`); layouts of points in the plane and
densities of numbers, as of hidden representations and weights.

The former read weights, of a results file or of an ``nn.Module``, as :class:`Neurons`, compute in
float64 and train nothing. Letters: p symbols, N neurons (the width); U and V ``[N, p]`` are what a
neuron reads of the first and of the second symbol, W ``[p, N]`` what it writes. Sources: [P23]
Gromov, arXiv 2301.02679; [P24] Doshi, Das, He and Gromov, arXiv 2310.13061; [POLY] the same
authors, arXiv 2406.03495. Importing this package does not import torch.
"""

from grokfast.analyses.analytic import amplitude, answers, solution, width_table
from grokfast.analyses.density import kernel_density
from grokfast.analyses.dips import Signature, dips, first_step, last_median, signature, window_means
from grokfast.analyses.layout import tsne
from grokfast.analyses.neurons import Neurons, evaluate, outputs
from grokfast.analyses.norms import frobenius, gamma_against_ipr
from grokfast.analyses.parametrisation import absorbed, absorbing_factor, mean_field
from grokfast.analyses.preactivations import fourier_map, output_map, preactivation_map
from grokfast.analyses.pruning import (
    PARTS,
    Curve,
    Pruning,
    order_by_ipr,
    parts,
    prune,
    pruning,
    pruning_of_cell,
)
from grokfast.analyses.spectrum import (
    histogram,
    ipr,
    is_multiplicative,
    network_ipr,
    neuron_ipr,
    phase_sums,
    vector_ipr,
)
from grokfast.tasks.modular import discrete_log_order, primitive_root

__all__ = [
    "PARTS",
    "Curve",
    "Neurons",
    "Pruning",
    "Signature",
    "absorbed",
    "absorbing_factor",
    "amplitude",
    "answers",
    "dips",
    "discrete_log_order",
    "evaluate",
    "first_step",
    "fourier_map",
    "frobenius",
    "gamma_against_ipr",
    "histogram",
    "ipr",
    "is_multiplicative",
    "kernel_density",
    "last_median",
    "mean_field",
    "network_ipr",
    "neuron_ipr",
    "order_by_ipr",
    "output_map",
    "outputs",
    "parts",
    "phase_sums",
    "preactivation_map",
    "primitive_root",
    "prune",
    "pruning",
    "pruning_of_cell",
    "signature",
    "solution",
    "tsne",
    "vector_ipr",
    "width_table",
    "window_means",
]
