"""Cosets of subgroups of permutations, by which Power et al. 2022 colour their Figure 3."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from grokfast.analyses.neurons import Ints

#: Swaps of the two generators of Figure 3: (0 3)(1 4) and (1 2)(3 4); a group of 10.
POWER_SUBGROUP = ((3, 4, 2, 0, 1), (0, 2, 1, 4, 3))

Permutation = tuple[int, ...]


def after(x: Permutation, y: Permutation) -> Permutation:
    """x o y: y first."""
    return tuple(x[k] for k in y)


def subgroup(generators: Sequence[Permutation]) -> list[Permutation]:
    """Every product of some permutations, sorted."""
    found = {tuple(range(len(generators[0])))}
    new = found
    while new:
        new = {after(g, x) for x in new for g in generators} - found
        found = found | new
    return sorted(found)


def cosets(generators: Sequence[Permutation] = POWER_SUBGROUP) -> Ints:
    """The left coset x H of every permutation x, in lexicographic order as the task has them:
    numbers from 0 in order of appearance, int64 ``[n!]``."""
    group = subgroup(generators)
    numbers: dict[Permutation, int] = {}
    found = []
    for x in itertools.permutations(range(len(generators[0]))):
        least = min(after(x, h) for h in group)
        found.append(numbers.setdefault(least, len(numbers)))
    return np.array(found)
