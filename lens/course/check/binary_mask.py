"""Checks of *Learning a binary mask*: one draw, its straight-through slope, its bias, and sorting more than once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.kernels import Key, mask, uniform
from lens.mask.places import places
from lens.model.batch import pad
from lens.model.upper import UpperLayers

W = [4.0, 4.0, 2.0]
SCORES = [0.0, 0.0, math.log(3)]
NOISE = [0.75, 0.25, 0.5]
ARRIVING = [1.0, 1.0, -2.0]


def _draw(sign=-1, forward=None, factor=None):
    """m, W(1 − m) and ∂ℓ/∂l; ``forward`` and ``factor`` make other things of (m, s, l)."""
    w, score, u, g = (torch.tensor(row, dtype=torch.float64) for row in (W, SCORES, NOISE, ARRIVING))
    s = torch.sigmoid(score + torch.logit(u))
    m = (s > 0.5).double()
    return torch.stack(
        [
            m,
            w * (1 - m) if forward is None else forward(w, m, s),
            sign * g * w * (s * (1 - s) if factor is None else factor(m, s, score)),
        ]
    )


one_draw = Value(
    _draw,
    {
        "The gradient's sign is reversed: what remains is W(1 − m), and falls as m grows.": lambda: _draw(sign=1),
        "Row 2 holds the weights in the mask: the remaining model keeps W(1 − m).": (
            lambda: _draw(forward=lambda w, m, s: w * m)
        ),
        "Row 2 is soft: on the way up the hard mask is used.": lambda: _draw(forward=lambda w, m, s: w * (1 - s)),
        "The slope is taken at σ(l), but the noise has moved it: take it at s, with the u of the draw.": (
            lambda: _draw(factor=lambda m, s, score: score.sigmoid() * (-score).sigmoid())
        ),
        "A weight outside the mask has a slope too: s(1 − s) does not ask on which side the draw fell.": (
            lambda: _draw(factor=lambda m, s, score: m * s * (1 - s))
        ),
        "The step's own derivative is zero: straight-through takes the soft mask's instead.": (
            lambda: _draw(factor=lambda m, s, score: 0 * s)
        ),
        "The slope of the sigmoid is s(1 − s); in row 3 stands s itself.": lambda: _draw(factor=lambda m, s, score: s),
        "In row 3 the slope s(1 − s) is missing: this is the derivative by the mask, not by the score.": (
            lambda: _draw(factor=lambda m, s, score: torch.ones_like(s))
        ),
    },
    "Hard on the way up, soft on the way back, and every weight hears something.",
)


class BothWays(Function):
    """A function of (W, l, u, τ) compared together with its derivative by l, for a gradient arriving from above."""

    def __call__(self, answer, *context):
        return super().__call__(_both_ways(answer) if callable(answer) else answer, *context)


def _both_ways(function: Callable) -> Callable:
    def both(w, score, u, tau, arriving):
        scores = score.detach().requires_grad_()
        out = function(w, scores, u, tau)
        if not isinstance(out, torch.Tensor) or out.shape != w.shape:
            return out
        (slope,) = torch.autograd.grad((out * arriving).sum() + 0 * scores.sum(), scores)
        return torch.stack([out.detach(), slope])

    return both


def _cases() -> list[tuple]:
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return [
        (draw(*shape), draw(*shape), uniform(shape, Key(seed)), tau, draw(*shape))
        for seed, (shape, tau) in enumerate((((5, 3), 0.5), ((2, 7), 2.0)))
    ]


def _kernel(w, score, u, tau, arriving):
    seed = next(i for i, case in enumerate(_cases()) if case[2].shape == u.shape)
    return _both_ways(lambda w, score, u, tau: mask(w, score, Key(seed), tau=tau))(w, score, u, tau, arriving)


def _soft(score, u, tau):
    return torch.sigmoid((score + torch.logit(u)) / tau)


def _through(keep=lambda m: 1 - m, soft=_soft, slope=None):
    """The straight-through mask with one part changed: what is kept, what is soft, whose slope comes back."""

    def function(w, score, u, tau):
        m = (soft(score, u, tau) > 0.5).to(score)
        s = (slope or soft)(score, u, tau)
        return w * keep(s + (m - s).detach())

    return _both_ways(function)


masked = BothWays(
    _kernel,
    _cases,
    {
        "The values are right, but nothing comes back: a comparison has no derivative. Let the soft mask's through.": (
            _through(slope=lambda score, u, tau: _soft(score, u, tau).detach())
        ),
        "This is soft on the way up as well: the model has to be computed with a mask of zeros and ones.": (
            _both_ways(lambda w, score, u, tau: w * (1 - _soft(score, u, tau)))
        ),
        "This keeps the weights in the mask: the remaining model has W(1 − m).": _through(keep=lambda m: m),
        "The values are right, but the slope has the wrong sign: it must come back through 1 − m.": (
            _through(slope=lambda score, u, tau: -_soft(score, u, tau))
        ),
        "The values are right, but the slope ignores τ.": _through(soft=lambda score, u, tau: _soft(score, u, 1)),
        "The values are right, but the slope is that of σ(l/τ): the noise has moved the point where it is taken.": (
            _through(slope=lambda score, u, tau: torch.sigmoid(score / tau))
        ),
        "u was added as it is: the noise is logit u, which is as often negative as positive.": (
            _through(soft=lambda score, u, tau: torch.sigmoid((score + u) / tau))
        ),
        "The noise is missing: this mask is 1[l > 0], the same at every draw.": (
            _through(soft=lambda score, u, tau: torch.sigmoid(score / tau))
        ),
        "The noise has the wrong sign: m = 1 where l + logit u > 0, so a large u puts the weight in.": (
            _through(soft=lambda score, u, tau: _soft(score, 1 - u, tau))
        ),
        "The values are right, but the mask's derivative is taken as one: the slope s(1 − s)/τ is missing.": (
            _through(slope=lambda score, u, tau: score)
        ),
    },
    "Up and back, this is the mask that lens trains with.",
)

LOSSES = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 3, -2], [0, 5, -4]]  # the coefficients of m, m², m³


def _slopes(at):
    """ℓ'(at) of each loss."""
    return [sum(c * (k + 1) * at**k for k, c in enumerate(row)) for row in LOSSES]


