"""Checks of *Knowledge-critical subnetworks*: the loss, a fair control, and what is left when nothing is said."""

from __future__ import annotations

import math
from functools import partial

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.kernels import kl_reference, kl_uniform
from lens.model.batch import pad
from lens.model.upper import UpperLayers

LOGITS = torch.tensor([0.0, 0.0, 0.0, math.log(5)], dtype=torch.float64)


def _from_uniform(z):
    return -math.log(len(z)) - z.log_softmax(-1).mean()


def _to_uniform(z):
    log_p = z.log_softmax(-1)
    return (log_p.exp() * (log_p + math.log(len(z)))).sum()


nothing = Value(
    lambda: _from_uniform(LOGITS),
    {
        "This is KL(p ‖ uniform): here every word counts alike, the improbable ones too.": lambda: _to_uniform(LOGITS),
        "The sign is reversed: a divergence is never negative.": lambda: -_from_uniform(LOGITS),
        "These are bits: with the natural logarithm it is nats.": lambda: _from_uniform(LOGITS) / math.log(2),
        "The mean over words was left out: uniform gives each of V words 1/V.": lambda: 4 * _from_uniform(LOGITS),
        "log V is missing: this is a cross-entropy.": lambda: _from_uniform(LOGITS) + math.log(4),
        "This is the entropy of p: a distance from uniform is asked for.": lambda: math.log(4) - _to_uniform(LOGITS),
        "The logits were summed, not averaged.": lambda: LOGITS.logsumexp(0) - LOGITS.sum() - math.log(4),
    },
    "So far is this prediction from knowing nothing.",
)


def _batches() -> list[tuple]:
    """Logits and scores of lopsided shapes; those of the second case are large."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [
        tuple(x.requires_grad_(at != 2) for at, x in enumerate(tensors)) + (lam,)  # not those of the whole model
        for *tensors, lam in (
            (draw(3, 7), draw(5, 7), draw(5, 7), draw(4, 6) - 1, 2.5),
            (300 * draw(2, 11), 300 * draw(4, 11), 300 * draw(4, 11), draw(9), 3.0),
        )
    ]


def _slopes(got, target, control, before, scores, lam) -> bool:
    """Whether the loss can be differentiated by all that a training moves."""
    if not isinstance(got, torch.Tensor) or not got.requires_grad:
        return False
    slopes = torch.autograd.grad(got, (target, control, scores), allow_unused=True)
    return all(slope is not None and slope.isfinite().all() and slope.any() for slope in slopes)


def _uniform(z):
    return kl_uniform(z, torch.eye(z.shape[-1], dtype=z.dtype))


def _kept(before, control):
    return kl_reference(control, torch.eye(control.shape[-1], dtype=control.dtype), before)


def _log(z, dim=-1):
    return z.log_softmax(dim)


def _kl(log_q, log_p, dim=-1):
    return (log_q.exp() * (log_q - log_p)).sum(dim)


def _flat(z):
    return torch.full_like(z, -math.log(z.shape[-1]))


def _total(suppress=_uniform, maintain=_kept, density=lambda score: score.sigmoid().mean(), factors=(1.5, 1)):
    """The loss with one part of it changed."""

    def function(target, control, before, scores, lam):
        alpha, beta = factors
        return alpha * suppress(target) + beta * maintain(before, control) + lam * density(scores)

    return function


loss = Function(
    _total(),
    _batches,
    {
        "Maintain is the wrong way round: the whole model's probabilities are the weights, KL(p₀ ‖ p).": (
            _total(maintain=lambda before, control: _kl(_log(control), _log(before)).mean())
        ),
        "Suppress is the wrong way round: KL(uniform ‖ p) gives every word the weight 1/V.": (
            _total(suppress=lambda z: _kl(_log(z), _flat(z)).mean())
        ),
        "This is a sum over rows: with means, the balance does not depend on the size of the batch.": (
            _total(lambda z: _uniform(z) * len(z), lambda before, control: _kept(before, control) * len(control))
        ),
        "This is a mean over the words as well: a divergence is a sum over words, and a mean over rows.": (
            _total(maintain=lambda before, control: _kept(before, control) / control.shape[-1])
        ),
        "The softmax goes over rows: it has to go over the words, dim=-1.": _total(
            lambda z: _kl(_flat(z), _log(z, 0)).mean(), lambda b, c: _kl(_log(b, 0), _log(c, 0)).mean()
        ),
        "That is the sparsity: what λ makes small is the density.": _total(density=lambda s: (-s).sigmoid().mean()),
        "The hard mask has no slope: count probabilities, σ(l).": _total(density=lambda s: (s > 0).double().mean()),
        "The scores themselves were averaged: the demand counts probabilities, σ(l).": _total(density=torch.mean),
        "The densities were summed: λ goes with their mean.": _total(density=lambda score: score.sigmoid().sum()),
        "log V is missing in suppress: without it a uniform prediction has a loss.": _total(
            lambda z: _uniform(z) + math.log(z.shape[-1])
        ),
        "The factor α = 1.5 of suppress is missing.": _total(factors=(1, 1)),
    },
    "Three demands, one number; the first two are what lens trains with.",
    also={"it cannot be trained with: no slope comes back to the logits, or to the scores.": _slopes},
)


def _masks() -> dict[str, torch.Tensor]:
    """Masks of unequal density; one fills whole rows, and two have one shape and one size."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(50, 8, dtype=torch.bool)
    rows[::3] = True
    first = torch.rand(9, 40, generator=generator) < 0.1
    return {
        "layer 4 ff1": first,
        "layer 5 ff1": first.flip(0),
        "layer 4 ff2": rows,
        "layer 5 attn_out": torch.rand(20, 20, generator=generator) < 0.03,
    }


