"""The modular data sets are those of the authors' code, draw for draw; operations are read safely.

Numbers without another source are those of ``noisy_dataset`` in github.com/d-doshi/Grokking.
"""

import hashlib
import random

import numpy as np
import pytest
import torch

import grokfast as gf
from grokfast.spacing import linspace
from grokfast.tasks import Modular
from grokfast.tasks.modular import evaluate

TRAIN_SIZES = [
    940, 1411, 1881, 2352, 2822, 3293, 3763, 4234, 4704, 5174, 5645, 6115, 6586, 7056, 7527, 7997,
    8468,
]  # fmt: skip


def pairs(x, p=97):
    return [(m, n - p) for m, n in x.tolist()]


def initial_weights(state, seed=None):
    """As the authors draw them: default values that are thrown away, then normal ones."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        if seed is not None:
            torch.manual_seed(seed)
        layers = [torch.nn.Linear(194, 500, bias=False), torch.nn.Linear(500, 97, bias=False)]
        for layer in layers:
            torch.nn.init.normal_(layer.weight, 0, (16 * 500) ** (-1 / 3))
    return [layer.weight.detach() for layer in layers]  # [500, 194], [97, 500]


def test_all_pairs_are_split_and_labelled_as_published():
    d = Modular().build()
    assert (d.x_train.shape, d.x_val.shape) == ((4704, 2), (4705, 2))
    assert pairs(d.x_train[:5]) == [(22, 70), (41, 62), (72, 43), (72, 83), (36, 0)]
    assert d.y_train[:5].tolist() == [92, 6, 18, 58, 36]
    everything = pairs(d.x_train) + pairs(d.x_val)
    assert sorted(everything) == [(m, n) for m in range(97) for n in range(97)]
    labels = torch.cat([d.y_train, d.y_val]).tolist()
    assert labels == [(m + n) % 97 for m, n in everything]
    assert (d.num_classes, d.vocabulary) == (97, 194)
    assert torch.equal(d.targets, torch.eye(97))
    assert not d.corrupted.any()
    assert {t.dtype for t in (d.x_train, d.y_train, d.x_val, d.y_val)} == {torch.int64}


def test_corrupted_labels_are_the_published_draws():
    task = Modular(corruption=0.35)
    d = task.build()
    assert task.corrupted_rows() == d.corrupted.sum() == 1646
    assert d.corrupted[:1646].all()
    assert d.y_train[:5].tolist() == [57, 82, 25, 87, 55]
    assert torch.equal(d.y_clean, Modular().build().y_train)
    right = d.y_train == d.y_clean
    assert int(right[:1646].sum()) == 17
    assert int(right.sum()) == 3075  # of 4704: what a perfect predictor of clean labels can reach
    assert torch.equal(d.y_val, Modular().build().y_val)


def test_train_sizes_over_the_published_fractions_in_either_rounding():
    for fractions in (np.linspace(0.1, 0.9, 17).tolist(), linspace("0.1", "0.9", 17)):
        assert [Modular(fraction=f).train_rows() for f in fractions] == TRAIN_SIZES


def test_numbers_of_corrupted_labels_do_not_depend_on_the_rounding_of_the_grid():
    """NumPy's 0.30000000000000004 and the nearest double to 0.3 make one data set."""
    for low, count in ((0.1, 17), (0, 19)):
        theirs, ours = np.linspace(low, 0.9, count).tolist(), linspace(str(low), "0.9", count)
        for n in TRAIN_SIZES:
            assert [int(c * n) for c in theirs] == [int(c * n) for c in ours]


def test_larger_fractions_and_corruptions_extend_the_same_sets():
    small, large = (Modular(fraction=f, corruption=c).build() for f, c in ((0.3, 0.2), (0.8, 0.45)))
    n, redrawn = len(small.x_train), int(small.corrupted.sum())
    assert torch.equal(small.x_train, large.x_train[:n])
    assert torch.equal(small.y_train[:redrawn], large.y_train[:redrawn])
    assert large.corrupted[:redrawn].all()


