"""Checks of *Two lenses, one model*: chance by hand, the promise of a removal, an exact p, and a wrong tail."""

from __future__ import annotations

from itertools import permutations

import torch

from lens.course.check.exercise import Function, Value
from lens.course.check.mistakes import COMPLEMENT, NEGATED, Then, once
from lens.course.check.seeded import seeded
from lens.gradient import capture
from lens.kernels import pack
from lens.mask import Config, Subnetwork

G = ([[3.0, 1.0], [1.0, 1.0]], [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])  # the gradients of two sites
M = ([[1, 0], [0, 0]], [[1, 1, 0], [0, 1, 1]])  # their masks


def _over_chance(parts, held, density):
    return parts @ held / (parts @ density)


def _sites(power=2):
    """Of each site: its part of the energy, the share of that on its mask, and its density.  ``power=1``: lengths."""
    energies, masks = [torch.tensor(g).abs().double() ** power for g in G], [torch.tensor(m).double() for m in M]
    sums = torch.stack([q.sum() for q in energies])
    held = torch.stack([(m * q).sum() for q, m in zip(energies, masks)]) / sums
    return sums / sums.sum(), held, torch.stack([m.mean() for m in masks])


PARTS, HELD, DENSITY = _sites()

over_chance = Value(
    lambda: _over_chance(PARTS, HELD, DENSITY),
    {
        "One density was taken for both sites: chance weights each site's density by the energy of that site.": (
            lambda: PARTS @ HELD / torch.tensor(sum((row for m in M for row in m), [])).double().mean()
        ),
        "The densities were averaged as if both sites were alike: weight each by the energy of its site.": (
            lambda: PARTS @ HELD / DENSITY.mean()
        ),
        "Lengths were added, not energies: square the entries first.": lambda: _over_chance(*_sites(power=1)),
        "The two sites' ratios were averaged: add up the energies of both sites first, then divide once.": (
            lambda: (HELD / DENSITY).mean()
        ),
        "This is the share; divide it by what chance would give.": lambda: PARTS @ HELD,
        "This is what chance gives; the share over it is asked for.": lambda: PARTS @ DENSITY,
        "This is chance over share: the other way round.": Then(lambda ratio: 1 / ratio),
    },
    "Dense sites do not count for free, and silent ones hardly count.",
    tolerance=3e-3,
)


def _subnetwork(lm) -> Subnetwork:
    """Random weights of the last two layers, of another density in each site."""
    draw, bits, shapes = seeded(torch.rand), {}, {}
    for layer in range(len(lm.layers))[-2:]:
        for site, density in (("attn_v", 0.1), ("attn_out", 0.3), ("ff1", 0.2), ("ff2", 0.05)):
            shapes[layer, site] = tuple(lm.weight(layer, site).shape)
            bits[layer, site] = pack(draw(shapes[layer, site]) < density)
    return Subnetwork(bits, shapes, Config(), (), lm.name, lm.fingerprint, 1)


def _traces(lm) -> list[tuple]:
    facts = (("The capital of France is", "Rome"), ("A cafe is a kind of", "bird"))
    return [(lm, capture(lm, *fact), _subnetwork(lm)) for fact in facts]


def _promise(lm, trace, mask, each=lambda w, m, x, d: -(m * w * (x.T @ d)).sum()):
    """Σ over masked sites of ``each(W, m, x, δ)``."""
    total = 0.0
    for key in mask.bits:
        g, w = trace.gradient(*key), lm.weight(*key).detach().double()
        total = total + each(w, mask.mask(*key).to(w), g.x.to(w), g.delta.to(w))
    return total


promise = Function(
    _promise,
    _traces,
    {
        "The sign is reversed: removing W is a step of −W, and the loss rises by G times the step.": NEGATED,
        "Sizes were added: with |W ∘ G| nothing can cancel, and what cancels is the point.": (
            dict(each=lambda w, m, x, d: (m * w * (x.T @ d)).abs().sum())
        ),
        "This is with the weights outside the mask: m = 1 marks the subnetwork, and that is what goes.": (
            dict(each=lambda w, m, x, d: -((1 - m) * w * (x.T @ d)).sum())
        ),
        "All weights were removed here: where is the mask?": dict(each=lambda w, m, x, d: -(w * (x.T @ d)).sum()),
        "Only the last token counts here: every token reads the weights, and G is the sum over all of them.": (
            dict(each=lambda w, m, x, d: -((x[-1:] @ (m * w)) * d[-1:]).sum())
        ),
        "This is a mean over the tokens: the gradient is their sum.": (
            dict(each=lambda w, m, x, d: -(m * w * (x.T @ d)).sum() / len(x))
        ),
        "This is the gradient on the mask without the weights: it says where training goes, not what removal costs.": (
            dict(each=lambda w, m, x, d: -(m * (x.T @ d)).sum())
        ),
        "This is the energy of the gradient on the mask; a removal goes by W ∘ G, with its sign.": (
            dict(each=lambda w, m, x, d: (m * (x.T @ d)).square().sum())
        ),
        "This is a mean over the sites: each of them is removed, so add them up.": (
            lambda lm, trace, mask: _promise(lm, trace, mask) / len(mask.bits)
        ),
    },
    "What the weights wrote, against what the loss thought of it: no gradient of a matrix is needed.",
    tolerance=1e-3,
)


