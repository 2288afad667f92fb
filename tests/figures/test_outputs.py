"""Output rows of transformers in the plane."""

import itertools

import numpy as np
import pytest

from grokfast.analyses.cosets import POWER_SUBGROUP, after, cosets, subgroup
from grokfast.errors import UsageError
from grokfast.experiment import Experiment
from grokfast.figures import output_map
from grokfast.grid import Grid
from grokfast.models import Transformer
from grokfast.tasks import Algorithmic


def test_cosets_part_the_permutations():
    group, found = subgroup(POWER_SUBGROUP), cosets()
    assert len(group) == 10
    assert np.bincount(found).tolist() == [10] * 12
    number = {x: k for k, x in enumerate(itertools.permutations(range(5)))}
    assert set(group) == {x for x, k in number.items() if found[k] == 0}
    for x, h in itertools.product(list(number)[::7], group):
        assert found[number[after(x, h)]] == found[number[x]]


@pytest.fixture
def made(make):
    """``made(operation, ...)``: results of one cell with random weights."""

    def build(operation, tied=True, **options):
        task = Algorithmic(operation=operation, **options)
        model = Transformer(width=8, heads=2, tied=tied)
        results = make(Grid(experiment=Experiment(task=task, model=model)), 10, 20, points=0)
        rows = np.random.default_rng(0).normal(size=(1, 126, 8))
        name = "embedding.weight" if tied else "head.weight"
        results.weights = [{"run": np.array([0]), "embedding.weight": rows, name: rows}]
        return results

    return build


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


@pytest.mark.parametrize(
    ("operation", "symbols", "colours", "says"),
    [("x.y", 120, 12, "left cosets"), ("x+y", 97, 8, "residues modulo 8")],
)
def test_a_point_a_symbol(made, operation, symbols, colours, says):
    pytest.importorskip("sklearn")
    figure = output_map(made(operation))
    (ax,) = figure.axes
    (points,) = ax.collections
    assert len(points.get_offsets()) == symbols
    assert len(np.unique(points.get_facecolors(), axis=0)) == colours
    assert len(ax.lines) == (0 if operation == "x.y" else 8)
    assert says in footnote(figure)


def test_what_has_no_output_rows_to_draw(made, small):
    results = made("x+y")
    results.weights = []
    with pytest.raises(UsageError, match="kept no weights"):
        output_map(results)
    with pytest.raises(UsageError, match="of transformers on the task algorithmic"):
        output_map(small, [0])
