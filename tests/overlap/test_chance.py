"""What chance gives: exact where a closed form is known, and what random masks really do everywhere else."""

from __future__ import annotations

from itertools import combinations, product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.overlap.chance import drawn, interval, moments


def hypergeometric(N, a, b):
    return np.array([comb(a, k) * comb(N - a, b - k) / comb(N, b) for k in range(min(a, b) + 1)])


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 300), st.data())
def test_two_masks_share_a_hypergeometric_number(N, data):
    a, b = data.draw(st.integers(0, N)), data.draw(st.integers(0, N))
    law = hypergeometric(N, a, b)
    k = np.arange(len(law))
    mean, covariance = moments([N], [1], [[a], [b]], [False, False])
    variance = (law * k**2).sum() - (law * k).sum() ** 2
    assert mean[2] == pytest.approx((law * k).sum(), abs=1e-9)
    assert covariance[2, 2] == pytest.approx(variance, rel=1e-6, abs=1e-7)
    assert mean[1] == pytest.approx(a + b - a * b / N) and covariance[1, 1] == pytest.approx(variance, abs=1e-6)
    assert covariance[1, 2] == pytest.approx(-variance, abs=1e-6)  # |A ∪ B| + |A ∩ B| is fixed


def every_draw(N, columns, sizes, by_row):
    """How many masks hold each weight, for all choices of all masks."""
    choices = []
    for size, whole in zip(sizes, by_row):
        units = N // columns if whole else N
        size = size // columns if whole else size
        each = []
        for some in combinations(range(units), size):
            mask = np.zeros(units, int)
            mask[list(some)] = 1
            each.append(np.repeat(mask, columns) if whole else mask)
        choices.append(each)
    return np.array([sum(one) for one in product(*choices)])


@pytest.mark.parametrize(
    "N, columns, sizes, by_row",
    [
        (5, 1, [2, 3, 1], [False] * 3),
        (6, 1, [2, 3, 4], [False] * 3),
        (6, 2, [2, 4, 3], [True, True, False]),
        (8, 2, [4, 3, 2], [True, False, False]),
        (4, 1, [1, 2, 2, 3], [False] * 4),
        (6, 3, [3, 3], [True, True]),
    ],
)
def test_moments_are_those_over_all_choices_of_all_masks(N, columns, sizes, by_row):
    held = every_draw(N, columns, sizes, by_row)  # [draws, N]
    counts = np.stack([(held >= k).sum(1) for k in range(len(sizes) + 1)]).astype(float)
    mean, covariance = moments([N], [columns], [[a] for a in sizes], by_row)
    assert np.allclose(mean, counts.mean(1), atol=1e-12)
    assert np.allclose(covariance, np.cov(counts, bias=True), atol=1e-10)


def test_modules_add_up():
    parts = [moments([N], [1], [[a], [b], [c]], [False] * 3) for N, a, b, c in ((50, 5, 9, 20), (80, 1, 70, 8))]
    mean, covariance = moments([50, 80], [1, 1], [[5, 1], [9, 70], [20, 8]], [False] * 3)
    assert np.allclose(mean, sum(m for m, _ in parts)) and np.allclose(covariance, sum(c for _, c in parts))


@pytest.mark.parametrize("by_row", [(False, False, False), (True, False, True)])
def test_random_masks_have_these_means_and_variances(by_row):
    """4,000 draws: means within 4.5 standard errors, variances within a tenth (4.5 of theirs, about)."""
    generator = np.random.default_rng(7)
    N, columns, sizes = 240, 6, np.array([48, 60, 90])
    held = np.array([s.bit_count() for s in range(8)])
    counts = np.stack([drawn(N, columns, sizes, by_row, generator) for _ in range(4000)])
    seen = np.stack([counts[:, held >= k].sum(1) for k in range(4)])
    mean, covariance = moments([N], [columns], sizes[:, None], by_row)
    for k in (1, 2, 3):
        assert abs(seen[k].mean() - mean[k]) < 4.5 * sqrt(covariance[k, k] / 4000)
        assert seen[k].var() == pytest.approx(covariance[k, k], rel=0.1)
    assert np.cov(seen[1], seen[3])[0, 1] == pytest.approx(covariance[1, 3], rel=0.15, abs=0.5)


def test_draws_have_the_sizes_asked_for_and_rows_stay_whole():
    counts = drawn(60, 6, np.array([17, 24]), (False, True), np.random.default_rng(0))
    assert counts.sum() == 60 and counts[1] + counts[3] == 17 and counts[2] + counts[3] == 24
    only = drawn(60, 6, np.array([12, 24]), (True, True), np.random.default_rng(0))
    assert all(count % 6 == 0 for count in only)


@pytest.mark.parametrize(
    "sizes, k",
    [((600, 700), 2), ((600, 700), 1), ((40, 50), 2), ((300, 300, 300), 3), ((300, 300, 300), 2), ((20, 5900), 1)],
)
def test_ninety_five_of_a_hundred_draws_lie_in_the_interval(sizes, k):
    """Of 2,000 draws: at least 93.5 % (3 standard errors below), at most 98 % (99.8 where the counts are few)."""
    N, generator = 6000, np.random.default_rng(3)
    mean, covariance = moments([N], [1], np.array(sizes)[:, None], [False] * len(sizes))
    low, high = interval(mean[k], covariance[k, k])
    held = np.array([s.bit_count() >= k for s in range(1 << len(sizes))])
    seen = np.array([drawn(N, 1, np.array(sizes), [False] * len(sizes), generator)[held].sum() for _ in range(2000)])
    inside = ((seen >= low) & (seen <= high)).mean()
    assert 0.935 <= inside <= (0.98 if covariance[k, k] > 20 else 0.998), (low, high, inside)


def test_intervals_of_few_are_exact_quantiles():
    N, a, b = 100, 8, 11
    law = hypergeometric(N, a, b).cumsum()
    mean, covariance = moments([N], [1], [[a], [b]], [False, False])
    assert interval(mean[2], covariance[2, 2]) == (np.argmax(law >= 0.025), np.argmax(law >= 0.975))
    assert interval(1e-9, 1e-9) == (0, 0) and interval(7.0, 0.0) == (7, 7) and interval(0.0, 0.0) == (0, 0)


@pytest.mark.parametrize("mean, variance", [(3, 1.5), (3, 3), (3, 9), (40, 12), (40, 99), (1000, 2), (0.02, 0.02)])
def test_intervals_of_every_spread_hold_about_95_percent(mean, variance):
    low, high = interval(mean, variance)
    assert low <= mean + 1 and high >= mean - 1
    assert high - low <= 2 * 1.96 * sqrt(variance) + 2


def test_the_interval_hardly_jumps_where_the_normal_one_begins():
    for mean in (120, 1000, 50_000):
        below, above = interval(mean, 99.999), interval(mean, 100)
        assert abs(below[0] - above[0]) < 1.5 and abs(below[1] - above[1]) < 1.5
