"""Checks of *Is it real?*: shares of a lost log p, weights given back and taken, and what a weight promises."""

from __future__ import annotations

from contextlib import nullcontext
from math import log

import torch

from lens.course.check.exercise import Claims, Function, Value, written
from lens.course.check.mistakes import COMPLEMENT, NEGATED, Then
from lens.course.check.untouched import changes
from lens.gradient import capture
from lens.mask import Subnetwork

WHOLE, REMAINING, NOW = 2, 20_000, 2_000  # perplexities


share_back = Value(
    lambda: log(REMAINING / NOW) / log(REMAINING / WHOLE),
    {
        "This is the share of the perplexity that is gone; log p is asked for, and a perplexity is its exponential.": (
            lambda: (REMAINING - NOW) / (REMAINING - WHOLE)
        ),
        "This is the share that is still missing.": COMPLEMENT,
        "The whole model has a loss too: what was lost is the way from its log p, not from log p = 0.": (
            lambda: log(REMAINING / NOW) / log(REMAINING)
        ),
    },
    "Most of the perplexity is gone, and most of the suppression is still there.",
    tolerance=5e-3,
)


def _mask() -> torch.Tensor:
    """A fifth of a lopsided matrix, the same at every call."""
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(3))
    return (order < 300).view(30, 50)


def _drawn(answer, share: float, seed: int = 0) -> torch.Tensor:
    """The answer's mask as a bool tensor."""
    got = torch.as_tensor(written(answer(_mask(), share, torch.Generator().manual_seed(seed))))
    if got.shape != _mask().shape:
        raise ValueError("another shape")
    return got.bool()


def _leaves_argument(answer) -> bool:
    given = _mask()
    for share in (-0.3, 0.5):
        answer(given, share, torch.Generator())
    return torch.equal(given, _mask())


def _size(answer, share: float, seed: int = 0) -> int:
    return int(_drawn(answer, share, seed).sum())


varied = Claims(
    {
        "A function of m, share and generator is asked for.": callable,
        "On a bool mask [30, 50] it stopped, or gave no mask of that shape: try it on one of your own.": (
            lambda answer: all(_drawn(answer, share).ndim for share in (-0.3, 0.5))
        ),
        "Your function changed m itself: work on a copy, or the next draw begins spoiled.": _leaves_argument,
        "With a share below 0 the result holds weights that m does not: given back means that fewer are removed.": (
            lambda answer: not (_drawn(answer, -0.3) & ~_mask()).any()
        ),
        "The size varies from draw to draw, as with a coin for each weight: draw an exact number of places.": (
            lambda answer: len({_size(answer, -0.3, seed) for seed in range(4)}) == 1
        ),
        "Kept and given back are exchanged: at −0.3 most of the weights stay in the mask.": (
            lambda answer: _size(answer, -0.3) != 90
        ),
        "With a share below 0 the size is not right: what is the share a share of?": (
            lambda answer: _size(answer, -0.3) == 210 and _size(answer, -1) == 0
        ),
        "With a share above 0 some weights of m are no longer removed: further weights are taken beside all of m.": (
            lambda answer: not (_mask() & ~_drawn(answer, 0.5)).any()
        ),
        "The share was taken of all weights of the matrix: at 0.5 it is half as many as m has that go too.": (
            lambda answer: _size(answer, 0.5) != 300 + 750
        ),
        "Too few further weights: were some drawn that are removed already?": (
            lambda answer: _size(answer, 0.5) >= 450 and _size(answer, 2) >= 900
        ),
        "With a share above 0 the size is not right: share · |m| go too.": lambda answer: _size(answer, 0.5) == 450,
        "The size is right only where it comes out whole: the nearest whole number of weights is asked for.": (
            lambda answer: [_size(answer, s) for s in (-0.2989, -0.2983, 0.4989)] == [210, 211, 450]
        ),
        "At share 0 nothing changes; here something does.": lambda answer: torch.equal(_drawn(answer, 0), _mask()),
        "Two draws from one seed differ: draw with the generator, so that a run can be repeated.": (
            lambda answer: all(torch.equal(_drawn(answer, s, 5), _drawn(answer, s, 5)) for s in (-0.3, 0.5))
        ),
        "Two seeds give the same weights, so they are not drawn at random: the first ones may be special.": (
            lambda answer: all(not torch.equal(_drawn(answer, s, 0), _drawn(answer, s, 1)) for s in (-0.3, 0.5))
        ),
    },
    "Exact in size, random in place, and nested: as lens.mask.shrunk and lens.mask.grown do it.",
)


