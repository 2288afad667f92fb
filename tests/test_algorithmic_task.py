"""Equations of all operations against brute force, published fingerprints, split, outliers."""

import hashlib
import itertools

import pytest
import torch

import grokfast as gf
from grokfast.tasks import Algorithmic
from grokfast.tasks.operations import OPERATIONS

#: Written out once more, in plain Python, of what the paper lists (A.1.1).
MODULAR = {
    "x+y": lambda x, y, p: (x + y) % p,
    "x-y": lambda x, y, p: (x - y) % p,
    "x*y": lambda x, y, p: x * y % p,
    "x/y": lambda x, y, p: over(x, y, p),
    "x/y-or-x-y": lambda x, y, p: over(x, y, p) if y % 2 else (x - y) % p,
    "x^2+y^2": lambda x, y, p: (x * x + y * y) % p,
    "x^2+xy+y^2": lambda x, y, p: (x * x + x * y + y * y) % p,
    "x^2+xy+y^2+x": lambda x, y, p: (x * x + x * y + y * y + x) % p,
    "x^3+xy": lambda x, y, p: (x * x * x + x * y) % p,
    "x^3+xy^2+y": lambda x, y, p: (x * x * x + x * y * y + y) % p,
}
S5 = list(itertools.permutations(range(5)))
NUMBER = {g: k for k, g in enumerate(S5)}


def over(x, y, p):
    """The z with y z = x, found by trying."""
    (z,) = (z for z in range(p) if y * z % p == x)
    return z


def after(g, h):
    """First h, then g."""
    return tuple(g[h[i]] for i in range(5))


def inverse(g):
    return tuple(g.index(i) for i in range(5))


PERMUTATIONS = {
    ("x.y", "quotient"): lambda x, y: after(inverse(y), x),
    ("x.y", "x-then-y"): lambda x, y: after(y, x),
    ("x.y", "x-after-y"): lambda x, y: after(x, y),
    ("x.y.x^-1", "x-then-y"): lambda x, y: after(inverse(x), after(y, x)),
    ("x.y.x^-1", "x-after-y"): lambda x, y: after(x, after(y, inverse(x))),
    ("x.y.x", "x-then-y"): lambda x, y: after(x, after(y, x)),
    ("x.y.x", "x-after-y"): lambda x, y: after(x, after(y, x)),
}


def equations(task):
    """(x, y) -> z of the whole data set; the layout of its tokens is looked at."""
    d = task.build()
    symbols = d.num_classes - 2
    found = {}
    for x, y in ((d.x_train, d.y_train), (d.x_val, d.y_val)):
        assert x.dtype == y.dtype == torch.int64
        assert (x[:, 1] == symbols).all()
        assert (x[:, 3] == symbols + 1).all()
        found |= {(a, b): z for (a, _, b, _), z in zip(x.tolist(), y.tolist(), strict=True)}
    assert len(found) == len(d.x_train) + len(d.x_val)
    assert d.vocabulary == d.num_classes
    return found


def test_every_operation_is_looked_at():
    assert set(OPERATIONS) == {*MODULAR, *(name for name, _ in PERMUTATIONS)}
    assert len(OPERATIONS) == 12 + 1


@pytest.mark.parametrize("operation", MODULAR)
@pytest.mark.parametrize("p", [7, 97])
def test_modular_operations_are_those_of_the_paper(operation, p):
    pairs = itertools.product(range(p), range(1 if operation == "x/y" else 0, p))
    right = {(x, y): MODULAR[operation](x, y, p) for x, y in pairs}
    assert equations(Algorithmic(operation=operation, p=p)) == right
    assert len(right) == (p * (p - 1) if operation == "x/y" else p * p)


@pytest.mark.parametrize(("operation", "convention"), PERMUTATIONS, ids=str)
@pytest.mark.parametrize("identity", [True, False])
def test_operations_of_permutations_are_those_of_the_conventions(operation, convention, identity):
    right = {
        (NUMBER[x], NUMBER[y]): NUMBER[PERMUTATIONS[operation, convention](x, y)]
        for x, y in itertools.product(S5, S5[0 if identity else 1 :])
    }
    task = Algorithmic(operation=operation, convention=convention, identity=identity)
    assert equations(task) == right
    assert len(right) == (14_400 if identity else 14_280)


def test_sums_take_any_modulus():
    assert equations(Algorithmic(operation="x-y", p=96))[3, 5] == 94
    assert Algorithmic(operation="x+y").build().num_classes == 97 + 2


