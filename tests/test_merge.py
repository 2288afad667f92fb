"""Joining shards, on synthetic results of several buckets."""

import itertools
import re
import warnings

import h5py
import numpy as np
import pytest

import grokfast as gf
from grokfast.machines import machines
from grokfast.merge import merge
from grokfast.results import OK, RUNNING, Results, hyperparameter_columns


def make_grid(**changes):
    options = {"lr": [1e-4, 1e-3, 1e-2], "weight_decay": [0.0, 5.0], "width": [8, 16]}
    return gf.preset("addition-classification").grid(**(options | changes))


def made(grid, runs):
    """Results of some cells, each value a function of the cell: merging must put it back there.

    Curves of odd cells have a step more, so that shards may differ in their step axis.
    """
    runs = np.array(sorted(runs), np.int64)
    step = np.array([1, 10, 100] if (runs % 2).any() else [1, 100])
    curve = runs[:, None] * 1000.0 + step
    curve[(runs % 2 == 0)[:, None] & (step == 10)] = np.nan
    columns = {
        **hyperparameter_columns(grid, runs.tolist()),
        "status": np.full(len(runs), OK, np.uint8),
        "t_train": runs + 10,
        "t_val": runs + 20,
        "steps_done": runs + 20,
        "phase": np.zeros(len(runs), np.int8),
    }
    variables = {"run": (("run",), runs), "step": (("step",), step)}
    variables |= {name: (("run",), values) for name, values in columns.items()}
    variables["train_loss"] = (("run", "step"), curve.astype(np.float32))
    weights = []
    for width in dict.fromkeys(grid.cells[i].model.width for i in runs):
        inside = [i for i in runs if grid.cells[i].model.width == width]
        values = np.array(inside, np.float32)[:, None, None] * np.ones((width, 1), np.float32)
        weights.append({"run": np.array(inside, np.int64), "layers.0.weight": values})
    digests = '["aa", "bb"]' if len(weights) == 2 else '["aa"]'
    provenance = {"engine": "native", "wall_seconds": 1.5, "data_sha256": digests, "device": "cpu"}
    provenance |= {"device_name": "AMD EPYC", "engine_detail": "level avx2"}
    return Results(
        grid=grid, variables=variables, weights=weights, provenance=provenance, complete=True
    )


@pytest.fixture
def shards(tmp_path):
    def save(grid, parts):
        paths = []
        for k, runs in enumerate(parts):
            paths.append(tmp_path / f"s{k}.h5")
            made(grid, runs).save(paths[-1])
        return paths

    return save


def test_a_damaged_shard_leaves_what_was_there(shards, tmp_path):
    paths, out = shards(make_grid(), [range(6), range(6, 12)]), tmp_path / "m.h5"
    merge(paths, out)
    before = out.read_bytes()
    with h5py.File(paths[1], "a") as file:
        del file["t_val"]
    damaged = "s1.h5 is damaged: it holds no variable 't_val'"
    with pytest.raises(gf.errors.Damaged, match=damaged):
        merge(paths, out, overwrite=True)
    with h5py.File(paths[1], "a") as file:
        file["t_val"] = np.zeros(5, np.int64)
    with pytest.raises(gf.errors.Damaged, match=r"s1.h5 is damaged"):
        merge(paths, out, overwrite=True)
    assert out.read_bytes() == before


def test_the_whole_is_as_if_run_in_one_piece(shards, tmp_path):
    grid = make_grid()
    whole = made(grid, range(12))
    merge(shards(grid, [range(2, 12, 3), range(0, 12, 3), range(1, 12, 3)]), tmp_path / "m.h5")
    merged = gf.Results.load(tmp_path / "m.h5")
    assert merged.complete
    assert merged.grid == grid
    assert set(merged.variables) == set(whole.variables)
    for name in whole.variables:
        assert merged[name].dtype == whole[name].dtype, name
        assert merged[name].tobytes() == whole[name].tobytes(), name
    assert len(merged.weights) == len(whole.weights) == 2
    for ours, theirs in zip(merged.weights, whole.weights, strict=True):
        for name in ours | theirs:
            assert ours[name].tobytes() == theirs[name].tobytes(), name