@pytest.mark.parametrize(
    ("seed", "first"),
    [(None, [0.0277564, -0.0164708, -0.0015733]), (1, [0.0058729, -0.0088654, -0.0181020])],
)
def test_published_initial_weights_go_on_from_the_generator(seed, first):
    d = Modular().build()
    found = initial_weights(d.generator, seed)[0][0, :3].tolist()
    assert found == pytest.approx(first, abs=0.5e-7)  # seven decimals are published


@pytest.mark.parametrize(("corruption", "loss"), [(0.0, 0.0104021514), (0.35, 0.0104137408)])
def test_published_first_losses_follow_from_data_and_generator(corruption, loss):
    """The authors' notebook: mean squared error of the initial net W (U m + V n)^2."""
    d = Modular(corruption=corruption).build()
    w_in, w_out = initial_weights(d.generator)
    hidden = w_in.T[d.x_train].sum(1) ** 2  # [N, 500]
    found = (hidden @ w_out.T - d.targets[d.y_train]).square().mean().item()
    assert found == pytest.approx(loss, rel=1e-6)  # the order of a float32 sum may differ


def test_the_generator_is_the_state_behind_the_last_label():
    d = Modular(corruption=0.35, corruption_seed=3).build()
    following = torch.Generator()
    following.set_state(d.generator)
    all_at_once = torch.randint(0, 97, (1647,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(d.y_train[:1646], all_at_once[:1646])
    assert torch.randint(0, 97, (1,), generator=following) == all_at_once[1646]


def test_the_global_generators_are_left_alone():
    torch_before, python_before = torch.get_rng_state(), random.getstate()
    Modular(corruption=0.5).build()
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert random.getstate() == python_before


def test_equal_fields_make_equal_data_and_every_field_counts():
    def digest(**fields):
        d = Modular(**{"p": 12, "corruption": 0.5, **fields}).build()
        parts = (d.x_train, d.y_train, d.x_val, d.y_val, d.generator)
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in parts)).hexdigest()

    changed = [
        {}, {"p": 13}, {"operation": "multiplication"}, {"fraction": 0.6}, {"corruption": 0.6},
        {"corruption_seed": 1}, {"seed": 1},
    ]  # fmt: skip
    assert digest() == digest()
    assert len({digest(**fields) for fields in changed}) == len(changed)


@pytest.mark.parametrize("p", [2, 6, 23, 97, 1000])
@pytest.mark.parametrize(
    ("operation", "exact"),
    [
        ("addition", lambda a, b: a + b),
        ("multiplication", lambda a, b: a * b),
        ("(4*a + b**2)**3", lambda a, b: (4 * a + b**2) ** 3),
        ("(5*a^3 + 2*b^4)^2", lambda a, b: (5 * a**3 + 2 * b**4) ** 2),
        ("a**3 + a*b**2 + b", lambda a, b: a**3 + a * b**2 + b),
        ("-a**2 - -7*b", lambda a, b: -(a**2) + 7 * b),
        (" a**0 + 10**20 ", lambda a, b: 1 + 10**20),
        ("a**300", lambda a, b: a**300),
    ],
)  # fmt: skip
def test_operations_are_exact_in_integers_arrays_and_tensors(operation, exact, p):
    generator = random.Random(p)
    some = [(generator.randrange(p), generator.randrange(p)) for _ in range(50)]
    expected = [exact(a, b) % p for a, b in some]
    assert [evaluate(operation, a, b, p) for a, b in some] == expected
    a, b = np.array(some).T
    assert evaluate(operation, a, b, p).tolist() == expected
    assert evaluate(operation, torch.tensor(a), torch.tensor(b), p).tolist() == expected


