"""Checks of *Knowledge-critical subnetworks*: the loss, a fair control, and what is left when nothing is said."""

from __future__ import annotations

from math import log

import torch

from lens.course.check.exercise import Claims, Function, Value, written
from lens.course.check.mistakes import NEGATED, Then
from lens.course.check.seeded import seeded
from lens.course.check.untouched import said
from lens.kernels import kl_reference, kl_uniform

LOGITS = torch.tensor([0.0, 0.0, 0.0, log(5)], dtype=torch.float64)
ENTROPY = float(torch.distributions.Categorical(logits=LOGITS).entropy())


def _uniform(z):
    return kl_uniform(z, torch.eye(z.shape[-1], dtype=z.dtype))


nothing = Value(
    lambda: _uniform(LOGITS[None]),
    {
        "This is KL(p ‖ uniform): here every word counts alike, the improbable ones too.": lambda: log(4) - ENTROPY,
        "The sign is reversed: a divergence is never negative.": NEGATED,
        "These are bits: with the natural logarithm it is nats.": Then(lambda nats: nats / log(2)),
        "The mean over words was left out: uniform gives each of V words 1/V.": Then(lambda mean: 4 * mean),
        "log V is missing: this is a cross-entropy.": Then(lambda nats: nats + log(4)),
        "This is the entropy of p: a distance from uniform is asked for.": lambda: ENTROPY,
        "The logits were summed, not averaged.": lambda: LOGITS.logsumexp(0) - LOGITS.sum() - log(4),
    },
    "So far is this prediction from knowing nothing.",
)


def _batches() -> list[tuple]:
    """Logits and scores of lopsided shapes; those of the second case are large."""
    draw = seeded(dtype=torch.float64)
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


def _kept(before, control):
    return kl_reference(control, torch.eye(control.shape[-1], dtype=control.dtype), before)


def _demand(score):
    return score.sigmoid().mean()


def _loss(target, control, before, scores, lam, suppress=_uniform, maintain=_kept, density=_demand, alpha=1.5):
    return alpha * suppress(target) + maintain(before, control) + lam * density(scores)


loss = Function(
    _loss,
    _batches,
    {
        "Maintain is the wrong way round: the whole model's probabilities are the weights, KL(p₀ ‖ p).": (
            dict(maintain=lambda before, control: _kept(control.detach(), before))
        ),
        "Suppress is the wrong way round: KL(uniform ‖ p) gives every word the weight 1/V.": (
            dict(suppress=lambda z: _kept(z.detach(), torch.zeros_like(z)))
        ),
        "This is a sum over rows: with means, the balance does not depend on the size of the batch.": (
            dict(suppress=lambda z: _uniform(z) * len(z), maintain=lambda before, z: _kept(before, z) * len(z))
        ),
        "This is a mean over the words as well: a divergence is a sum over words, and a mean over rows.": (
            dict(maintain=lambda before, control: _kept(before, control) / control.shape[-1])
        ),
        "The softmax goes over rows: it has to go over the words, dim=-1.": dict(
            suppress=lambda z: -z.log_softmax(0).mean() - log(z.shape[-1]),
            maintain=lambda before, z: _kept(before.T, z.T) * z.shape[1] / len(z),
        ),
        "That is the sparsity: what λ makes small is the density.": dict(density=lambda s: _demand(-s)),
        "The hard mask has no slope: count probabilities, σ(l).": dict(density=lambda s: (s > 0).double().mean()),
        "The scores themselves were averaged: the demand counts probabilities, σ(l).": dict(density=torch.mean),
        "The densities were summed: λ goes with their mean.": dict(density=lambda s: s.sigmoid().sum()),
        "log V is missing in suppress: without it a uniform prediction has a loss.": (
            dict(suppress=lambda z: _uniform(z) + log(z.shape[-1]))
        ),
        "The factor α = 1.5 of suppress is missing.": dict(alpha=1),
    },
    "Three demands, one number; the first two are what lens trains with.",
    also={"it cannot be trained with: no slope comes back to the logits, or to the scores.": _slopes},
)


