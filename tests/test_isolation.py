"""One cell never ends a grid: it diverges, or its observable is NaN, and the others go on as if
they were alone."""

import importlib.util

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.cli import main

ENGINES = [
    "reference",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("grokfast._native") is None, reason="not compiled"
        ),
    ),
]


def run(engine="reference", preset="addition-classification", **axes):
    axes = {"lr": 1e-2, "weight_decay": 0.0, "steps": 12, "width": 8} | axes
    grid = gf.preset(preset).grid(stop="never", **axes)
    return gf.run(grid, engine=engine, device="cpu", threads=1, progress=False)


EXTREMES = {
    "learning rate": {"lr": [1e-2, 1e38, 1e39, 1e300]},
    "weight decay": {"weight_decay": [0.0, 1e39, 1e300]},
    "encoder's learning rate": {"optimizer.encoder_lr": [1e-3, 1e39]},
    "initial scale": {"init_scale": [1.0, 1e39, 1e300]},
    "warmup": {"lr": [1e-2, 1e39], "optimizer.warmup": [0, 5]},
    "both": {"lr": [1e-2, 1e39], "weight_decay": [0.0, 1e39]},
    "float64": {"lr": [1e-2, 1e308], "weight_decay": [0.0, 1e308], "dtype": "float64"},
    "nothing": {"lr": [1e-2, 0.0, 1e-300], "optimizer.eps": [1e-8, 0.0]},
    "no spread": {"optimizer.beta1": [0.9, 0.0, 1 - 2**-53], "optimizer.beta2": [0.999, 0.0]},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("preset", ["addition-classification", "addition-regression"])
@pytest.mark.parametrize("what", EXTREMES)
def test_extreme_values_harm_their_cells_alone(what, preset, engine):
    axes = EXTREMES[what]
    try:
        r = run(engine, preset, **axes)
    except gf.UsageError as error:
        assert engine in str(error)
        return
    assert r.complete
    assert (r["diverged_at"] >= 0).any() == (what not in ("nothing", "no spread"))
    first = {name: values[0] for name, values in axes.items() if isinstance(values, list)}
    alone = run(engine, preset, **axes | first)
    for name in ("train_loss", "val_loss", "train_acc", "val_acc", "t_train", "t_val"):
        assert r[name][0].tobytes() == alone[name][0].tobytes(), name


@pytest.mark.parametrize(("kind", "momentum"), [("sgd", 0.9), ("sgd", 0.0)])
def test_other_optimizers(kind, momentum):
    options = {"optimizer.kind": kind, "optimizer.momentum": momentum}
    r = run(lr=[1e-2, 1e39], weight_decay=[0.0, 1e39], **options)
    assert r.complete
    assert r["diverged_at"].tolist()[0] == -1
    assert (r["diverged_at"][2:] > 0).all()


@pytest.fixture
def observable():
    """Registers one for the length of a test."""
    names = []

    def add(name, compute, **more):
        gf.observable(name, **more)(compute)
        names.append(name)

    yield add
    for name in names:
        del gf.observables.OBSERVABLES._entries[name]


def test_an_observable_that_fails_is_nan_in_its_cells(observable):
    """As the singular values of parameters that have overflowed."""

    def values(cells):
        weight = cells.params["layers.0.weight"]
        if not torch.isfinite(weight).all():
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return torch.linalg.svdvals(weight)

    observable("singular", values, dims=("value",))
    record = {"record.observables": ("singular:1",)}
    with pytest.warns(UserWarning, match="observable singular failed in 1 cells, and is NaN there"):
        r = run(lr=[1e-2, 1e39], **record)
    assert r["diverged_at"].tolist() == [-1, 2]
    assert np.isfinite(r["singular"][0]).all()
    assert np.isnan(r["singular"][1, 1:]).all()
    assert r["singular"][0].tobytes() == run(**record)["singular"][0].tobytes()
    with pytest.warns(UserWarning, match="singular failed"):  # from the beginning
        r = run(init_scale=[1.0, 1e39], **record)
    assert np.isnan(r["singular"][1]).all()


def test_an_observable_that_never_works_is_an_error(observable):
    observable("broken", lambda cells: cells.params["no such"])
    with pytest.raises(KeyError):
        run(**{"record.observables": ("broken:2",)})


def test_figures_and_tables_of_diverged_cells(tmp_path):
    axes = {"lr": [1e-2, 1e39], "weight_decay": [0.0, 1e39], "record.observables": ("norms:2",)}
    grid = gf.preset("addition-classification").grid(stop="never", steps=12, width=8, **axes)
    out = tmp_path / "a.h5"
    gf.run(grid, out=out, engine="reference", device="cpu", threads=1, progress=False)
    for kind in ("phases", "smooth", "curves"):
        made = main(["plot", str(out), f"--kind={kind}", f"--out={tmp_path / kind}.png"])
        assert made in (0, 2), kind  # 2: a line that says why there is nothing to draw
    assert main(["export", str(out), f"--out={tmp_path / 'a.json'}"]) == 0
    assert main(["info", str(out)]) == 0
    assert main(["agree", str(out), str(out)]) == 0


def test_a_cell_of_an_axis_with_none_is_named(tmp_path, capfd):
    path = "optimizer.encoder_weight_decay"
    r = run(lr=[1e-2, 3e-2], **{path: [None, 1e-3, 0.1]})
    for value in (None, "none", "None"):
        assert r.find(lr=1e-2, **{path: value}) == 0
    assert r.find(lr=3e-2, **{path: 0.09}) == 5
    r.save(tmp_path / "a.h5")
    cells = f"--cell=lr:0.01,{path}:none;lr:0.03,{path}:0.1"
    out = f"--out={tmp_path / 'a.png'}"
    assert main(["plot", str(tmp_path / "a.h5"), "--kind=curves", cells, out]) == 0
    assert (
        main(["plot", str(tmp_path / "a.h5"), "--kind=curves", f"--cell=lr:0.01,{path}:7000", out])
        == 2
    )
    assert "is beyond the run's 0.001 to 0.1" in capfd.readouterr().err
    all_none = run(lr=[1e-2, 3e-2], **{path: [None]})
    with pytest.raises(gf.UsageError, match="it is none in all of them"):
        all_none.find(lr=1e-2, **{path: 1.0})