def _drawn(answer, seed=0, given=None):
    found = answer(_masks() if given is None else given, seed)
    if found is None or found is ...:
        raise NotImplementedError
    return found


def _counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def _fits(answer):
    found, masks = _drawn(answer), _masks()
    return set(found) == set(masks) and all(
        found[name].dtype == torch.bool and found[name].shape == mask.shape for name, mask in masks.items()
    )


def _untouched(answer):
    given = _masks()
    _drawn(answer, given=given)
    return all(torch.equal(given[name], mask) for name, mask in _masks().items())


def _repeats(answer):
    first, second = _drawn(answer), _drawn(answer)
    return all(torch.equal(first[name], second[name]) for name in first)


def _differs(answer):
    draws = [_drawn(answer, seed) for seed in range(3)]
    return all(not torch.equal(draws[0][name], other[name]) for other in draws[1:] for name in draws[0])


def _hits(answer, seeds=20):
    """The share of the drawn weights of ff2 that are also in the mask given, over its density: by chance, one."""
    mask = _masks()["layer 4 ff2"]
    hits = [mask[_drawn(answer, seed)["layer 4 ff2"]].float().mean() for seed in range(seeds)]
    return float(sum(hits) / seeds / mask.float().mean())


control = Claims(
    {
        "A function of masks and a seed is asked for.": lambda answer: callable(answer),
        "A dictionary is asked for with the same modules, and bool masks of the same shapes.": _fits,
        "The number of weights differs: tossed for one by one, it is right on average only. Draw exactly so many.": (
            lambda answer: sum(_counts(_drawn(answer)).values()) == sum(_counts(_masks()).values())
        ),
        "As many weights in all, but not in each module: then the control also differs in where it lies.": (
            lambda answer: _counts(_drawn(answer)) == _counts(_masks())
        ),
        "The masks that were given are changed: draw into masks of your own.": _untouched,
        "The same seed gives two different draws: use a generator of its own, seeded with it.": _repeats,
        "Different seeds give the same draw: does the seed reach the generator?": _differs,
        "Two modules of one shape have the same places: does each of them begin with the same random numbers?": (
            lambda answer: not torch.equal(*(_drawn(answer)[f"layer {layer} ff1"] for layer in (4, 5)))
        ),
        "Rows move as a whole: every single weight is to be drawn, wherever it stands.": (
            lambda answer: not all(_drawn(answer)["layer 4 ff2"].float().mean(1).unique() % 1 == 0)
        ),
        "These draws avoid the subnetwork's own weights: at random, some are hit, as many as its density says.": (
            lambda answer: _hits(answer) > 0.5
        ),
        "These draws prefer the subnetwork's own weights: every weight of a module is to have the same chance.": (
            lambda answer: _hits(answer) < 1.5
        ),
    },
    "As many weights in each module, and nothing else in common: a fair control.",
)


@torch.no_grad()
def _chosen(lm, kg, critical, prompts=None, space=True, among_all=False, whole=False):
    """The share of prompts whose own tail has the highest logit among the TargetKG's tails."""
    prompts, tails = prompts or kg.unseen, sorted({p.fact.tail for p in kg.target})

    def first(tail):
        return lm.target_ids(tail if space else f"##{tail}")[0]

    critical.check(lm)
    weights = {  # a check writes nothing into the model, not even for a moment
        (place.layer, place.path): place.upright(place.matrix.masked_fill(where, 0))
        for place, where in critical.in_places(lm)
    }
    ids, real = pad([lm.encode(p.text) for p in prompts])
    upper = UpperLayers(lm, ids, min(layer for layer, _ in weights))
    normed = upper(weights=None if whole else weights)
    logits = lm.head(normed[torch.arange(len(ids)), real.sum(1) - 1]).cpu()  # [prompts, V]
    choices = torch.tensor([first(tail) for tail in tails])
    said = logits.argmax(-1) if among_all else choices[logits[:, choices].argmax(-1)]
    return float((said == torch.tensor([first(p.fact.tail) for p in prompts])).double().mean())


choice = Value(
    _chosen,
    {
        "This is the whole model: measure inside critical.removed(lm).": lambda *given: _chosen(*given, whole=True),
        "The tails' leading space is missing: lm.target_ids adds it, and the word alone is another token.": (
            lambda *given: _chosen(*given, space=False)
        ),
        "Here a tail has to beat all words: as multiple choice it has to beat the other tails only.": (
            lambda *given: _chosen(*given, among_all=True)
        ),
        "These are the phrasings that the mask trained on: the new ones are in kg.unseen.": (
            lambda lm, kg, critical: _chosen(lm, kg, critical, prompts=kg.target)
        ),
        "That is what guessing gives. Is it what the model does?": (
            lambda lm, kg, critical: 1 / len({p.fact.tail for p in kg.target})
        ),
        "A share between 0 and 1 is asked for, not a percentage.": lambda *given: 100 * _chosen(*given),
    },
    "Hardly a tail is ever said, and the order of the tails still knows: suppressed is not erased.",
    tolerance=0.01,
)
