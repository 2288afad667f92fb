"""Counter-based noise: the published vectors, one function everywhere, the rate of dropout."""

from __future__ import annotations

import math

import pytest
import torch

from grokfast.noise import dropout_mask, normal, philox, random_words

pytestmark = pytest.mark.usefixtures("one_thread")

#: kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds: counter, key, words.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],  # digits of pi
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

SEEDS = torch.tensor([0, 1, 2**32 - 1, 420])


def words(seeds=SEEDS, step=3, site=1, count=10):
    return random_words(seeds, torch.tensor(step), site, count)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_words(counter, key, expected):
    found = philox([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert [int(word) for word in found] == expected


def test_words_are_philox_of_element_site_step_and_seed():
    step = 2**32 * 5 + 7
    found = words(torch.tensor([9, 10]), step, 2, 6)
    for m, seed in enumerate((9, 10)):
        for block in (0, 1):
            counter = [torch.tensor([c]) for c in (block, 0, 7, 5)]
            four = philox(counter, [torch.tensor([seed]), torch.tensor([2])])
            own = found[m, 4 * block : 4 * block + 4].tolist()
            assert own == [int(word) for word in four][: len(own)]


def test_numbers_do_not_depend_on_what_is_drawn_beside_them():
    assert torch.equal(words(count=7), words(count=1000)[:, :7])
    for m in range(len(SEEDS)):
        assert torch.equal(words(SEEDS[m : m + 1])[0], words()[m])
    rows = dropout_mask(0.5, SEEDS, torch.tensor(3), 1, (8, 5), torch.float64)
    fewer = dropout_mask(0.5, SEEDS, torch.tensor(3), 1, (2, 5), torch.float64)
    assert torch.equal(rows[:, :2], fewer)


def test_every_seed_step_site_and_element_has_its_own_numbers():
    kinds = [words(), words(step=4), words(step=3 + 2**32), words(site=0), words(SEEDS + 1)]
    everything = torch.stack(kinds)
    assert len(everything.unique()) > everything.numel() - len(SEEDS) * 10  # seeds + 1 meet one
    assert int(everything.min()) >= 0 and int(everything.max()) < 2**32


def test_compiled_code_draws_the_same_words():
    """Products beyond 64 bits, of which compilers think what they like, would show here."""

    def draw(seeds, step):
        return random_words(seeds, step, 1, 1003)  # vectors, and a rest

    compiled = torch.compile(draw, fullgraph=True, dynamic=False)
    for step in (1, 2**31 - 1, 2**32 + 3):
        assert torch.equal(compiled(SEEDS, torch.tensor(step)), draw(SEEDS, torch.tensor(step)))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate):
    shape, models = (200, 50), 40
    n = models * 200 * 50
    mask = dropout_mask(
        rate, torch.arange(models), torch.tensor(1), 0, shape, torch.float64
    ).reshape(models, *shape)
    assert set(mask.unique().tolist()) <= {0.0, 1 / (1 - rate)}
    sixth = 6 * (rate * (1 - rate)) ** 0.5  # six standard deviations: one in 10^9
    zero = (mask == 0).double()
    assert abs(float(zero.mean()) - rate) <= sixth / n**0.5
    # Per model, row and column as well; no neighbour knows of another.
    for dims, samples in (((1, 2), 200 * 50), ((0, 2), models * 50), ((0, 1), models * 200)):
        assert float((zero.mean(dims) - rate).abs().max()) <= sixth / samples**0.5
    both = (zero[:, :, 1:] * zero[:, :, :-1]).mean()
    assert abs(float(both) - rate**2) <= 6 * rate * (1 - rate**2) ** 0.5 / n**0.5 + 1e-12
    assert dropout_mask(0.0, SEEDS, torch.tensor(1), 0, (3,), torch.float32).eq(1).all()


def normals(shape, seeds=SEEDS, step=3, site=1, dtype=torch.float64):
    return normal(seeds, torch.tensor(step), site, shape, dtype)


def test_normal_numbers_are_box_and_mullers_of_the_words():
    shape = 3, 5  # one word is left over
    found = normals(shape)
    for m, seed in enumerate(SEEDS.tolist()):
        own = words(torch.tensor([seed]), 3, 1, 16)[0].tolist()
        right = []
        for a, b in zip(own[::2], own[1::2], strict=True):
            radius = math.sqrt(-2 * math.log((a + 0.5) / 2**32))
            right += [radius * f(2 * math.pi * (b + 0.5) / 2**32) for f in (math.cos, math.sin)]
        assert found[m].flatten().tolist() == pytest.approx(right[:15], rel=1e-12, abs=1e-12)
    assert normals((2, 5), dtype=torch.float32).dtype == torch.float32
    torch.testing.assert_close(normals(shape, dtype=torch.float32), found.float(), **LOOSE)


#: Of float32: an angle of up to 2 pi is off by 4e-7.
LOOSE = {"rtol": 1e-5, "atol": 5e-6}


def test_normal_numbers_have_their_moments_and_no_neighbour_knows_of_another():
    x = normals((200, 500), torch.arange(4), dtype=torch.float32).double()
    n = x.numel()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float(x.pow(power).mean()) - mean) <= 6 * (variance / n) ** 0.5
    assert abs(float((x[..., 1:] * x[..., :-1]).mean())) <= 6 / n**0.5
    assert abs(float((x[1:] * x[:-1]).mean())) <= 6 / n**0.5
    assert x.isfinite().all()