def test_shards_with_other_steps_have_the_union(shards, tmp_path):
    grid = make_grid()
    merged = merge(shards(grid, [range(0, 12, 2), range(1, 12, 2)]), tmp_path / "m.h5")
    assert merged["step"].tolist() == [1, 10, 100]
    assert np.isnan(merged["train_loss"][::2, 1]).all()
    assert merged["train_loss"][1, 1] == 1010


def test_provenance_is_joined(shards, tmp_path):
    grid = make_grid()
    merge(shards(grid, [range(0, 12, 2), range(1, 12, 2)]), tmp_path / "m.h5")
    provenance = gf.Results.load(tmp_path / "m.h5").provenance
    assert provenance["engine"] == "native"
    assert provenance["wall_seconds"] == 3.0
    assert provenance["merged_from"] == 2
    assert '"wall_seconds": 1.5' in provenance["shard_2"]


def test_provenance_of_many_shards_fits_into_a_file(tmp_path):
    grid = make_grid()
    for i in range(12):
        part = made(grid, [i])
        part.provenance["device_name"] = f"{i}" * 10_000  # HDF5 takes 64 kB an attribute
        part.save(tmp_path / f"s{i}.h5")
    merged = merge(tmp_path.glob("s*.h5"), tmp_path / "m.h5")
    assert len(merged) == 12


def machine(host, **changes):
    kind = {"engine": "native", "device": "cpu", "device_name": "AMD EPYC"}
    return [kind | {"engine_detail": "level avx2, draws a"} | changes | {"hosts": [host]}]


def test_machines_that_took_part_are_listed(tmp_path):
    grid = make_grid()
    of = [machine("a"), machine("b", device_name="AMD EPYC 9"), machine("c"), machine("a")]
    for i, own in enumerate(of):
        part = made(grid, range(i, 12, 4))
        part.provenance["machines"] = own
        part.save(tmp_path / f"s{i}.h5")
    merged = merge([tmp_path / f"s{i}.h5" for i in range(4)], tmp_path / "m.h5")
    first, second = machines(gf.Results.load(tmp_path / "m.h5").provenance)
    assert (first["hosts"], second["hosts"]) == (["a", "c"], ["b"])
    assert (first["device_name"], second["device_name"]) == ("AMD EPYC", "AMD EPYC 9")
    assert machines(merged.provenance) == [first, second]
    del merged.provenance["machines"]  # as where it would be too long
    assert machines(merged.provenance) == [first, second]


def test_machines_of_older_files_have_no_names(shards, tmp_path):
    merged = merge(shards(make_grid(), [range(6), range(6, 12)]), tmp_path / "m.h5")
    (kind,) = machines(merged.provenance)
    assert (kind["device_name"], kind["hosts"]) == ("AMD EPYC", [])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"engine_detail": "level avx512, draws a"}, r"\(level avx2 and avx512\)"),
        (
            {"engine_detail": "level baseline, draws b"},
            r"\(level avx2 and baseline, draws a and b\)",
        ),
        ({"engine": "compiled", "engine_detail": "isa AVX2"}, r"\(engine native and compiled\)"),
        ({"device": "cuda:1"}, r"\(device cpu and cuda\)"),
        ({"device_name": "another"}, None),
        ({"engine_detail": "level avx2"}, None),  # an older file tells less
    ],
)
def test_shards_of_other_bits_are_told_of(changes, says, tmp_path):
    for i, own in enumerate([machine("a"), machine("b", **changes)]):
        part = made(make_grid(), range(i, 12, 2))
        part.provenance["machines"] = own
        part.save(tmp_path / f"s{i}.h5")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        merge([tmp_path / "s0.h5", tmp_path / "s1.h5"], tmp_path / "m.h5")
    assert len(caught) == (says is not None)
    for warning in caught:
        assert re.search(rf"bits {says}: no run can go on with .*m.h5;", str(warning.message))


def test_merging_in_any_order_and_again_gives_the_same(shards, tmp_path):
    paths = shards(make_grid(), [range(i, 12, 3) for i in range(3)])
    out = tmp_path / "m.h5"
    first = merge(paths, out)
    for order in itertools.permutations(paths):
        merge(order, out, overwrite=True)
        again = gf.Results.load(out)
        assert again.grid == first.grid
        for name in first.variables:
            assert again[name].tobytes() == first[name].tobytes(), name
        assert machines(again.provenance) == machines(first.provenance)


