"""Checks of *Two lenses, one model*: chance by hand, the promise of a removal, an exact p, and a wrong tail."""

from __future__ import annotations

from itertools import permutations

import torch

from lens.course.check.exercise import Function, Value
from lens.gradient import capture
from lens.kernels import pack
from lens.mask import Config, Subnetwork

G = ([[3.0, 1.0], [1.0, 1.0]], [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])  # the gradients of two sites
M = ([[1, 0], [0, 0]], [[1, 1, 0], [0, 1, 1]])  # their masks


def _sites(power=2):
    """Energies and masks of the two sites; ``power=1``: lengths."""
    return [(torch.tensor(g).abs() ** power, torch.tensor(m).double()) for g, m in zip(G, M)]


def _share(power=2):
    return sum((m * q).sum() for q, m in _sites(power)) / sum(q.sum() for q, _ in _sites(power))


def _chance(power=2):
    return sum(m.mean() * q.sum() for q, m in _sites(power)) / sum(q.sum() for q, _ in _sites(power))


over_chance = Value(
    lambda: _share() / _chance(),
    {
        "One density was taken for both sites: chance weights each site's density by the energy of that site.": (
            lambda: _share() / torch.cat([m.flatten() for _, m in _sites()]).mean()
        ),
        "The densities were averaged as if both sites were alike: weight each by the energy of its site.": (
            lambda: _share() / torch.stack([m.mean() for _, m in _sites()]).mean()
        ),
        "Lengths were added, not energies: square the entries first.": lambda: _share(1) / _chance(1),
        "The two sites' ratios were averaged: add up the energies of both sites first, then divide once.": (
            lambda: torch.stack([(m * q).sum() / (m.mean() * q.sum()) for q, m in _sites()]).mean()
        ),
        "This is the share; divide it by what chance would give.": _share,
        "This is what chance gives; the share over it is asked for.": _chance,
        "This is chance over share: the other way round.": lambda: _chance() / _share(),
    },
    "Dense sites do not count for free, and silent ones hardly count.",
    tolerance=3e-3,
)


def _subnetwork(lm) -> Subnetwork:
    """Random weights of the last two layers, of another density in each site."""
    generator, bits, shapes = torch.Generator().manual_seed(0), {}, {}
    for layer in range(len(lm.layers))[-2:]:
        for site, density in (("attn_v", 0.1), ("attn_out", 0.3), ("ff1", 0.2), ("ff2", 0.05)):
            shapes[layer, site] = tuple(lm.weight(layer, site).shape)
            bits[layer, site] = pack(torch.rand(shapes[layer, site], generator=generator) < density)
    return Subnetwork(bits, shapes, Config(), (), lm.name, lm.fingerprint, 1)


def _traces(lm) -> list[tuple]:
    facts = (("The capital of France is", "Rome"), ("A cafe is a kind of", "bird"))
    return [(lm, capture(lm, *fact), _subnetwork(lm)) for fact in facts]


def _added(lm, trace, mask, each):
    """Σ over masked sites of ``each(W, m, x, δ)``."""
    total = 0.0
    for key in mask.bits:
        g, w = trace.gradient(*key), lm.weight(*key).detach().double()
        total = total + each(w, mask.mask(*key).to(w), g.x.to(w), g.delta.to(w))
    return total


def _promise(lm, trace, mask):
    return _added(lm, trace, mask, lambda w, m, x, d: -(m * w * (x.T @ d)).sum())


