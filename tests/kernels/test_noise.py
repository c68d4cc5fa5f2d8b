"""Philox: the published answers, and numbers that depend on their address and on nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lens.kernels.noise import Key, philox, uniform, words

# Random123's known answers for philox4x32-10: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, answer", KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    assert philox(counter, key) == answer
    assert tuple(int(w) for w in philox(tuple(torch.tensor([c]) for c in counter), key)) == answer


@pytest.mark.parametrize("counter, key, answer", KNOWN)
def test_the_compiled_philox_gives_the_published_answers(counter, key, answer):
    import numba
    import numpy as np

    from lens.kernels.masking_cpu import philox as inlined

    @numba.njit
    def call(c0, c1, c2, c3, k0, k1):
        return inlined(c0, c1, c2, c3, k0, k1)

    assert tuple(call(*map(np.uint32, (*counter, *key)))) == answer


def test_a_number_depends_on_its_place_and_not_on_the_shape_asked_for():
    key = Key(seed=5, step=3, site=2)
    whole = words(range(0, 20), 37, key)
    assert torch.equal(words(range(7, 20), 37, key), whole[7:])
    assert torch.equal(words(range(0, 20), 6, key), whole[:, :6])


def test_every_part_of_the_key_changes_every_number():
    base = words(range(0, 8), 64, Key(1, 2, 3))
    for other in (Key(2, 2, 3), Key(1, 3, 3), Key(1, 2, 4), Key(1 + (1 << 32), 2, 3)):
        assert int((words(range(0, 8), 64, other) == base).sum()) == 0


def test_uniform_numbers_are_uniform_and_never_0_or_1():
    u = uniform((500, 1000), Key(seed=11)).double()
    n = u.numel()
    assert 0 < float(u.min()) and float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * n)
    counts = torch.histc(u.float(), 64, 0, 1)
    assert float(((counts - n / 64) ** 2 / (n / 64)).sum()) < 63 + 5 * math.sqrt(2 * 63)  # chi-squared, five sigma
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):  # neighbors in a row and in a column
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    "key", [Key(-1), Key(1 << 64), Key(0, step=1 << 32), Key(0, site=-2), Key(0, step=1.5), Key(True)]
)
def test_a_key_that_is_none_is_refused(refuses, key):
    with refuses(ValueError, "noise key"):
        uniform((2, 2), key)


def test_numbers_of_numpy_are_numbers_of_a_key():
    seed = 2**63 + 5
    assert torch.equal(
        uniform((2, 9), Key(np.uint64(seed), np.int64(3), np.int32(2))), uniform((2, 9), Key(seed, 3, 2))
    )