def test_a_polynomial_labels_the_pairs():
    d = Modular(p=23, operation="(4*a + b**2)**3").build()
    assert d.y_train.tolist() == [(4 * m + n**2) ** 3 % 23 for m, n in pairs(d.x_train, 23)]


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        ("additon", "'additon' is neither a nor b"),
        ("a + c", "'c' is neither a nor b"),
        ("2a + b", "it cannot be read"),
        ("a +", "it cannot be read"),
        ("", "it cannot be read"),
        ("a; b", "it cannot be read"),
        ("a\0", "it cannot be read"),
        ("(" * 500 + "a" + ")" * 500, "it cannot be read"),
        ("+".join(["a"] * 5000), ""),  # its reason depends on the version of Python
        ("a / b", "'a / b' is no integer, sum, difference, product or power"),
        ("a + 1.5", "'1.5' is no integer"),
        ("True + a", "'True' is no integer"),
        ("a if a else b", "is no integer"),
        ("__import__('os').getcwd()", "is no integer"),
        ("a**-1", "the exponent '-1' is not 0, 1, 2, ..."),
        ("a**b", "the exponent 'b' is not"),
        ("a**2.0", "the exponent '2.0' is not"),
    ],
)
def test_what_is_no_operation_is_named_with_what_would_be_one(operation, says):
    with pytest.raises(ValueError) as error:
        Modular(operation=operation)
    told = str(error.value)
    assert told.startswith(f"task.operation is {operation!r}: ")
    assert says in told
    assert told.endswith("give addition, multiplication or a polynomial in a and b such as "
                         "(4*a + b**2)**3")  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"p": 1}, "task.p is 1; give 2 to 1000"),
        ({"p": 1001}, "task.p is 1001; give 2 to 1000"),
        ({"fraction": 0.0}, "task.fraction is 0.0; give less than 1, and at least 1/9409"),
        ({"fraction": 1.0}, "task.fraction is 1.0; give less than 1"),
        ({"fraction": 1e-4}, "task.fraction is 0.0001; give less than 1, and at least 1/9409"),
        ({"fraction": float("nan")}, "task.fraction is nan"),
        ({"fraction": float("inf")}, "task.fraction is inf"),
        ({"corruption": -0.1}, "task.corruption is -0.1; give 0 to 1"),
        ({"corruption": 1.1}, "task.corruption is 1.1; give 0 to 1"),
        ({"corruption": float("nan")}, "task.corruption is nan"),
        ({"corruption_seed": -1}, r"task.corruption_seed is -1; give a finite value of 0 or more"),
        ({"corruption_seed": 2**32}, "task.corruption_seed is 4294967296"),
        ({"seed": -1}, "task.seed is -1"),
        ({"seed": 2**32}, "task.seed is 4294967296"),
    ],
)
def test_impossible_fields_are_named_with_what_would_do(fields, says):
    with pytest.raises(ValueError, match=says):
        Modular(**fields)


@pytest.mark.parametrize("fraction", [1 / 9409, float(np.nextafter(1, 0))])
def test_the_extreme_fractions_leave_one_sample_on_the_smaller_side(fraction):
    d = Modular(fraction=fraction, corruption=1.0).build()
    assert min(len(d.x_train), len(d.x_val)) == 1
    assert d.corrupted.all()


def test_an_experiment_takes_its_fields_as_text_and_round_trips():
    e = gf.Experiment(task=Modular(), model=gf.Mlp(embedding_dim=500))
    changed = e.replace(**{"task.operation": "a*b + 1", "task.corruption": 1})
    assert changed.task == Modular(operation="a*b + 1", corruption=1.0)
    assert gf.Experiment.from_json(changed.to_json()) == changed
    with pytest.raises(gf.UsageError, match="task.operation is 'a/b'"):
        e.replace(**{"task.operation": "a/b"})
    with pytest.raises(gf.UsageError, match="task.operation is 3; give a value of type str"):
        gf.Experiment(task=Modular(operation=3))
