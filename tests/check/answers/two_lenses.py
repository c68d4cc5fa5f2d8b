"""Answers to the exercises of *Two lenses, one model*."""

from itertools import permutations

import numpy as np
import torch
from library import Answers

import lens


def without_matrices(lm, trace, mask, sign=-1):
    """−Σ ⟨what the removed weights wrote, δ⟩."""
    rise = 0.0
    for key in mask.bits:
        g = trace.gradient(*key)
        wrote = g.x @ (lm.weight(*key).detach() * mask.mask(*key))
        rise = rise + sign * float((wrote * g.delta).sum())
    return rise


def dense(lm, trace, mask, change=lambda m, w, g: m * w * g, pick=lambda g: g.dense()):
    parts = []
    for layer, site in mask.bits:
        m, w = mask.mask(layer, site).float(), lm.weight(layer, site).detach()
        parts.append(-change(m, w, pick(trace.gradient(layer, site))).sum())
    return torch.stack(parts).sum()


def token_by_token(lm, trace, mask):
    total = np.float64(0)
    for key in mask.bits:
        g, gone = trace.gradient(*key), (lm.weight(*key).detach() * mask.mask(*key)).double().numpy()
        for x, d in zip(g.x.double().numpy(), g.delta.double().numpy()):
            total -= x @ gone @ d
    return total


def effect(table):
    K = len(table)
    return float(table.trace() / K - (table.sum() - table.trace()) / (K * (K - 1)))


def effects(table):
    return [effect(table[:, list(order)]) for order in permutations(range(len(table)))]


def exact(table):
    limit = abs(effect(table)) * (1 - 1e-6)
    return sum(abs(e) >= limit for e in effects(table)) / len(effects(table))


def in_pairs(table):
    """The effect as the mean over pairs, rows moved in place of columns."""
    K = len(table)
    pairs = [(a, b) for a in range(K) for b in range(K) if a != b]

    def of(order):
        t = table.numpy()[list(order)]
        return sum(t[a, a] - t[a, b] for a, b in pairs) / len(pairs)

    found = np.array([of(order) for order in permutations(range(K))])
    return np.mean(np.abs(found) >= abs(found[0]) - 1e-9)


def by_traces(table):
    """The sum of the table is the same in all orders, so the trace alone tells the effect."""
    K, whole, rows = len(table), table.sum(), torch.arange(len(table))
    traces = torch.stack([table[rows, list(order)].sum() for order in permutations(range(K))])
    size = (traces / K - (whole - traces) / (K * (K - 1))).abs()
    return (size >= size[0] - 1e-9).double().mean()


def moved_together(table):
    found = [effect(table[list(order)][:, list(order)]) for order in permutations(range(len(table)))]
    return sum(abs(e) >= abs(effect(table)) - 1e-9 for e in found) / len(found)


def topic(lm):
    kg = lens.data.knowledge("fruit")
    some = list({p.fact: p for p in kg.unseen}.values())[:4]
    return lm, some, [p.target for p in some[1:] + some[:1]], lens.mask.shipped("fruit"), lens.mask.shipped("sun")


def rise(lm, prompts, tails, mask, mean=True):
    traces = lens.capture(lm, [p.text for p in prompts], tails)
    total = sum(without_matrices(lm, t, mask) for t in traces)
    return total / len(prompts) if mean else total


def three(lm, prompts, wrong, own, other, **options):
    true = [p.target for p in prompts]
    cases = ((true, own), (wrong, own), (wrong, other))
    return [rise(lm, prompts, tails, mask, **options) for tails, mask in cases]


def one_at_a_time(lm, prompts, wrong, own, other):
    """A trace for each fact, the dense gradient."""
    found = torch.zeros(3)
    for p, tail in zip(prompts, wrong):
        true, false = lens.capture(lm, p.text, p.target), lens.capture(lm, p.text, tail)
        found += torch.stack([dense(lm, true, own), dense(lm, false, own), dense(lm, false, other)])
    return found / len(prompts)