def _halves(weigh):
    return torch.tensor([weigh(a, b) for a, b in zip(_slopes(0), _slopes(1))], dtype=torch.float64)


trapezoid = Value(
    lambda: _halves(lambda a, b: (a + b) / 2),
    {
        "These are the slopes at m = 1 alone: the mask is as well drawn at 0, and both ends count half.": (
            lambda: _halves(lambda a, b: b)
        ),
        "The slopes were added: each end counts half.": lambda: _halves(lambda a, b: a + b),
        "Half the slope at m = 1: what is the first loss's slope at m = 0?": lambda: _halves(lambda a, b: b / 2),
        "These are the slopes in the middle, at m = ½: that is another rule, and no draw has half a weight.": (
            lambda: torch.tensor(_slopes(0.5), dtype=torch.float64)
        ),
        "Is the last one's sign right? Straight-through does not know the loss between its ends.": (
            lambda: _halves(lambda a, b: abs(a + b) / 2)
        ),
    },
    "Exact up to the square; beyond it too long, blind, or of the wrong sign.",
)

BUDGET = 3000


class _Model:
    """The logits at the last token of some prompts, for any matrix in place of one FF2, whose own is not touched."""

    def __init__(self, lm, layer, prompts):
        ids, real = pad([lm.encode(p.text) for p in prompts])
        self.lm, self.upper, (self.place,) = lm, UpperLayers(lm, ids, layer), places(lm, [layer], ["ff2"])
        self.at = torch.arange(len(ids)), real.sum(1) - 1

    def __call__(self, matrix):
        weights = {(self.place.layer, self.place.path): self.place.upright(matrix)}
        return self.lm.head(self.upper(weights=weights)[self.at]).float()  # [prompts, V]

    def distance(self, matrix):
        log_p = self(matrix).log_softmax(-1)
        return -log_p.mean() - math.log(log_p.shape[1])

    @torch.no_grad()
    def without(self, gone, measure):
        return measure(self.place.matrix.masked_fill(gone.to(self.place.matrix.device), 0))


def _of(lm, layer, fact):
    from lens import data

    return _Model(lm, layer, [p for p in data.knowledge("building").target if p.fact == fact])


def _sorted_once(model):
    leaf = model.place.matrix.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.distance(leaf), leaf)
    promised = (leaf * slope).detach()
    return promised >= promised.flatten().topk(BUDGET).values[-1]


def _stay(gone, lm, layer, fact, others):
    said = _Model(lm, layer, others)
    said = said.without(gone, said).argmax(-1).tolist()
    return sum(token == lm.target_ids(p.target)[0] for token, p in zip(said, others)) >= 0.9 * len(others)


def _better(gone, lm, layer, fact, others, factor=0.9):
    model = _of(lm, layer, fact)
    return model.without(gone, model.distance) <= factor * model.without(_sorted_once(model), model.distance)


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