promise = Function(
    _promise,
    _traces,
    {
        "The sign is reversed: removing W is a step of −W, and the loss rises by G times the step.": (
            lambda *given: -_promise(*given)
        ),
        "Sizes were added: with |W ∘ G| nothing can cancel, and what cancels is the point.": (
            lambda *given: _added(*given, lambda w, m, x, d: (m * w * (x.T @ d)).abs().sum())
        ),
        "This is with the weights outside the mask: m = 1 marks the subnetwork, and that is what goes.": (
            lambda *given: _added(*given, lambda w, m, x, d: -((1 - m) * w * (x.T @ d)).sum())
        ),
        "All weights were removed here: where is the mask?": (
            lambda *given: _added(*given, lambda w, m, x, d: -(w * (x.T @ d)).sum())
        ),
        "Only the last token counts here: every token reads the weights, and G is the sum over all of them.": (
            lambda *given: _added(*given, lambda w, m, x, d: -((x[-1:] @ (m * w)) * d[-1:]).sum())
        ),
        "This is a mean over the tokens: the gradient is their sum.": (
            lambda *given: _added(*given, lambda w, m, x, d: -(m * w * (x.T @ d)).sum() / len(x))
        ),
        "This is the gradient on the mask without the weights: it says where training goes, not what removal costs.": (
            lambda *given: _added(*given, lambda w, m, x, d: -(m * (x.T @ d)).sum())
        ),
        "This is the energy of the gradient on the mask; a removal goes by W ∘ G, with its sign.": (
            lambda *given: _added(*given, lambda w, m, x, d: (m * (x.T @ d)).square().sum())
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
    generator = torch.Generator().manual_seed(1)
    five = torch.randint(0, 9, (5, 5), generator=generator).double() + torch.eye(5).double()
    four = torch.randint(0, 9, (4, 4), generator=generator).double() - 2 * torch.eye(4).double()
    return [(torch.tensor([[9.0, 2, 4], [1, 7, 3], [5, 0, 8]]).double(),), (five,), (four,)]


def _effect(table):
    off = ~torch.eye(len(table), dtype=torch.bool)
    return float(table.diagonal().mean() - table[off].mean())


def _orders(table, both=False):
    for order in map(list, permutations(range(len(table)))):
        yield _effect(table[order][:, order] if both else table[:, order])


def _count(table, at_least, both=False):
    """(how many orders are at least as extreme, how many there are)."""
    effect, found = _effect(table), list(_orders(table, both))
    return sum(at_least(e, effect) for e in found), len(found)


def _two_sided(e, effect):
    return abs(e) >= abs(effect) * (1 - 1e-9)


def _ratio(count, orders):
    return count / orders


exact_p = Function(
    lambda table: _ratio(*_count(table, _two_sided)),
    _tables,
    {
        "The true order is missing: it is one of the orders, and as large as itself, so p is never zero.": (
            lambda table: (_count(table, _two_sided)[0] - 1) / _count(table, _two_sided)[1]
        ),
        "The + 1 is for random draws, among which the true order may be missing: here it has been counted already.": (
            lambda table: (_count(table, _two_sided)[0] + 1) / (_count(table, _two_sided)[1] + 1)
        ),
        "This p is one-sided: take the size of the effect, the rest subtracted, for the other sign counts too.": (
            lambda table: _ratio(*_count(table, lambda e, effect: e >= effect - 1e-9))
        ),
        "This p is one-sided, toward the sign that was seen: an effect as large with the other sign counts too.": (
            lambda table: _ratio(*_count(table, lambda e, f: _two_sided(e, f) and (e >= 0) == (f >= 0)))
        ),
        "Rows and columns were moved together, which leaves every mask with its own topic: move one of them.": (
            lambda table: _ratio(*_count(table, _two_sided, both=True))
        ),
        "This is 1 − p: count the orders that are as large, not those that are smaller.": (
            lambda table: 1 - _ratio(*_count(table, _two_sided))
        ),
    },
    "Every order was looked at. With three topics there are six, so no effect of theirs can have p below 1/6.",
)


_last: list = []  # the last question and its table: every mistake asks it again


def _four(lm, prompts, wrong, own, other):
    """The mean over the facts, in nats: [true and wrong tail, own and other mask], from one trace of all."""
    texts, tails = 2 * [p.text for p in prompts], [*(p.target for p in prompts), *wrong]
    asked, parts = (texts, tails), (lm, own, other)
    if not _last or _last[0] != asked or any(a is not b for a, b in zip(_last[1], parts)):
        _last[:] = asked, parts, _rises(lm, texts, tails, own, other) / len(prompts)
    return _last[2]


def _rises(lm, texts, tails, own, other):
    """Summed over the first and over the second half of the prompts, for each mask."""
    trace = capture(lm, texts, tails, layers=sorted({layer for layer, _ in own.bits}))
    first, rise = sum(trace.lengths[: len(texts) // 2]), torch.zeros(2, 2, dtype=torch.float64)
    for key in own.bits:
        g, w = trace.gradient(*key), lm.weight(*key).detach().float()
        for i, mask in enumerate((own, other)):
            each = ((g.x.float() @ (w * mask.mask(*key).to(w))) * g.delta.float()).sum(1).cpu().double()  # [tokens]
            rise[:, i] -= torch.stack([each[:first].sum(), each[first:].sum()])
    return rise


def _picked(*cells):
    """Some cells of the table, in the order of the answer."""
    return lambda *given: [float(_four(*given)[cell]) for cell in cells]


TRUE_OWN, TRUE_OTHER, WRONG_OWN, WRONG_OTHER = (0, 0), (0, 1), (1, 0), (1, 1)

wrong_tail = Value(
    _picked(TRUE_OWN, WRONG_OWN, WRONG_OTHER),
    {
        "The first two are exchanged: the true tail comes first, the wrong one second.": (
            _picked(WRONG_OWN, TRUE_OWN, WRONG_OTHER)
        ),
        "The last two are exchanged: the own mask comes before the other topic's.": (
            _picked(TRUE_OWN, WRONG_OTHER, WRONG_OWN)
        ),
        "The masks are exchanged: the first two numbers belong to the topic's own mask.": (
            _picked(TRUE_OTHER, WRONG_OTHER, WRONG_OWN)
        ),
        "The true tail was used throughout: the gradient is that of the loss of the tail you ask for.": (
            _picked(TRUE_OWN, TRUE_OWN, TRUE_OTHER)
        ),
        "The control has the true tail: it is the wrong tail, as in the second number, with the other mask.": (
            _picked(TRUE_OWN, WRONG_OWN, TRUE_OTHER)
        ),
        "Keep the sign: it tells a removal that helps from one that hurts.": (
            lambda *given: [abs(v) for v in _picked(TRUE_OWN, WRONG_OWN, WRONG_OTHER)(*given)]
        ),
    },
    "Three means with their signs; the third is the control that lets the second be read.",
    tolerance=2e-3,
)
