"""What an observable tells of itself without data or torch, and what it measures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.bucketing import make_buckets
from grokfast.experiment import Experiment
from grokfast.models import Mlp, Model, Shape, Transformer
from grokfast.models.attention import attention
from grokfast.models.chain import Chain
from grokfast.observables import OBSERVABLES
from grokfast.observing import Observer
from grokfast.presets import preset
from grokfast.state import State
from grokfast.tasks import Algorithmic

MODELS = {
    "dense": Mlp(depth=3),
    "no biases": Mlp(depth=2, bias=False),
    "one layer": Mlp(depth=1),
    "embedding": Mlp(embedding_dim=4, depth=4, dropout=0.5),
    "one-hot": Mlp(one_hot=True, bias=False, depth=2, parametrization="mean-field"),
    "batch": Mlp(one_hot=True, bias=False, depth=3, norm="batch"),
    "layer": Mlp(depth=3, norm="layer"),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_norms_are_named_as_the_parameters_of_the_module(model):
    tokens = model.one_hot or model.embedding_dim
    shape = Shape(inputs=2, outputs=3, vocabulary=5 if tokens else 0)
    names = [name for name, _ in Chain(model.layers(shape)).named_parameters()]
    experiment = Experiment(task=preset("modular-addition").experiment.task, model=model)
    assert list(OBSERVABLES["norms"].entries(experiment)) == names


def test_a_model_that_is_no_chain_has_no_names():
    experiment = Experiment(task=preset("modular-addition").experiment.task, model=Model())
    assert OBSERVABLES["norms"].entries(experiment) == ()


TRANSFORMERS = {
    "tied": Transformer(width=8, heads=2, feedforward=8),
    "pre": Transformer(width=8, heads=4, feedforward=8, norm="pre", tied=False, depth=1),
    "bare": Transformer(width=8, heads=2, feedforward=8, norm="none", bias=False, depth=3),
    "own positions": Transformer(width=8, heads=2, feedforward=8, positions="learned"),
}


def snapshot(experiment):
    """Initial models, one for each seed, and what the observer says of them."""
    cells = [experiment.replace(model_seed=seed) for seed in (0, 1, 2)]
    (bucket,) = make_buckets(cells, [0, 1, 2])
    state = State.initial(bucket)
    return Observer(bucket)._snapshot(state.params, state.buffers, [0, 1, 2])


def transformer(model, **fields):
    task = Algorithmic(operation="x+y", p=5, fraction=0.5)
    return Experiment(task=task, model=model).replace(**fields)


@pytest.mark.parametrize("model", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_a_transformer_names_its_parameters_and_layers(model):
    shape = Shape(inputs=4, outputs=7, vocabulary=7)
    names = [name for name, _ in model.build(shape).named_parameters()]
    assert list(model.parameter_names(shape)) == names
    experiment = transformer(model)
    assert list(OBSERVABLES["norms"].entries(experiment)) == names
    layers = OBSERVABLES["layer_norms"].entries(experiment)
    assert set(layers) <= {
        "embedding",
        "positions",
        "layers.0",
        "layers.1",
        "layers.2",
        "norm",
        "head",
    }
    assert len(layers) == len(set(layers))
    cells = snapshot(experiment)
    norms, together = (OBSERVABLES[name].compute(cells) for name in ("norms", "layer_norms"))
    assert together.shape == (3, len(layers))
    for k, layer in enumerate(layers):
        own = [j for j, name in enumerate(names) if name.startswith(f"{layer}.")]
        torch.testing.assert_close(together[:, k], norms[:, own].square().sum(1).sqrt())


@pytest.mark.parametrize("model", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_attention_is_that_of_torch(model):
    cells = snapshot(transformer(model, init_scale=2.0))
    net, tokens = cells.module(1), cells.samples(1).x_val
    wanted = []

    def keep(head, given, _):
        x = given[0]
        later = torch.ones(4, 4, dtype=torch.bool).triu(1)
        hook.remove()  # this very call would be kept, too
        _, weights = head(x, x, x, attn_mask=later, average_attn_weights=False)
        wanted.append(weights)

    for block in net.layers:
        hook = block.self_attn.register_forward_hook(keep)
        with torch.no_grad():
            net(tokens)
    found = attention(net, tokens)
    assert found.shape == (model.depth, len(tokens), model.heads, 4, 4)
    torch.testing.assert_close(found, torch.stack(wanted))
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))
    assert (found.triu(1) == 0).all(), "no position sees a later one"


def test_entropy_and_similarity_of_heads():
    cells = snapshot(transformer(TRANSFORMERS["pre"], init_scale=3.0))
    for part in ("", "_train"):
        entropy = OBSERVABLES[f"attention_entropy{part}"].compute(cells)
        alike = OBSERVABLES[f"head_similarity{part}"].compute(cells)
        for k in range(3):
            samples = cells.samples(k)
            inputs = samples.x_train if part else torch.cat([samples.x_train, samples.x_val])
            last = attention(cells.module(k), inputs)[0, :, :, -1].double().numpy()  # [B, 4, 4]
            np.testing.assert_allclose(entropy[k], -(last * np.log(last)).sum(2).mean(0))
            pairs = [(a, b) for a in range(4) for b in range(4) if a < b]
            unit = last / np.linalg.norm(last, axis=2, keepdims=True)
            cosines = [(unit[:, a] * unit[:, b]).sum(1).mean() for a, b in pairs]
            np.testing.assert_allclose(alike[k], [np.mean(cosines)])
    assert (entropy > 0).all()
    assert (entropy < np.log(4)).all()
    assert OBSERVABLES["attention_entropy"].entries(cells.experiment) == tuple(
        f"layer 0, head {h}" for h in range(4)
    )
    one = snapshot(transformer(replace(TRANSFORMERS["tied"], heads=1)))
    assert OBSERVABLES["head_similarity"].compute(one).isnan().all()


def test_output_rows_are_the_head_or_what_it_is_tied_to():
    for name, experiment in (
        ("embedding.weight", transformer(TRANSFORMERS["tied"])),
        ("head.weight", transformer(TRANSFORMERS["pre"])),
        ("layers.0.weight", preset("modular-addition").grid(width=6).experiment),
        ("layers.2.weight", preset("addition-classification").grid(width=6).experiment),
    ):
        cells = snapshot(experiment)
        rows = OBSERVABLES["output_rows"].compute(cells)
        torch.testing.assert_close(rows, cells.params[name][:, : cells.shape.outputs])


def test_embeddings_of_a_transformer_are_recorded_with_the_positions():
    experiment = transformer(
        TRANSFORMERS["tied"], steps=4, **{"record.embeddings": 2, "evaluation.train": "after"}
    )
    grid = gf.Grid(experiment=experiment.replace(**{"record.observables": ("output_rows:4",)}))
    r = gf.run(grid, engine="reference", device="cpu", progress=False)
    assert r["embeddings"].shape == (1, 3, 5 + 2 + 4, 8)
    np.testing.assert_array_equal(r["output_rows"][0, 1], r["embeddings"][0, 2, :7])
    assert np.isfinite(r["embeddings"]).all()


@pytest.mark.parametrize("name", ["attention_entropy", "head_similarity_train"])
def test_attention_of_a_net_without_any(name):
    grid = preset("modular-addition").grid(width=6, **{"record.observables": (name,)})
    with pytest.raises(gf.UsageError, match=f"{name}: this experiment has no attention"):
        gf.run(grid, engine="reference", device="cpu", progress=False)


def test_a_snapshot_of_parameters_alone_has_no_network():
    cells = snapshot(transformer(TRANSFORMERS["tied"]))
    bare = type(cells)(cells.params, cells.experiment, cells.tasks)
    with pytest.raises(gf.UsageError, match="parameters alone"):
        bare.module(0)
