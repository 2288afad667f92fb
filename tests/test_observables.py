"""What an observable tells of itself without data or torch."""

import pytest

from grokfast.experiment import Experiment
from grokfast.models import Mlp, Model, Shape
from grokfast.models.chain import Chain
from grokfast.observables import OBSERVABLES
from grokfast.presets import preset

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