def test_a_merged_file_is_no_shard_of_its_own_parts(shards, tmp_path):
    paths = shards(make_grid(), [range(6), range(6, 12)])
    merge(paths, tmp_path / "m.h5")
    with pytest.raises(gf.UsageError, match=r"cell 0 .* is in both .*m\.h5 and .*s0\.h5"):
        merge([tmp_path / "m.h5", paths[0]], tmp_path / "n.h5")
    alone = merge([tmp_path / "m.h5"], tmp_path / "n.h5")
    assert alone.complete and len(alone) == 12


def test_a_missing_cell_is_named(shards, tmp_path):
    paths = shards(make_grid(), [range(6), range(7, 12)])
    with pytest.raises(gf.UsageError, match=r"1 of 12 cells are missing: cell 6 \(lr=0.001, "):
        merge(paths, tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_only_the_first_few_missing_cells_are_named(shards, tmp_path):
    with pytest.raises(gf.UsageError, match=r"11 of 12 .*; \.\.\.$"):
        merge(shards(make_grid(), [[0]]), tmp_path / "m.h5")


def test_a_cell_in_two_shards_is_refused(shards, tmp_path):
    paths = shards(make_grid(), [range(7), range(6, 12)])
    with pytest.raises(gf.UsageError, match=r"cell 6 .* is in both .*s0.h5 and .*s1.h5"):
        merge(paths, tmp_path / "m.h5")


def test_the_same_file_twice_is_refused(shards, tmp_path):
    paths = shards(make_grid(), [range(12)])
    with pytest.raises(gf.UsageError, match="given twice"):
        merge([*paths, *paths], tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 50}, "steps: 100000 -> 50"),
        ({"lr": [1e-4, 1e-3, 2e-2]}, r"lr: 0.01 -> 0.02 \(2 more the same\)"),
        ({"task.p": 12}, "task.p: 10 -> 12"),
    ],
)
def test_shards_of_other_runs_are_refused_with_the_difference(changes, says, shards, tmp_path):
    paths = shards(make_grid(), [range(6)])
    made(make_grid(**changes), range(6, 12)).save(tmp_path / "other.h5")
    with pytest.raises(gf.UsageError, match=f"different runs: {says}"):
        merge([*paths, tmp_path / "other.h5"], tmp_path / "m.h5")


def test_the_order_of_axes_matters(shards, tmp_path):
    paths = shards(make_grid(), [range(6)])
    grid = make_grid()
    turned = gf.Grid(
        experiment=grid.experiment,
        axes=dict(reversed(grid.axes.items())),
        name=grid.name,
    )
    made(turned, range(6, 12)).save(tmp_path / "turned.h5")
    with pytest.raises(gf.UsageError, match="order of the axes"):
        merge([*paths, tmp_path / "turned.h5"], tmp_path / "m.h5")


def test_an_unfinished_shard_is_refused(tmp_path):
    part = made(make_grid(), range(12))
    part["status"][3] = RUNNING
    part.complete = False
    part.save(tmp_path / "s.h5")
    with pytest.raises(gf.UsageError, match="not finished: 1 of its 12 cells"):
        merge([tmp_path / "s.h5"], tmp_path / "m.h5")


def test_an_existing_file_is_not_overwritten_unasked(shards, tmp_path):
    paths, out = shards(make_grid(), [range(12)]), tmp_path / "m.h5"
    out.write_text("mine")
    with pytest.raises(gf.UsageError, match="exists"):
        merge(paths, out)
    assert out.read_text() == "mine"
    merge(paths, out, overwrite=True)
    assert len(gf.Results.load(out)) == 12
    assert not list(tmp_path.glob(".*")) + list(tmp_path.glob("*.lock"))


def test_a_shard_is_never_its_own_output(shards, tmp_path):
    paths = shards(make_grid(), [range(12)])
    before = paths[0].read_bytes()
    with pytest.raises(gf.UsageError, match="itself one of the shards"):
        merge(paths, paths[0], overwrite=True)
    assert paths[0].read_bytes() == before


def test_a_checkpoint_is_no_shard(tmp_path):
    with pytest.raises(gf.UsageError, match=r"checkpoint; name .*s.h5"):
        merge([tmp_path / "s.h5.ckpt"], tmp_path / "m.h5")
