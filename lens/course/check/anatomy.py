"""Checks of *Anatomy*: is a density surprising, whose columns are a head's, and what a map tells of its topic."""

from __future__ import annotations

from math import sqrt

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import COMPLEMENT, NEGATED, Then
from lens.course.check.seeded import seeded
from lens.kernels import iou
from lens.mask import Subnetwork

WEIGHTS, INSIDE, DENSITY = 10_000, 1_300, 0.1
OWN, VARIANCE = INSIDE / WEIGHTS, DENSITY * (1 - DENSITY) / WEIGHTS


def _surprise(excess=OWN - DENSITY, variance=VARIANCE):
    return excess / sqrt(variance)


surprise = Value(
    _surprise,
    {
        "The module's own density is in the formula; under the even spread it has the density of the whole.": (
            dict(variance=OWN * (1 - OWN) / WEIGHTS)
        ),
        "The variance was taken for the standard deviation: its square root is missing.": dict(variance=VARIANCE**2),
        "Is the standard deviation of *one* weight in there? That of a mean over N weights is smaller, by √N.": (
            dict(variance=DENSITY * (1 - DENSITY))
        ),
        "A number of weights was divided by the deviation of a density: use counts in both, or densities in both.": (
            dict(excess=INSIDE - DENSITY * WEIGHTS)
        ),
        "This is the relative density; its distance from 1 is asked for, in deviations.": lambda: OWN / DENSITY,
        "This is the standard deviation itself: by how many of them does the module miss?": lambda: sqrt(VARIANCE),
        "The 1 − d was left out: a weight that is nearly always in, or nearly always out, varies little.": (
            dict(variance=DENSITY / WEIGHTS)
        ),
        "The sign is reversed: the module is denser than the whole.": NEGATED,
    },
    "Beyond any chance, although the module is only somewhat denser: large modules surprise easily.",
    tolerance=5e-3,
)


def _joint() -> list[tuple]:
    """Joint masks whose heads all differ in density; widths and numbers of heads that divide in more than one way."""
    draw, found = seeded(torch.rand), []
    for rows, heads, width in ((10, 4, 6), (7, 2, 3)):
        share = draw(3, heads, 1).expand(3, heads, width).flatten()
        found.append((draw(rows, len(share)) < share, heads))
    return found


def _heads(m, heads, cut=lambda m, heads: (3, heads, -1), mean=(0, 3)):
    """The means over rows and columns of what is cut out of each row."""
    return m.double().reshape(len(m), *cut(m, heads)).mean(mean)


heads = Function(
    _heads,
    _joint,
    {
        "Cut as GPT-NeoX stores it, q, k and v of each head together; here all of q comes first, then k, then v.": (
            lambda m, heads: _heads(m, heads, lambda m, heads: (heads, 3, -1)).T
        ),
        "Cut head by head, and each into q, k and v: here all of q comes first, and the shape is [3, heads].": (
            dict(cut=lambda m, heads: (heads, 3, -1))
        ),
        "A head's columns lie side by side; these are every so-manieth column.": (
            dict(cut=lambda m, heads: (3, -1, heads), mean=(0, 2))
        ),
        "These are sums; a density is the mean over the head's weights.": (
            lambda m, heads: _heads(m, heads) * m.numel() / (3 * heads)
        ),
        "These are sparsities, the shares that are not in the mask; a density is the share that is.": COMPLEMENT,
        "The rows are still there: a head has all inputs, so take the mean over them too.": dict(mean=3),
        "This divides by the density of the whole; the density itself is asked for.": Then(lambda d: d / d.mean()),
    },
    "A head's own columns: as density('head') has it.",
)


def _modules() -> list[tuple]:
    """Modules whose weights and slopes differ in size, with both signs; no two values are equal."""
    draw, found = seeded(), []
    for count, scales in ((25, ((3.0, 0.1), (1.0, 1.0), (0.3, 6.0))), (40, ((1.0, 2.0), (2.0, 0.4)))):
        drawn = [[size * draw(6 + 3 * i, 8 - i) for size in pair] for i, pair in enumerate(scales)]
        found.append((*zip(*drawn), count))
    return found


def _chosen(W, g, count, size=lambda w, slope: (w * slope).abs()):
    values = [size(w, slope) for w, slope in zip(W, g)]
    edge = torch.cat([v.flatten() for v in values]).topk(count).values[-1]
    return [v >= edge for v in values]


def _each_module(rule):
    """The largest of each module, ``rule(share of all weights, number of modules, count)`` of them."""

    def choose(W, g, count):
        total = sum(w.numel() for w in W)
        return [_chosen([w], [slope], rule(w.numel() / total, len(W), count))[0] for w, slope in zip(W, g)]

    return choose


chosen = Function(
    _chosen,
    _modules,
    {
        "The same share of each module was chosen: then every density is equal, and the map shows the method.": (
            _each_module(lambda share, n, k: round(share * k))
        ),
        "Each module gave equally many: one threshold for all of them lets the values decide.": (
            _each_module(lambda share, n, k: k // n)
        ),
        "Each module gave `count` weights; `count` is for all of them together.": _each_module(lambda share, n, k: k),
        "These are the largest |W|; the slope belongs to it.": dict(size=lambda w, g: w.abs()),
        "These are the steepest slopes |g|; the weight belongs to it: |W g|.": dict(size=lambda w, g: g.abs()),
        "The sign was kept: a large negative W g moves the loss too, so take |W g|.": dict(size=torch.mul),
        "The sign was reversed, or kept on one side: take |W g|.": dict(size=lambda w, g: -w * g),
        "These are the smallest.": dict(size=lambda w, g: -(w * g).abs()),
        "|W| and |g| were added; the change of the loss is their product.": dict(size=lambda w, g: w.abs() + g.abs()),
        "These are the values; a mask is asked for, True where a weight is chosen.": (
            lambda W, g, count: [(w * slope).abs() for w, slope in zip(W, g)]
        ),
        "One weight too few: the threshold itself belongs to the chosen (≥, not >).": (
            lambda W, g, count: _chosen(W, g, count - 1)
        ),
    },
    "One threshold for all modules: what the map shows is not put in.",
)


def _nearest(mystery: Subnetwork, labeled) -> str:
    """The topic whose masks have most in common with mystery, weight by weight."""

    def common(one: Subnetwork) -> float:
        return sum(iou(bits, one.bits[key]) for key, bits in mystery.bits.items())

    return max(labeled, key=lambda name: sum(map(common, labeled[name])) / len(labeled[name]))


whose = Claims(
    {
        "The name of a topic is asked for, a text.": lambda answer, *_: isinstance(answer, str),
        "No labeled masks have this name.": lambda answer, mystery, labeled: answer in labeled,
        "Another topic: compare where the maps are dense, whatever their mean.": (
            lambda answer, mystery, labeled: answer == _nearest(mystery, labeled)
        ),
    },
    "The right topic, from where its weights lie and without a single one of them.",
)