def _cases(lm, subnetwork) -> list[tuple]:
    layers = [layer for layer, site in subnetwork.bits if site == "ff2"]
    return [
        (lm, subnetwork, "A cafe is a kind of", "restaurant", layers[-1]),
        (lm, subnetwork, "A ziggurat is a kind of", "temple", layers[0]),
    ]


def _promise(lm, subnetwork, prompt, tail, layer, gone=True, step=torch.mul, rows=0, of_p=False, space=True):
    """∂ log p/∂W of FF2, of tokens from ``rows`` on, in the model without the subnetwork, times each weight's step."""
    with subnetwork.removed(lm) if gone else nullcontext():
        trace = capture(lm, prompt, tail if space else lm.encode(tail)[:1], layers=[layer], sites=["ff2"])
    g, w = trace.gradient(layer, "ff2"), lm.weight(layer, "ff2").detach()
    slope = -g.x[rows:].T @ g.delta[rows:] * (float((-trace.loss).exp()) if of_p else 1)
    return slope * step(w, subnetwork.mask(layer, "ff2").to(w))


promise = Function(
    _promise,
    _cases,
    {
        "The sign is reversed: lens.capture differentiates −log p, and what raises log p is a gain.": NEGATED,
        "The slope is that of the whole model; the weights come back to the remaining one, so take it there.": (
            dict(gone=False)
        ),
        "This is by how much p rises: asked for is its logarithm.": dict(of_p=True),
        "All are zero: inside the block the subnetwork's weights are 0, so read W outside.": Then(torch.zeros_like),
        "Only weights that were taken can be given back: outside the subnetwork the promise is zero.": (
            dict(step=lambda w, m: w)
        ),
        "Those are the weights that stayed: the subnetwork's own are asked for, where m = 1.": (
            dict(step=lambda w, m: w * (1 - m))
        ),
        "This is the slope alone: a weight's promise is its slope times the step, from 0 to W.": (
            dict(step=lambda w, m: m)
        ),
        "Only the last token's part of the slope is there: W is used at every token, and the slope adds them up.": (
            dict(rows=-1)
        ),
        "The tail's leading space is missing: 'restaurant' and ' restaurant' are two tokens.": dict(space=False),
    },
    "Slope times step, in the model that the weights come back to.",
    tolerance=1e-3,
)


def _inside(answer, lm, found, *_) -> bool:
    return set(answer.bits) == set(found.bits) and not any((answer.bits[k] & ~b).count() for k, b in found.bits.items())


def _given_back(answer, lm, found, *_) -> float:
    left, own = (sum(bits.count() for bits in one.bits.values()) for one in (answer, found))
    return 1 - left / own


def _back(answer, lm, found, kg, fact, own=True) -> float:
    """The share of the fact's lost log p, or its neighbors', that is back where only ``answer`` is removed."""
    asked = [p for p in kg.unseen if p.fact == fact] if own else [p for p in kg.unseen if p.target != fact.tail][:24]
    lost, still_lost = changes((found, answer), lm, asked)
    return 1 - still_lost / lost


key = Claims(
    {
        "A subnetwork is asked for: found.with_bits(bits, note).": lambda answer, *_: isinstance(answer, Subnetwork),
        "The other way round: this is what to give back, and a key is found without it.": (
            lambda *given: _given_back(*given) < 0.9
        ),
        "It removes weights that found does not: begin with found's masks, and take weights out.": _inside,
        "Nothing was given back: this is found itself.": lambda *given: _given_back(*given) > 0,
        "More than one percent of found's weights are given back: count over all sites together.": (
            lambda *given: _given_back(*given) <= 0.0101
        ),
        "Your fact is even less probable now: is the sign of the promises reversed?": lambda *given: _back(*given) > 0,
        "Your fact has less than half of its log p back: are these the weights that promise most, for this fact?": (
            lambda *given: _back(*given) >= 0.5
        ),
        "The neighbors came back with it: sum the promises over phrasings of your fact alone.": (
            lambda *given: _back(*given, own=False) < 0.5
        ),
    },
    "One door is open, and the others are shut: the topic is not held down by one lock.",
)