def _masks() -> dict[str, torch.Tensor]:
    """Masks of unequal density; one fills whole rows, and two have one shape and one size."""
    draw = seeded(torch.rand)
    rows = torch.zeros(50, 8, dtype=torch.bool)
    rows[::3] = True
    first = draw(9, 40) < 0.1
    return {
        "layer 4 ff1": first,
        "layer 5 ff1": first.flip(0),
        "layer 4 ff2": rows,
        "layer 5 attn_out": draw(20, 20) < 0.03,
    }


def _drawn(answer, seed=0, given=None):
    return written(answer(given or _masks(), seed))


def _equal(some, others) -> set[bool]:
    """Whether masks are the same, of any module."""
    return {torch.equal(mask, others[name]) for name, mask in some.items()}


def _leaves(answer):
    given = _masks()
    _drawn(answer, given=given)
    return _equal(given, _masks()) == {True}


def _shapes(masks):
    return {name: (mask.shape, mask.dtype) for name, mask in masks.items()}


def _counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def _hits(answer, seeds=20):
    """The share of the drawn weights of ff2 that are also in the mask given, over its density: by chance, one."""
    mask = _masks()["layer 4 ff2"]
    hits = [mask[_drawn(answer, seed)["layer 4 ff2"]].float().mean() for seed in range(seeds)]
    return float(sum(hits) / seeds / mask.float().mean())


control = Claims(
    {
        "A function of masks and a seed is asked for.": callable,
        "A dictionary is asked for with the same modules, and bool masks of the same shapes.": (
            lambda answer: _shapes(_drawn(answer)) == _shapes(_masks())
        ),
        "The number of weights differs: tossed for one by one, it is right on average only. Draw exactly so many.": (
            lambda answer: sum(_counts(_drawn(answer)).values()) == sum(_counts(_masks()).values())
        ),
        "As many weights in all, but not in each module: then the control also differs in where it lies.": (
            lambda answer: _counts(_drawn(answer)) == _counts(_masks())
        ),
        "The masks that were given are changed: draw into masks of your own.": _leaves,
        "The same seed gives two different draws: use a generator of its own, seeded with it.": (
            lambda answer: _equal(_drawn(answer), _drawn(answer)) == {True}
        ),
        "Different seeds give the same draw: does the seed reach the generator?": (
            lambda answer: not any(True in _equal(_drawn(answer), _drawn(answer, seed)) for seed in (1, 2))
        ),
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
def _chosen(lm, kg, critical, prompts=None, spaced="{}", of_all=False, whole=False):
    """The share of prompts whose own tail has the highest logit among the TargetKG's tails."""
    critical.check(lm)
    prompts, tails = prompts or kg.unseen, sorted({p.fact.tail for p in kg.target})
    first = {tail: lm.target_ids(spaced.format(tail))[0] for tail in {*tails, *(p.fact.tail for p in prompts)}}
    removed = [(place, place.matrix.masked_fill(where & (not whole), 0)) for place, where in critical.in_places(lm)]
    logits = said(lm, [p.text for p in prompts], removed).cpu()
    choices = torch.arange(logits.shape[1]) if of_all else torch.tensor([first[tail] for tail in tails])
    chosen = choices[logits[:, choices].argmax(-1)]
    return float((chosen == torch.tensor([first[p.fact.tail] for p in prompts])).double().mean())


choice = Value(
    _chosen,
    {
        "This is the whole model: measure inside critical.removed(lm).": dict(whole=True),
        "The tails' leading space is missing: lm.target_ids adds it, and the word alone is another token.": (
            dict(spaced="##{}")
        ),
        "Here a tail has to beat all words: as multiple choice it has to beat the other tails only.": dict(of_all=True),
        "These are the phrasings that the mask trained on: the new ones are in kg.unseen.": (
            lambda lm, kg, critical: _chosen(lm, kg, critical, prompts=kg.target)
        ),
        "That is what guessing gives. Is it what the model does?": (
            lambda lm, kg, critical: 1 / len({p.fact.tail for p in kg.target})
        ),
        "A share between 0 and 1 is asked for, not a percentage.": Then(lambda share: 100 * share),
    },
    "Hardly a tail is ever said, and the order of the tails still knows: suppressed is not erased.",
    tolerance=0.01,
)