ANSWERS = {
    "over_chance": Answers(
        right=[12 / (3 + 8 / 3), torch.tensor(36 / 17), 2.118, np.float32(2.1176)],
        wrong={
            "One density was taken for both": 0.75 / 0.5,
            "averaged as if both sites": 0.75 / ((1 / 4 + 2 / 3) / 2),
            "Lengths were added": (6 / 10) / ((6 / 4 + 4 * 2 / 3) / 10),
            "two sites' ratios were averaged": (3 + 1.125) / 2,
            "This is the share": 0.75,
            "what chance gives": (3 + 8 / 3) / 16,
            "other way round": 17 / 36,
        },
        blind=[3 * 8 / 3, 0.75 * 2],
    ),
    "promise": Answers(
        right=[without_matrices, dense, token_by_token],
        wrong={
            "sign is reversed": lambda *given: without_matrices(*given, sign=1),
            "Sizes were added": lambda *given: -dense(*given, change=lambda m, w, g: m * (w * g).abs()),
            "outside the mask": lambda *given: dense(*given, change=lambda m, w, g: (1 - m) * w * g),
            "where is the mask": lambda *given: dense(*given, change=lambda m, w, g: w * g),
            "Only the last token": lambda *given: dense(*given, pick=lambda g: torch.outer(g.x[-1], g.delta[-1])),
            "mean over the tokens": lambda *given: dense(*given, pick=lambda g: g.dense() / len(g)),
            "without the weights": lambda *given: dense(*given, change=lambda m, w, g: m * g),
            "energy of the gradient": lambda *given: -dense(*given, change=lambda m, w, g: m * g**2),
            "mean over the sites": lambda lm, trace, mask: dense(lm, trace, mask) / len(mask.bits),
            "stopped with": lambda *given: dense(*given, pick=lambda g: g.dense().T),
        },
        context=lambda lm: (lm,),
    ),
    "exact_p": Answers(
        right=[exact, in_pairs, by_traces],
        wrong={
            "true order is missing": lambda table: (
                sum(abs(e) > abs(effect(table)) for e in effects(table)) / len(effects(table))
            ),
            "The + 1 is for random draws": lambda table: (
                (1 + exact(table) * len(effects(table))) / (1 + len(effects(table)))
            ),
            "This p is one-sided: take": lambda table: (
                sum(e >= effect(table) for e in effects(table)) / len(effects(table))
            ),
            "toward the sign": lambda table: (
                sum(e * (1 if effect(table) > 0 else -1) >= abs(effect(table)) for e in effects(table))
                / len(effects(table))
            ),
            "moved together": moved_together,
            "1 − p": lambda table: 1 - exact(table),
        },
        blind=[
            lambda table: exact(table) / 2,
            lambda table: 2 * exact(table),
        ],
    ),
    "wrong_tail": Answers(
        right=[three, one_at_a_time, lambda *given: np.array(three(*given))],
        wrong={
            "first two are exchanged": lambda *given: [three(*given)[i] for i in (1, 0, 2)],
            "last two are exchanged": lambda *given: [three(*given)[i] for i in (0, 2, 1)],
            "masks are exchanged": lambda lm, prompts, wrong, own, other: three(lm, prompts, wrong, other, own),
            "Keep the sign": lambda *given: np.abs(three(*given)),
            "true tail was used throughout": lambda lm, prompts, wrong, own, other: three(
                lm, prompts, [p.target for p in prompts], own, other
            ),
            "control has the true tail": lambda lm, prompts, wrong, own, other: [
                *three(lm, prompts, wrong, own, other)[:2],
                rise(lm, prompts, [p.target for p in prompts], other),
            ],
            "constant factor": lambda *given: three(*given, mean=False),
            "opposite way": lambda *given: [-v for v in three(*given)],
        },
        context=topic,
        computed=True,
    ),
}
