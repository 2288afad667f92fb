"""Figures of what a replay finds: layouts of hidden representations, densities of weights."""

import numpy as np
import pytest

import grokfast as gf
from grokfast import figures
from grokfast.analyses import kernel_density, tsne
from grokfast.errors import UsageError
from grokfast.figures import hidden_layouts, weight_densities
from grokfast.figures.replayed import _labels
from grokfast.grid import Grid
from grokfast.tasks.parity import Parity

pytest.importorskip("sklearn")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def parity():
    """Two small nets that learn the product of the first two of five signs, in minibatches."""
    experiment = gf.Experiment(
        task=Parity(n=5, k=2, train_size=40, val_size=20),
        model=gf.Mlp(width=20, depth=2, activation="relu", output_bias=False, seed=1),
        loss="hinge",
        predict="sign",
        optimizer=gf.Optimizer(kind="sgd", lr=0.1, weight_decay=0.01),
        batch_size=16,
        batches=gf.Batches(remainder="short"),
        steps=90,
        stop="never",
        evaluation=gf.Evaluation(train="after"),
        phase=gf.PhaseRule(threshold=0.8),
        record=gf.Recording(curves="evaluated", weights=True),
    )
    grid = Grid(experiment=experiment, axes={"optimizer.weight_decay": (0.01, 0.9)}, name="small")
    return gf.run(grid, engine="reference", device="cpu", progress=False)


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def test_layouts_are_those_of_the_representations_by_the_first_signs(parity):
    figure = hidden_layouts(parity, [0], epochs=[1, 30], seed=3)
    assert [ax.get_title(loc="left").splitlines()[-1] for ax in figure.axes] == [
        "epoch 1",
        "epoch 30",
    ]
    replay = gf.replay(parity, 0, epochs=[1, 30])
    for k, ax in enumerate(figure.axes):
        flat = tsne(replay.hidden(k), 3)
        signs = replay.x_train[:, :2].numpy() > 0
        for label, collection in enumerate(ax.collections):
            wanted = (signs == [label >= 2, label % 2 == 1]).all(axis=1)
            np.testing.assert_allclose(collection.get_offsets(), flat[wanted])
    minus = "\N{MINUS SIGN}"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [minus + minus, minus + "+", "+" + minus, "++"]
    assert "40 training samples, by the first 2 signs of its input" in footnote(figure)
    assert "perplexity 30, seed 3" in footnote(figure)


def test_densities_are_those_of_each_layer_at_the_five_epochs(parity):
    figure = weight_densities(parity, [0])
    replay = gf.replay(parity, 0, until="end")
    assert replay.steps[-1] == 90
    assert len(figure.axes) == 2 * 5
    for row, name in enumerate(("layers.0.weight", "layers.1.weight")):
        assert figure.axes[5 * row].get_ylabel() == f"density of\n{name}"
        for k in range(5):
            ax = figure.axes[5 * row + k]
            places, density = kernel_density(replay.tensors[name][k].numpy())
            np.testing.assert_allclose(ax.lines[0].get_xdata(), places)
            np.testing.assert_allclose(ax.lines[0].get_ydata(), density)
            title = ax.get_title(loc="left").splitlines()[-1]
            assert title == f"epoch {replay.steps[k] // 3}: {density.max():.3g}"
    assert "to where it ended" in footnote(figure)


def test_weights_that_are_all_zero_are_said_to_be(parity):
    again = gf.replay(parity, 1, epochs=[0, 30])
    for name in ("layers.0.weight", "layers.1.weight"):
        again.tensors[name][1] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grokfast.replaying.replay", lambda *_, **__: again)
        assert "epoch 30: all are 0" in weight_densities(parity, [1]).axes[1].get_title(loc="left")
        hidden_layouts(parity, [1])  # of points that coincide but for their biases


def test_other_tasks_are_coloured_by_label():
    grid = gf.preset("addition-classification").grid(lr=1e-3, weight_decay=0.0, width=8, steps=2)
    results = gf.run(grid, engine="reference", device="cpu", progress=False)
    labels, names, what = _labels(gf.replay(results, steps=[1]))
    assert what == "its label"
    assert labels.max() < len(names) == 19
    figure = hidden_layouts(results, epochs=[0, 2])
    assert [ax.get_ylabel() for ax in figure.axes] == ["", "", "its label"], "a colour bar"
    assert figure.axes[0].get_title(loc="left").endswith("step 0")


@pytest.mark.parametrize("kind", figures.REPLAYED_KINDS)
def test_drawing_them(parity, kind, tmp_path):
    out = tmp_path / "a.png"
    figures.draw(parity, kind, cells=[0], epochs=[2], out=out)
    assert out.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"has no until; until belongs to --kind=tsne"):
        figures.draw(parity, "curves", until="end", out=out)
    with pytest.raises(UsageError, match="until is 'never'"):
        figures.draw(parity, kind, cells=[0], until="never", out=out)
