"""Inverse participation ratios of two-layer nets on pairs of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grokfast.errors import UsageError
from grokfast.observables.base import Snapshot, observable
from grokfast.tasks.modular import Modular, discrete_log_order

if TYPE_CHECKING:
    from torch import Tensor


@observable("ipr", label="mean inverse participation ratio")
def ipr(cells: Snapshot) -> Tensor:
    """Network mean ``[K]`` of the inverse participation ratio; see :func:`neuron_ipr`."""
    return neuron_ipr(cells).mean(1)


@observable("neuron_ipr", dims=("neuron",), label="inverse participation ratio of a neuron")
def neuron_ipr(cells: Snapshot) -> Tensor:
    """Inverse participation ratio of each neuron ``[K, N]`` of a two-layer net on pairs of tokens.

    Of a vector x with F = |rfft(x)| (the constant component included) it is
    sum F^4 / (sum F^2)^2; a neuron's is the mean over its rows of U and V and its column of W
    (Doshi et al. 2024, arXiv 2310.13061, Eq. 3 and their code). Of multiplication it is that of the
    vectors in the order of discrete logarithms, without the symbol 0.
    """
    import torch

    names = set(cells.params)
    if not {"embedding.weight", "layers.0.weight"} <= names or "layers.1.weight" in names:
        raise UsageError("ipr: this experiment is no two-layer net on tokens (model.one_hot)")
    embedding = cells.params["embedding.weight"].double()  # [K, 2p, N]
    p = cells.params["layers.0.weight"].shape[1]
    if embedding.shape[1] != 2 * p:
        raise UsageError(f"ipr: {embedding.shape[1]} tokens are not two for each of {p} outputs")
    rows = torch.stack(
        [embedding[:, :p], embedding[:, p:], cells.params["layers.0.weight"].double()]
    )  # [3, K, p, N]

    def ratio(vectors: Tensor) -> Tensor:
        power = torch.fft.rfft(vectors, dim=2).abs().square()
        return (power.square().sum(2) / power.sum(2).square()).mean(0)

    found = ratio(rows)
    for k, task in enumerate(cells.tasks):
        if isinstance(task, Modular) and task.is_multiplication:
            order = torch.from_numpy(discrete_log_order(p)).to(rows.device)
            found[k] = ratio(rows[:, k : k + 1, order])[0]
    return found
