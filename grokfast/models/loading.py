"""Trained tensors put into a module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives the parameters and buffers of a module values by name.

    ``load_state_dict`` would ask a BatchNorm for a count of batches, which it need not have.

    Raises:
        RuntimeError: names or shapes are not those of the module.
    """
    own: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if own.keys() != tensors.keys():
        differ = ", ".join(sorted(own.keys() ^ tensors.keys()))
        raise RuntimeError(f"the tensors are not those of the module; they differ in {differ}")
    for name, value in tensors.items():
        if own[name].shape != value.shape:
            raise RuntimeError(
                f"{name} has shape {tuple(value.shape)}, not {tuple(own[name].shape)}"
            )
        own[name].copy_(value)
