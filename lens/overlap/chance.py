"""What overlap would chance give?  Mean and variance of "in at least k of n masks", exact, and an interval.

The null hypothesis: in each module, each mask is a set of the size observed, drawn uniformly and independently of the
others.  Let N be the module's weights, aᵢ of them in mask i, pᵢ = aᵢ/N, and 1_k(w) = 1 where w is in at least k masks.

    mean       E X_k = Σ_w P(1_k(w)),                           N Π pᵢ for the intersection, k = n
    moments    E X_k X_j = Σ_w Σ_v P(1_k(w) 1_j(v))             over pairs of weights

The masks are independent, so a pair's chances need only the law of (w ∈ mask i, v ∈ mask i): two different weights are
both in it with chance aᵢ(aᵢ − 1)/(N(N − 1)).  How many masks hold w, and how many v, are sums of n such bits: their law
is found by adding one mask after the other.  For two masks X₂ is hypergeometric, and the variance its own.

Where a mask of neurons is compared with one of weights, its rows are drawn whole: then pairs within a row and pairs of
two rows differ.  Modules are independent, and their moments add up.
"""

from __future__ import annotations

from math import floor, sqrt

import numpy as np
from scipy.special import betainc, ndtri, pdtr

NORMAL = 100.0
"""Variance from which the interval is the normal one."""


def moments(weights: np.ndarray, columns: np.ndarray, sizes: np.ndarray, by_row: np.ndarray):
    """Mean [n + 1] of X_0 … X_n, summed over S modules, and covariance [n + 1, n + 1].

    ``weights`` [S]: N; ``columns`` [S]: weights of a row; ``sizes`` [n, S]: a; ``by_row`` bool [n]: drawn by rows?

    >>> mean, covariance = moments(*map(np.array, ([100], [1], [[10], [20]], [False, False])))
    >>> mean.round(6).tolist(), round(float(covariance[2, 2]), 4)  # all, the union, the intersection
    ([100.0, 28.0, 2.0], 1.4545)
    """
    weights, columns = (np.asarray(v, np.float64) for v in (weights, columns))
    p = np.asarray(sizes, np.float64) / weights  # [n, S]
    by_row = np.asarray(by_row)[:, None]
    units = np.where(by_row, weights / columns, weights)  # what is drawn: rows or weights
    apart = p * (p * units - 1) / np.maximum(units - 1, 1)  # both of two units
    one_row = np.where(by_row, p, apart)
    single = _tails(p, p)
    mean = weights * np.einsum("kks->ks", single)  # [n + 1, S]
    pairs = weights * (single + (columns - 1) * _tails(p, one_row) + (weights - columns) * _tails(p, apart))
    covariance = (pairs - mean[:, None] * mean[None]).sum(-1)
    return mean.sum(1), covariance


def _tails(p: np.ndarray, both: np.ndarray) -> np.ndarray:
    """P(w in at least k, v in at least j masks), [k, j, S], where mask i holds w with p[i], w and v with both[i]."""
    n, modules = p.shape
    law = np.zeros((n + 1, n + 1, modules))
    law[0, 0] = 1
    for either, two in zip(p, both):
        added = law * (1 - 2 * either + two)
        added[1:] += law[:-1] * (either - two)
        added[:, 1:] += law[:, :-1] * (either - two)
        added[1:, 1:] += law[:-1, :-1] * two
        law = added
    return law[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1]


def interval(mean: float, variance: float) -> tuple[float, float]:
    """The central 95 % of a count of this mean and variance, both ends included.

    Few overlaps are counted by the Panjer distribution of these moments (binomial below, Poisson at, negative binomial
    above variance = mean), many by the normal one.

    >>> interval(3.0, 3.0), interval(1000.0, 400.0)
    ((0.0, 7.0), (960.8..., 1039.1...))
    """
    if variance < 1e-9 * max(mean, 1):  # rounding: there is no choice
        return mean, mean
    if variance >= NORMAL:
        reach = float(ndtri(0.975)) * sqrt(variance)
        return max(0.0, mean - reach), mean + reach
    span = 12 * sqrt(variance) + 12
    k = np.arange(max(0, floor(mean - span)), floor(mean + span) + 1.0)
    if abs(variance / mean - 1) < 1e-6:
        below = pdtr(k, mean)
    elif variance > mean:
        below = betainc(mean**2 / (variance - mean), k + 1, mean / variance)
    else:
        size = mean**2 / (mean - variance)  # seldom a whole number
        below = np.where(k < size, betainc(np.maximum(size - k, 1e-9), k + 1, variance / mean), 1)
    return float(k[below >= 0.025][0]), float(k[below >= 0.975][0])


def drawn(weights: int, columns: int, sizes: np.ndarray, by_row: np.ndarray, generator: np.random.Generator):
    """Masks as the null hypothesis draws them in one module, and the counts of their patterns, int64 [2ⁿ]."""
    member = np.zeros((weights // columns, columns), np.uint16)
    for i, (size, whole) in enumerate(zip(sizes, by_row)):
        bit = np.uint16(1 << i)
        if whole:
            member[generator.choice(len(member), size // columns, replace=False)] |= bit
        else:
            member.reshape(-1)[generator.choice(weights, size, replace=False, shuffle=False)] |= bit
    return np.bincount(member.reshape(-1), minlength=1 << len(sizes))