def _tables() -> list[tuple]:
    """Three topics whose diagonal is the largest; five with a weak effect; four with a negative one."""
    draw = seeded(torch.randint, 1)
    five = draw(0, 9, (5, 5)).double() + torch.eye(5).double()
    four = draw(0, 9, (4, 4)).double() - 2 * torch.eye(4).double()
    return [(torch.tensor([[9.0, 2, 4], [1, 7, 3], [5, 0, 8]]).double(),), (five,), (four,)]


def _effect(table):
    off = ~torch.eye(len(table), dtype=torch.bool)
    return float(table.diagonal().mean() - table[off].mean())


def _two_sided(e, effect):
    return abs(e) >= abs(effect) * (1 - 1e-9)


def _p(table, counts=_two_sided, both=False, plus=(0, 0)):
    """The share of the orders that count; ``plus``: added above and below the fraction line."""
    orders = [list(order) for order in permutations(range(len(table)))]
    effects = [_effect(table[order][:, order] if both else table[:, order]) for order in orders]
    return (sum(counts(e, _effect(table)) for e in effects) + plus[0]) / (len(effects) + plus[1])


exact_p = Function(
    _p,
    _tables,
    {
        "The true order is missing: it is one of the orders, and as large as itself, so p is never zero.": (
            dict(plus=(-1, 0))
        ),
        "The + 1 is for random draws, among which the true order may be missing: here it has been counted already.": (
            dict(plus=(1, 1))
        ),
        "This p is one-sided: take the size of the effect, the rest subtracted, for the other sign counts too.": (
            dict(counts=lambda e, effect: e >= effect - 1e-9)
        ),
        "This p is one-sided, toward the sign that was seen: an effect as large with the other sign counts too.": (
            dict(counts=lambda e, effect: _two_sided(e, effect) and (e >= 0) == (effect >= 0))
        ),
        "Rows and columns were moved together, which leaves every mask with its own topic: move one of them.": (
            dict(both=True)
        ),
        "This is 1 − p: count the orders that are as large, not those that are smaller.": COMPLEMENT,
    },
    "Every order was looked at. With three topics there are six, so no effect of theirs can have p below 1/6.",
)


@once
def _four(lm, prompts, wrong, own, other):
    """The mean over the facts, in nats: [true and wrong tail, own and other mask], from one trace of all."""
    texts, tails = 2 * [p.text for p in prompts], [*(p.target for p in prompts), *wrong]
    trace = capture(lm, texts, tails, layers=sorted({layer for layer, _ in own.bits}))
    first, rise = sum(trace.lengths[: len(prompts)]), torch.zeros(2, 2, dtype=torch.float64)
    for key in own.bits:
        g, w = trace.gradient(*key), lm.weight(*key).detach().float()
        for i, mask in enumerate((own, other)):
            each = ((g.x.float() @ (w * mask.mask(*key).to(w))) * g.delta.float()).sum(1).cpu().double()  # [tokens]
            rise[:, i] -= torch.stack([each[:first].sum(), each[first:].sum()])
    return rise / len(prompts)


TRUE_OWN, TRUE_OTHER, WRONG_OWN, WRONG_OTHER = (0, 0), (0, 1), (1, 0), (1, 1)


def _three(*given, of=(TRUE_OWN, WRONG_OWN, WRONG_OTHER)):
    return [float(_four(*given)[cell]) for cell in of]


wrong_tail = Value(
    _three,
    {
        "The first two are exchanged: the true tail comes first, the wrong one second.": (
            dict(of=(WRONG_OWN, TRUE_OWN, WRONG_OTHER))
        ),
        "The last two are exchanged: the own mask comes before the other topic's.": (
            dict(of=(TRUE_OWN, WRONG_OTHER, WRONG_OWN))
        ),
        "The masks are exchanged: the first two numbers belong to the topic's own mask.": (
            dict(of=(TRUE_OTHER, WRONG_OTHER, WRONG_OWN))
        ),
        "The true tail was used throughout: the gradient is that of the loss of the tail you ask for.": (
            dict(of=(TRUE_OWN, TRUE_OWN, TRUE_OTHER))
        ),
        "The control has the true tail: it is the wrong tail, as in the second number, with the other mask.": (
            dict(of=(TRUE_OWN, WRONG_OWN, TRUE_OTHER))
        ),
        "Keep the sign: it tells a removal that helps from one that hurts.": Then(lambda rises: [*map(abs, rises)]),
    },
    "Three means with their signs; the third is the control that lets the second be read.",
    tolerance=2e-3,
)
