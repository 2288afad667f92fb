"""Whether compiled code computes what torch does: one pass both ways, on copies.

Inductor's folder can hold code that was made for another machine, or whatever else has come to lie
there; it is taken for what it is named (torch 2.13; bench/LOG.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from grokfast.engines.lockstep import Data, Models, Pass, Tables

#: Gradients below this part of the largest may be rounding alone, as that of a bias before
#: BatchNorm, which is 0.
_SMALL = 1e-2


def difference(run: Pass, eager: Pass, models: Models, data: Data, tables: Tables) -> str | None:
    """What of a pass ``run`` computes otherwise than ``eager`` does; None where all is the same.

    Rounding moves the last digits, and now and then a sample to the other side of a kink; other
    code has no digit in common. Half of the digits is between.
    """
    ours, theirs = _at_work(models), _at_work(models)
    for pass_, own in ((run, ours), (eager, theirs)):
        pass_(own, data, _training(tables))
    for what, mine in _groups(ours).items():
        truth = _groups(theirs)[what]
        scale = torch.stack([_norm(t) for t in truth]).amax(0)  # [M]
        for x, y in zip(mine, truth, strict=True):
            bound = _enough(y, models) * torch.maximum(_norm(y), _SMALL * scale)
            if not bool(((_norm(_apart(x, y)) <= bound) | ~torch.isfinite(scale)).all()):
                return what
    # An optimizer may make a whole step of a gradient that is rounding alone; of few parameters.
    enough = _enough(models.params[0], models)
    pairs = zip(ours.params, theirs.params, strict=True)
    agree = torch.cat([_same(x, y, enough) for x, y in pairs], 1)
    return None if bool((agree.double().mean(1) >= 0.5).all()) else "updates"


def _at_work(models: Models) -> Models:
    """Copies of models, whatever these are by now, with gradients well above rounding and not yet
    stopped: parameters are moved by half their spread, the same way each time."""
    random = torch.Generator().manual_seed(0)

    def moved(p: Tensor) -> Tensor:
        noise = torch.randn(p.shape, generator=random, dtype=p.dtype)
        spread = p.reshape(len(p), -1).std(1, correction=0).view(-1, *[1] * (p.ndim - 1))
        return p + noise * torch.where(spread > 0, spread / 2, 0.1)

    progress = {name: own.clone() for name, own in models.progress.items()}
    for name in ("t_train", "t_val", "diverged_at"):
        progress[name].fill_(-1)
    return models._replace(
        params=[moved(p) for p in models.params],
        slots=[[own.clone() for own in slot] for slot in models.slots],
        buffers={name: own.clone() for name, own in models.buffers.items()},
        live=torch.ones_like(models.live),
        progress=progress,
        crossings={name: own.clone() for name, own in models.crossings.items()},
        batch_loss=models.batch_loss.clone(),
        judged=models.judged.clone(),
    )


def _training(tables: Tables) -> Tables:
    """Copies of what a pass changes, for one that judges and trains."""
    flags = tables.flags.clone()
    flags[:, 1:3] = 1
    return tables._replace(next=tables.next.clone(), flags=flags)


def _groups(models: Models) -> dict[str, list[Tensor]]:
    """What a pass computes in floating point besides the parameters, each [M, ...]; counts follow
    from it."""
    groups = {f"optimizer state {s}": list(slot) for s, slot in enumerate(models.slots)}
    groups["buffers"] = [own for own in models.buffers.values() if own.is_floating_point()]
    groups["losses"] = [models.batch_loss, models.judged[:2].T]
    return {what: tensors for what, tensors in groups.items() if tensors}


def _enough(x: Tensor, models: Models) -> float:
    """Half of the digits of the shorter of two: a float64 sum of float32 has no more."""
    return max(4 * torch.finfo(t.dtype).eps ** 0.5 for t in (x, models.params[0]))


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """The difference; none of what is infinite or no number in both."""
    return torch.where((x == y) | (torch.isnan(x) & torch.isnan(y)), 0, x - y)


def _same(x: Tensor, y: Tensor, enough: float) -> Tensor:
    """Which parameters of each model agree: bool [M, P]."""
    apart, size = (t.reshape(len(t), -1).abs() for t in (_apart(x, y), y))
    return ~(apart > enough * size.amax(1, keepdim=True))


def _norm(x: Tensor) -> Tensor:
    """Of each model: [M], in float64, which has room for the squares."""
    return x.double().reshape(len(x), -1).norm(dim=1)
