"""Checks of *Overlap analysis*: what chance gives module by module, and what a common weight is worth."""

from __future__ import annotations

import numpy as np
import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.evaluate.readings import Readings
from lens.mask import Subnetwork
from lens.overlap import at_least, chance

MODULES = ((100, 50, 40), (900, 10, 10))  # weights, in the one mask, in the other


def _pooled() -> float:
    n, a, b = (sum(column) for column in zip(*MODULES))
    return a * b / n


by_chance = Value(
    lambda: sum(a * b / n for n, a, b in MODULES),
    {
        "Rounded to one decimal, this cannot be told from a wrong number of weights: give two.": lambda: 20.1,
        "The modules were pooled: the null hypothesis keeps each mask's size in each module, and adds up.": _pooled,
        "The second module adds a little too, though its masks are small.": lambda: 50 * 40 / 100,
        "The modules' chances were averaged: numbers of shared weights add up.": (
            lambda: sum(a * b / n for n, a, b in MODULES) / len(MODULES)
        ),
        "This is a sum of probabilities; each is that of one weight, and a module has N of them.": (
            lambda: sum(a * b / n**2 for n, a, b in MODULES)
        ),
        "This is an IoU or a share; the number of shared weights is asked for.": (
            lambda: sum(a * b / n for n, a, b in MODULES) / sum(a + b - a * b / n for n, a, b in MODULES)
        ),
    },
    "No discovery: the two masks favor the same module, and chance does the rest.",
    tolerance=3e-4,
)


def _triples() -> list[tuple]:
    """Lists of modules of different shapes and densities, whose masks agree more than by chance."""
    generator = torch.Generator().manual_seed(0)

    def module(rows, columns, *densities):
        noise = torch.rand(4, rows, columns, generator=generator)
        return (noise[:3] + noise[3]) / 2 < torch.tensor(densities)[:, None, None]

    return [
        ((module(8, 30, 0.3, 0.4, 0.5),),),
        ((module(20, 7, 0.6, 0.5, 0.45), module(40, 25, 0.2, 0.3, 0.25)),),
    ]


def _rates(m: torch.Tensor) -> list[float]:
    return m.double().mean((1, 2)).tolist()


def _observed(modules, k: int = 2) -> int:
    return sum(int((m.sum(0) >= k).sum()) for m in modules)


def _two_of_three(modules) -> tuple[int, float]:
    weights = np.array([m[0].numel() for m in modules])
    columns = np.array([m.shape[2] for m in modules])
    sizes = np.array([m.sum((1, 2)).tolist() for m in modules]).T
    mean, _ = chance.moments(weights, columns, sizes, np.zeros(3, bool))
    return _observed(modules), float(mean[2])


def _expecting(rule):
    """What a reader gets who counts right and expects ``rule(p, q, r)`` of each weight."""
    return lambda modules: (_observed(modules), sum(m[0].numel() * rule(*_rates(m)) for m in modules))


def _all_pooled(modules) -> tuple[int, float]:
    total = sum(m[0].numel() for m in modules)
    p, q, r = (sum(int(m[i].sum()) for m in modules) / total for i in range(3))
    return _observed(modules), total * (p * q + p * r + q * r - 2 * p * q * r)


two_of_three = Function(
    _two_of_three,
    _triples,
    {
        "Expected: the three pairs were added up; but a weight of all three masks belongs to every pair.": (
            _expecting(lambda p, q, r: p * q + p * r + q * r)
        ),
        "Both numbers are those of exactly two masks; at least two is asked for, and all three belong to it.": (
            lambda modules: (
                _observed(modules) - _observed(modules, 3),
                _expecting(lambda p, q, r: p * q + p * r + q * r - 3 * p * q * r)(modules)[1],
            )
        ),
        "Expected: this is the chance of exactly two masks, while the count is of at least two.": (
            _expecting(lambda p, q, r: p * q + p * r + q * r - 3 * p * q * r)
        ),
        "Observed: these are exactly two masks; a weight in all three is in at least two.": (
            lambda modules: (_observed(modules) - _observed(modules, 3), _two_of_three(modules)[1])
        ),
        "These are the weights in all three masks, the intersection; two suffice here.": (
            lambda modules: (_observed(modules, 3), _expecting(lambda p, q, r: p * q * r)(modules)[1])
        ),
        "Expected: the modules were pooled, but the null hypothesis keeps the sizes in each module.": _all_pooled,
        "Expected: this adds up probabilities; each module has N weights of that probability.": (
            lambda modules: (_observed(modules), sum(_two_of_three((m,))[1] / m[0].numel() for m in modules))
        ),
        "The two numbers are exchanged: observed first, then expected.": lambda modules: _two_of_three(modules)[::-1],
    },
    "Observed, and by chance as lens.overlap computes it.",
)


