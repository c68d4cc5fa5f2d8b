"""Checks of *Overlap analysis*: what chance gives module by module, and what a common weight is worth."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import SWAPPED, Then
from lens.course.check.seeded import seeded
from lens.course.check.untouched import changes
from lens.mask import Subnetwork
from lens.overlap import at_least

MODULES = ((100, 50, 40), (900, 10, 10))  # weights, in the one mask, in the other


def _expected(chance=lambda n, a, b: a * b / n, modules=MODULES):
    return sum(chance(*module) for module in modules)


by_chance = Value(
    _expected,
    {
        "Rounded to one decimal, this cannot be told from a wrong number of weights: give two.": lambda: 20.1,
        "The modules were pooled: the null hypothesis keeps each mask's size in each module, and adds up.": (
            dict(modules=[[*map(sum, zip(*MODULES))]])
        ),
        "The second module adds a little too, though its masks are small.": dict(modules=MODULES[:1]),
        "The modules' chances were averaged: numbers of shared weights add up.": Then(lambda n: n / len(MODULES)),
        "This is a sum of probabilities; each is that of one weight, and a module has N of them.": (
            dict(chance=lambda n, a, b: a * b / n**2)
        ),
        "This is an IoU or a share; the number of shared weights is asked for.": (
            Then(lambda expected: expected / (sum(a + b for _, a, b in MODULES) - expected))
        ),
    },
    "No discovery: the two masks favor the same module, and chance does the rest.",
    tolerance=3e-4,
)


def _triples() -> list[tuple]:
    """Lists of modules of different shapes and densities, whose masks agree more than by chance."""
    draw = seeded(torch.rand)

    def module(rows, columns, *densities):
        noise = draw(4, rows, columns)
        return (noise[:3] + noise[3]) / 2 < torch.tensor(densities)[:, None, None]

    return [
        ((module(8, 30, 0.3, 0.4, 0.5),),),
        ((module(20, 7, 0.6, 0.5, 0.45), module(40, 25, 0.2, 0.3, 0.25)),),
    ]


def _count(modules, k: int = 2) -> int:
    return sum(int((m.sum(0) >= k).sum()) for m in modules)


def _expecting(rule):
    """Σ over modules of N times ``rule(p, q, r)``, the densities of the three masks."""
    return lambda modules: sum(m[0].numel() * rule(*m.double().mean((1, 2)).tolist()) for m in modules)


def _exactly_two(modules) -> int:
    return _count(modules) - _count(modules, 3)


AT_LEAST_TWO = _expecting(lambda p, q, r: p * q + p * r + q * r - 2 * p * q * r)
EXACTLY_TWO = _expecting(lambda p, q, r: p * q + p * r + q * r - 3 * p * q * r)


def _both(modules, observed=_count, expected=AT_LEAST_TWO) -> tuple[int, float]:
    return observed(modules), expected(modules)


two_of_three = Function(
    _both,
    _triples,
    {
        "Expected: the three pairs were added up; but a weight of all three masks belongs to every pair.": (
            dict(expected=_expecting(lambda p, q, r: p * q + p * r + q * r))
        ),
        "Both numbers are those of exactly two masks; at least two is asked for, and all three belong to it.": (
            dict(observed=_exactly_two, expected=EXACTLY_TWO)
        ),
        "Expected: this is the chance of exactly two masks, while the count is of at least two.": (
            dict(expected=EXACTLY_TWO)
        ),
        "Observed: these are exactly two masks; a weight in all three is in at least two.": dict(observed=_exactly_two),
        "These are the weights in all three masks, the intersection; two suffice here.": (
            dict(observed=lambda modules: _count(modules, 3), expected=_expecting(lambda p, q, r: p * q * r))
        ),
        "Expected: the modules were pooled, but the null hypothesis keeps the sizes in each module.": (
            dict(expected=lambda modules: AT_LEAST_TWO([torch.cat([m.flatten(1) for m in modules], 1)[:, None]]))
        ),
        "Expected: this adds up probabilities; each module has N weights of that probability.": (
            dict(expected=lambda modules: sum(AT_LEAST_TWO([m]) / m[0].numel() for m in modules))
        ),
        "The two numbers are exchanged: observed first, then expected.": SWAPPED,
    },
    "Observed, and by chance as lens.overlap computes it.",
)


def _two(answer) -> tuple[torch.Tensor, torch.Tensor]:
    one, other = (torch.as_tensor(mask).bool() for mask in answer)
    if one.shape != (20, 30) or other.shape != (20, 30) or not (one.any() and other.any()):
        raise ValueError("not two masks of that shape")
    return one.double(), other.double()


def _compared(holds):
    """A claim on how many weights are shared, and how many by chance where sizes, rows' or columns' counts are kept."""

    def claim(answer) -> bool:
        one, other = _two(answer)
        rows, columns = ((one.sum(axis) * other.sum(axis)).sum() / one.shape[axis] for axis in (1, 0))
        return holds((one * other).sum(), one.sum() * other.sum() / one.numel(), rows + 1e-6, columns + 1e-6)

    return claim


same_rows = Claims(
    {
        "Two masks are asked for.": lambda answer: len(answer) == 2,
        "Two masks of shape [20, 30] are asked for, each with some weights in it.": _two,
        "They share less than three times what their sizes give: let both use fewer rows, the same ones.": (
            _compared(lambda shared, sizes, rows, columns: shared >= 3 * sizes)
        ),
        "It is their columns that explain the agreement; rows are the first axis, the inputs.": (
            _compared(lambda shared, sizes, rows, columns: not rows < shared <= columns)
        ),
        "They share more than their rows explain: inside the rows they agree on single weights.": (
            _compared(lambda shared, sizes, rows, columns: shared <= rows)
        ),
        "The two are one mask: which agreement of two different ones would their rows explain?": (
            lambda answer: not torch.equal(*_two(answer))
        ),
    },
    "Far above one null hypothesis, not above the other: the agreement is about rows.",
)


def _rest(mine, others, k: int = 2) -> dict:
    """``mine`` without what at least ``k`` of the others have."""
    general = at_least(others, k)
    return {key: bits & ~general.bits[key] for key, bits in mine.bits.items()}


def _meets(one, bits) -> bool:
    return any((one.bits[key] & b).count() for key, b in bits.items())


def _within(one, mine) -> bool:
    return not _meets(one, {key: ~bits for key, bits in mine.bits.items()})


general = Claims(
    {
        "Two subnetworks are asked for: (without its general weights, the control).": (
            lambda pair, *_: len(pair) == 2 and all(isinstance(one, Subnetwork) for one in pair)
        ),
        "The first holds weights that your mask does not have.": lambda pair, mine, _: _within(pair[0], mine),
        "The two are exchanged: the control comes second.": (
            lambda pair, *given: pair[1].bits != _rest(*given) or pair[0].bits == _rest(*given)
        ),
        "Weights of only one other mask are gone too: is your own mask among the others, or is k = 1?": (
            lambda pair, *given: pair[0].bits != _rest(*given, k=1)
        ),
        "The first is the general part itself; your mask without it is asked for.": (
            lambda pair, *given: not _meets(pair[0], pair[0].bits) or _meets(pair[0], _rest(*given))
        ),
        "The first is not your mask without what at least two of the others have.": (
            lambda pair, *given: pair[0].bits == _rest(*given)
        ),
        "The control holds weights that your mask does not have: it is a part of your mask, like the first.": (
            lambda pair, mine, _: _within(pair[1], mine)
        ),
        "The control is the first once more: draw it at random.": lambda pair, *_: pair[0].bits != pair[1].bits,
        "The control has not as many weights as the first in each module: then it also differs in where it lies.": (
            lambda pair, *_: all(pair[1].bits[key].count() == bits.count() for key, bits in pair[0].bits.items())
        ),
    },
    "A fair pair: what is left differs only in which weights they are.",
)


silence = Value(
    changes,
    {
        "Nothing changes: read inside the `with` block, where the subnetwork is removed.": lambda *given: [0.0, 0.0],
        "The two are exchanged: the control comes second.": SWAPPED,
        "This is how much the control is ahead: both changes are asked for.": Then(lambda both: both[1] - both[0]),
    },
    "Measured as lens measures: now compare, and ask what the general weights do alone.",
    tolerance=0.01,
)