@pytest.mark.parametrize(
    ("operation", "digest"), [("x/y", "89d3be1e35c19d20"), ("x.y", "f4771341ac7ec1bb")]
)
def test_the_tables_of_the_reproduction_have_their_fingerprints(operation, digest):
    found = sorted(equations(Algorithmic(operation=operation)).items())
    text = ",".join(f"{x}:{y}:{z}" for (x, y), z in found)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_division_and_s5_are_split_as_in_the_reproduction():
    d = Algorithmic().build()
    assert (d.x_train.shape, d.x_val.shape, d.num_classes) == ((2793, 4), (6519, 4), 99)
    table = equations(Algorithmic())
    some = {(1, 2): 49, (1, 3): 65, (1, 4): 73, (3, 5): 20, (96, 2): 48}
    assert {pair: table[pair] for pair in some} == some
    d = Algorithmic(operation="x.y", fraction=0.5).build()
    assert (d.x_train.shape, d.x_val.shape, d.num_classes) == ((7140, 4), (7140, 4), 122)
    assert (d.corrupted, d.y_clean, d.targets) == (None, None, None)


def test_the_split_is_a_permutation_that_the_seed_draws_and_a_larger_fraction_extends():
    small, large = (Algorithmic(p=11, fraction=f).build() for f in (0.3, 0.6))
    n = len(small.x_train)
    assert torch.equal(large.x_train[:n], small.x_train)
    assert torch.equal(large.y_train[:n], small.y_train)
    again, other = (Algorithmic(p=11, seed=seed).build() for seed in (0, 1))
    assert torch.equal(again.x_train, small.x_train)
    assert not torch.equal(other.x_train, small.x_train)
    # Neither x nor y is in order: of 33 draws from 110 at random all are increasing never.
    assert (small.x_train[1:, 0] < small.x_train[:-1, 0]).any()


@pytest.mark.parametrize(
    ("fraction", "rows"), [(0.29, 29), (0.3, 30), (0.57, 57), (0.999, 99), (0.01, 1)]
)
def test_a_fraction_is_the_decimal_that_it_shows(fraction, rows):
    task = Algorithmic(operation="x+y", p=10, fraction=fraction)
    assert len(task.build().x_train) == task.train_rows() == rows


def test_outliers_are_the_first_equations_with_answers_of_others():
    clean = Algorithmic(operation="x+y", p=31, fraction=0.5).build()
    few, many = (
        Algorithmic(operation="x+y", p=31, fraction=0.5, outliers=k).build() for k in (50, 400)
    )
    for d, k in ((few, 50), (many, 400)):
        assert torch.equal(d.x_train, clean.x_train)
        assert torch.equal(d.y_train[k:], clean.y_train[k:])
        assert torch.equal(d.y_val, clean.y_val)
        assert torch.equal(d.y_clean, clean.y_train)
        assert d.corrupted.tolist() == [True] * k + [False] * (len(clean.y_train) - k)
        assert 0 <= int(d.y_train.min()) <= int(d.y_train.max()) < 31
    assert torch.equal(few.y_train[:50], many.y_train[:50])
    wrong = int((many.y_train[:400] != clean.y_train[:400]).sum())
    assert 400 * 30 / 31 - 25 < wrong < 400  # mean 387, deviation 3.5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"operation": "x%y"}, "task.operation is 'x%y'; give one of x+y, "),
        ({"operation": "x.y", "p": 5}, "task.p is 5, but x.y is of the permutations S5; give none"),
        ({"p": 1}, "task.p is 1; give 2 to 1000"),
        ({"p": 96}, "task.p is 96; x/y divides, which needs a prime"),
        ({"p": 96, "operation": "x/y-or-x-y"}, "needs a prime"),
        ({"operation": "x.y.x"}, "task.convention=quotient, the quotient of x by y, is of opera"),
        ({"fraction": 1e-5}, "task.fraction is 1e-05; give less than 1, and at least 1/9312 "),
        ({"fraction": 0.0}, "task.fraction is 0.0;"),
        ({"fraction": 1.0}, "task.fraction is 1.0;"),
        ({"fraction": float("nan")}, "task.fraction is nan;"),
        ({"outliers": 2794}, "task.outliers is 2794; give 0 to 2793, the training equations"),
        ({"outliers": -1}, "task.outliers is -1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(fields, says):
    with pytest.raises(ValueError) as told:
        Algorithmic(**fields)
    assert says in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(gf.UsageError):
        gf.Experiment(task=Algorithmic()).replace(**{f"task.{k}": v for k, v in fields.items()})