def _two(answer) -> tuple[torch.Tensor, torch.Tensor]:
    one, other = (torch.as_tensor(mask).bool() for mask in answer)
    if one.shape != (20, 30) or other.shape != (20, 30) or not (one.any() and other.any()):
        raise ValueError("not two masks of that shape")
    return one.double(), other.double()


def _shared(answer) -> float:
    one, other = _two(answer)
    return float((one * other).sum())


def _by_size(answer) -> float:
    one, other = _two(answer)
    return float(one.sum() * other.sum() / one.numel())


def _by_line(answer, axis: int) -> float:
    """Expected where the counts along ``axis`` are kept: 1 for rows, 0 for columns."""
    one, other = _two(answer)
    return float((one.sum(axis) * other.sum(axis)).sum() / one.shape[axis])


same_rows = Claims(
    {
        "Two masks are asked for.": lambda answer: len(answer) == 2,
        "Two masks of shape [20, 30] are asked for, each with some weights in it.": lambda answer: bool(_two(answer)),
        "They share less than three times what their sizes give: let both use fewer rows, the same ones.": (
            lambda answer: _shared(answer) >= 3 * _by_size(answer)
        ),
        "It is their columns that explain the agreement; rows are the first axis, the inputs.": (
            lambda answer: not _by_line(answer, 1) + 1e-6 < _shared(answer) <= _by_line(answer, 0) + 1e-6
        ),
        "They share more than their rows explain: inside the rows they agree on single weights.": (
            lambda answer: _shared(answer) <= _by_line(answer, 1) + 1e-6
        ),
        "The two are one mask: which agreement of two different ones would their rows explain?": (
            lambda answer: not torch.equal(*_two(answer))
        ),
    },
    "Far above one null hypothesis, not above the other: the agreement is about rows.",
)


def _removing(mine, others, k: int) -> dict:
    """``mine`` without what at least ``k`` of the others have."""
    general = at_least(others, k)
    return {key: bits & ~general.bits[key] for key, bits in mine.bits.items()}


def _count(bits) -> int:
    return sum(b.count() for b in bits.values())


def _is(one, bits) -> bool:
    return all(one.bits[key] == b for key, b in bits.items())


def _within(one, mine) -> bool:
    return not any((one.bits[key] & ~bits).count() for key, bits in mine.bits.items())


general = Claims(
    {
        "Two subnetworks are asked for: (without its general weights, the control).": (
            lambda pair, *_: len(pair) == 2 and all(isinstance(one, Subnetwork) for one in pair)
        ),
        "The first holds weights that your mask does not have.": lambda pair, mine, _: _within(pair[0], mine),
        "The two are exchanged: the control comes second.": (
            lambda pair, mine, others: (
                not _is(pair[1], _removing(mine, others, 2)) or _is(pair[0], _removing(mine, others, 2))
            )
        ),
        "Weights of only one other mask are gone too: is your own mask among the others, or is k = 1?": (
            lambda pair, mine, others: not _is(pair[0], _removing(mine, others, 1))
        ),
        "The first is the general part itself; your mask without it is asked for.": (
            lambda pair, mine, others: (
                _count(pair[0].bits) == 0
                or any((pair[0].bits[key] & b).count() for key, b in _removing(mine, others, 2).items())
            )
        ),
        "The first is not your mask without what at least two of the others have.": (
            lambda pair, mine, others: _is(pair[0], _removing(mine, others, 2))
        ),
        "The control holds weights that your mask does not have: it is a part of your mask, like the first.": (
            lambda pair, mine, _: _within(pair[1], mine)
        ),
        "The control is the first once more: draw it at random.": lambda pair, *_: not _is(pair[0], pair[1].bits),
        "The control has not as many weights as the first in each module: then it also differs in where it lies.": (
            lambda pair, *_: all(pair[1].bits[key].count() == bits.count() for key, bits in pair[0].bits.items())
        ),
    },
    "A fair pair: what is left differs only in which weights they are.",
)


def _changes(pair, lm, prompts) -> list[float]:
    """Δ log p of the prompts' tails with each of the two removed."""
    readings, found = Readings(lm, {"asked": prompts}, min(layer for layer, _ in pair[0].bits)), []
    for one in pair:
        with one.removed(lm):
            found.append(readings()["asked"].delta_log_prob)
    return found


silence = Value(
    _changes,
    {
        "Nothing changes: read inside the `with` block, where the subnetwork is removed.": lambda *given: [0.0, 0.0],
        "The two are exchanged: the control comes second.": lambda *given: _changes(*given)[::-1],
        "This is how much the control is ahead: both changes are asked for.": (
            lambda *given: _changes(*given)[1] - _changes(*given)[0]
        ),
    },
    "Measured as lens measures: now compare, and ask what the general weights do alone.",
    tolerance=0.01,
)
