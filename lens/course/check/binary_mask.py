"""Checks of *Learning a binary mask*: one draw, its straight-through slope, its bias, and sorting more than once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from lens import data
from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import Then
from lens.course.check.seeded import seeded
from lens.course.check.untouched import said
from lens.kernels import Key, mask, uniform
from lens.mask.places import places

W = [4.0, 4.0, 2.0]
SCORES = [0.0, 0.0, math.log(3)]
NOISE = [0.75, 0.25, 0.5]
ARRIVING = [1.0, 1.0, -2.0]


def _draw(forward=lambda w, m, s: w * (1 - m), factor=lambda m, s, score: s * (1 - s), sign=-1):
    """m, W(1 − m) and ∂ℓ/∂l."""
    w, score, u, g = (torch.tensor(row, dtype=torch.float64) for row in (W, SCORES, NOISE, ARRIVING))
    s = torch.sigmoid(score + torch.logit(u))
    m = (s > 0.5).double()
    return torch.stack([m, forward(w, m, s), sign * g * w * factor(m, s, score)])


one_draw = Value(
    _draw,
    {
        "The gradient's sign is reversed: what remains is W(1 − m), and falls as m grows.": dict(sign=1),
        "Row 2 holds the weights in the mask: the remaining model keeps W(1 − m).": dict(forward=lambda w, m, s: w * m),
        "Row 2 is soft: on the way up the hard mask is used.": dict(forward=lambda w, m, s: w * (1 - s)),
        "The slope is taken at σ(l), but the noise has moved it: take it at s, with the u of the draw.": (
            dict(factor=lambda m, s, score: score.sigmoid() * (-score).sigmoid())
        ),
        "A weight outside the mask has a slope too: s(1 − s) does not ask on which side the draw fell.": (
            dict(factor=lambda m, s, score: m * s * (1 - s))
        ),
        "The step's own derivative is zero: straight-through takes the soft mask's instead.": (
            dict(factor=lambda m, s, score: 0 * s)
        ),
        "The slope of the sigmoid is s(1 − s); in row 3 stands s itself.": dict(factor=lambda m, s, score: s),
        "In row 3 the slope s(1 − s) is missing: this is the derivative by the mask, not by the score.": (
            dict(factor=lambda m, s, score: torch.ones_like(s))
        ),
    },
    "Hard on the way up, soft on the way back, and every weight hears something.",
)


class BothWays(Function):
    """A function of (W, l, u, τ) compared together with its derivative by l, for a gradient arriving from above."""

    def __call__(self, answer, *context):
        return super().__call__(_both_ways(answer) if callable(answer) else answer, *context)


def _both_ways(function: Callable) -> Callable:
    def both(w, score, u, tau, arriving, **options):
        scores = score.detach().requires_grad_()
        out = function(w, scores, u, tau, **options)
        if not isinstance(out, torch.Tensor) or out.shape != w.shape:
            return out
        (slope,) = torch.autograd.grad((out * arriving).sum() + 0 * scores.sum(), scores)
        return torch.stack([out.detach(), slope])

    return both


def _cases() -> list[tuple]:
    draw = seeded()
    return [
        (draw(*shape), draw(*shape), uniform(shape, Key(seed)), tau, draw(*shape))
        for seed, (shape, tau) in enumerate((((5, 3), 0.5), ((2, 7), 2.0)))
    ]


def _soft(score, u, tau):
    return torch.sigmoid((score + torch.logit(u)) / tau)


@_both_ways
def _masked(w, score, u, tau, keep=lambda m: 1 - m, soft=_soft, slope=None, hard=True):
    """The straight-through mask, with options for what is kept, what is soft, and whose slope comes back."""
    m = (soft(score, u, tau) > 0.5).to(score)
    s = (slope or soft)(score, u, tau)
    return w * keep(s + hard * (m - s).detach())


def _as_lens_trains(w, score, u, tau):
    (seed,) = (seed for seed, case in enumerate(_cases()) if case[2].shape == u.shape)
    return mask(w, score, Key(seed), tau=tau)


masked = BothWays(
    _both_ways(_as_lens_trains),
    _cases,
    {
        "The values are right, but nothing comes back: a comparison has no derivative. Let the soft mask's through.": (
            partial(_masked, slope=lambda score, u, tau: _soft(score, u, tau).detach())
        ),
        "This is soft on the way up as well: the model has to be computed with a mask of zeros and ones.": (
            partial(_masked, hard=False)
        ),
        "This keeps the weights in the mask: the remaining model has W(1 − m).": partial(_masked, keep=lambda m: m),
        "The values are right, but the slope has the wrong sign: it must come back through 1 − m.": (
            partial(_masked, slope=lambda score, u, tau: -_soft(score, u, tau))
        ),
        "The values are right, but the slope ignores τ.": (
            partial(_masked, soft=lambda score, u, tau: _soft(score, u, 1))
        ),
        "The values are right, but the slope is that of σ(l/τ): the noise has moved the point where it is taken.": (
            partial(_masked, slope=lambda score, u, tau: torch.sigmoid(score / tau))
        ),
        "u was added as it is: the noise is logit u, which is as often negative as positive.": (
            partial(_masked, soft=lambda score, u, tau: torch.sigmoid((score + u) / tau))
        ),
        "The noise is missing: this mask is 1[l > 0], the same at every draw.": (
            partial(_masked, soft=lambda score, u, tau: torch.sigmoid(score / tau))
        ),
        "The noise has the wrong sign: m = 1 where l + logit u > 0, so a large u puts the weight in.": (
            partial(_masked, soft=lambda score, u, tau: _soft(score, 1 - u, tau))
        ),
        "The values are right, but the mask's derivative is taken as one: the slope s(1 − s)/τ is missing.": (
            partial(_masked, slope=lambda score, u, tau: score)
        ),
    },
    "Up and back, this is the mask that lens trains with.",
)

LOSSES = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 3, -2], [0, 5, -4]]  # the coefficients of m, m², m³


def _factors(weigh=lambda a, b: (a + b) / 2, ends=(0, 1)):
    """What is made of each loss's slopes ℓ'(m) at both ends."""
    slopes = [[sum(c * (k + 1) * m**k for k, c in enumerate(row)) for row in LOSSES] for m in ends]
    return torch.tensor([weigh(a, b) for a, b in zip(*slopes)], dtype=torch.float64)


trapezoid = Value(
    _factors,
    {
        "These are the slopes at m = 1 alone: the mask is as well drawn at 0, and both ends count half.": (
            dict(weigh=lambda a, b: b)
        ),
        "The slopes were added: each end counts half.": dict(weigh=lambda a, b: a + b),
        "Half the slope at m = 1: what is the first loss's slope at m = 0?": dict(weigh=lambda a, b: b / 2),
        "These are the slopes in the middle, at m = ½: that is another rule, and no draw has half a weight.": (
            dict(ends=(0.5, 0.5))
        ),
        "Is the last one's sign right? Straight-through does not know the loss between its ends.": Then(abs),
    },
    "Exact up to the square; beyond it too long, blind, or of the wrong sign.",
)

BUDGET = 3000


def _without(place, gone):
    return place.matrix.masked_fill(gone.to(place.matrix.device), 0)


@torch.no_grad()
def _stay(gone, lm, layer, fact, others):
    (place,) = places(lm, [layer], ["ff2"])
    words = said(lm, [p.text for p in others], [(place, _without(place, gone))]).argmax(-1).tolist()
    return sum(word == lm.target_ids(p.target)[0] for word, p in zip(words, others)) >= 0.9 * len(others)


def _better(gone, lm, layer, fact, others, factor=0.9):
    """Whether the fact is this much nearer to nothing than where the weights were sorted once."""
    texts = [p.text for p in data.knowledge("building").target if p.fact == fact]
    (place,) = places(lm, [layer], ["ff2"])

    def distance(matrix):
        log_p = said(lm, texts, [(place, matrix)]).log_softmax(-1)
        return -log_p.mean() - math.log(log_p.shape[1])

    leaf = place.matrix.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(leaf), leaf)
    promised = place.matrix * slope
    once = promised >= promised.flatten().topk(BUDGET).values[-1]
    with torch.no_grad():
        return distance(_without(place, gone)) <= factor * distance(_without(place, once))


sorted_again = Claims(
    {
        "A bool tensor is asked for, True for the weights to take out.": (
            lambda gone, *_: isinstance(gone, torch.Tensor) and gone.dtype == torch.bool
        ),
        "The mask must have the shape of FF2's matrix, [d_m, d]: is it transposed, or of another layer?": (
            lambda gone, lm, layer, *_: gone.shape == lm.weight(layer, "ff2").shape
        ),
        "No weight is chosen.": lambda gone, *_: gone.any(),
        "The model's matrix still holds zeros from your rounds: give it its weights back, then choose anew.": (
            lambda gone, lm, layer, *_: lm.weight(layer, "ff2").all()
        ),
        "More weights are chosen than the budget allows.": lambda gone, *_: gone.sum() <= BUDGET,
        "Sorting once does better: does each round take the weights whose removal promises the largest fall?": (
            lambda gone, lm, layer, fact, others: _better(gone, lm, layer, fact, others, factor=1.02)
        ),
        "Hardly better than sorting once: how far is the model, by the end, from where the slopes were taken?": _better,
        "More than one in ten of the other facts are lost: these weights are not this fact's alone.": _stay,
    },
    "A gradient is worth little far from where it was taken; asked again, it leads on.",
)
