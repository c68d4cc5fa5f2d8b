"""Checks of *Writing the kernels*: a floor, a tile of noise, a loss in blocks, and a search by address."""

from __future__ import annotations

import math
from functools import partial

import torch

from lens import kernels
from lens.course.check.compare import truths
from lens.course.check.exercise import Claims, Function
from lens.course.check.mistakes import Then
from lens.course.check.seeded import seeded
from lens.course.check.student import Student
from lens.kernels import Key, naive
from lens.kernels.masking import exp_minus
from lens.kernels.noise import odd, philox

STEPS, SITES = 2000, 12
FIRST_FOUR = slice(1), slice(4)


def _floor(n, d, v, b, r, of=max, width=4, ops=2, write=True, again=False, giga=1e6):
    """Of two times, in ms: that of reading [n, d] and [v, d] and writing [n, v], and that of the arithmetic."""
    numbers = n * d + (n if again else 1) * v * d + write * n * v
    return of((width * numbers / b / giga, ops * n * d * v / r / giga))


floor = Function(
    _floor,
    # One vector and many, on machines where memory is the limit and where arithmetic is.
    lambda: [(1, 768, 50000, 2000.0, 60000.0), (4096, 768, 50000, 2000.0, 60000.0), (20, 300, 1000, 10.0, 150.0)],
    {
        "The two times were added: a processor moves and computes at once, so the slower one alone sets the floor.": (
            dict(of=sum)
        ),
        "This is the arithmetic's time where reading E takes longer: the slower of the two sets the floor.": (
            dict(of=lambda times: times[1])
        ),
        "This is the time of the bytes where the arithmetic takes longer: the slower of the two sets the floor.": (
            dict(of=lambda times: times[0])
        ),
        "The result is missing from the bytes: the logits are written, and there are n · V of them.": dict(write=False),
        "Each term of a product is counted as one operation: it is two, a multiplication and an addition.": dict(ops=1),
        "Numbers were counted, not bytes: a float32 has four.": dict(width=1),
        "This is in seconds, and milliseconds are asked for.": dict(giga=1e9),
        "E was counted once for each vector: it is read once, and all vectors meet it while it is there.": (
            dict(again=True)
        ),
    },
    "One vector costs the reading of E, and the next ones are nearly free until arithmetic takes over.",
)


def _tiles() -> list[tuple]:
    """Corners of larger matrices, at places that are no multiple of four, under keys whose parts all differ."""
    draw = seeded()
    places = ((5, 7, 0, 0, Key(3, 1, 2)), (6, 9, 37, 18, Key(2026, 5, 7)), (8, 10, 1000, 41, Key(2**33 + 5, 70, 4)))
    tiles = [(draw(rows, cols), key, r, c) for rows, cols, r, c, key in places]
    return [*tiles, _tied(*tiles[1])]


def _tied(scores, *address):
    """The same tile with scores at which the two sides are equal, or as nearly so as a score allows."""
    a = _noise(scores, *address)
    scores = ((2.0**24 - a).double() / a).log().float() + 1e-6
    for _ in range(100):
        less = torch.minimum(scores - 2e-8, scores.nextafter(torch.tensor(-99.0)))
        scores = torch.where(a > (2.0**24 - a) * exp_minus(scores), less, scores)
    return scores, *address


def _halves(seed):
    return seed & 0xFFFFFFFF, seed >> 32


def _noise(scores, key, row, column, swap=False, neighbors=4, word=1, seed=_halves):
    """The odd number a of each entry of the tile; the options are ways to lose the address."""
    rows, columns = row + torch.arange(scores.shape[0])[:, None], column + torch.arange(scores.shape[1])
    first, second = (rows, columns) if swap else (columns, rows)
    four = philox((first // neighbors, second, key.step, key.site), seed(key.seed))
    four = torch.stack([f.expand(scores.shape) for f in four])
    return odd(four.gather(0, (first % 4 * word).expand(1, *scores.shape))[0])


def _drawn(scores, *address, more=torch.gt, **lost):
    """The tile's mask."""
    a = _noise(scores, *address, **lost)
    return more(a, (2.0**24 - a) * exp_minus(scores))


def _at(change):
    """The tile's mask at another address: ``change(key, row, column)``."""
    return lambda scores, *address: _drawn(scores, *change(*address))


def _sample(scores, key):
    """By the torch path, which has the bits of the others and nothing to compile."""
    with kernels.use("torch"):
        return kernels.sample(scores, key)


def _whole(scores, key, row, column):
    """By lens: the whole matrix is drawn, and the tile cut out."""
    full = torch.zeros(row + scores.shape[0], column + scores.shape[1])
    full[row:, column:] = scores
    return _sample(full, key)[row:, column:]


tile = Function(
    _whole,
    _tiles,
    {
        "This is the tile's own first corner: add row and column, for the address is that in the whole matrix.": (
            _at(lambda key, row, column: (key, 0, 0))
        ),
        "The column is no multiple of four here: the tile begins inside a group of four, not with one of its own.": (
            _at(lambda key, row, column: (key, row, column // 4 * 4))
        ),
        "On a tie the odds are not larger: m = 1 where they are, and nowhere else.": partial(_drawn, more=torch.ge),
        "Rows and columns are exchanged in the counter: (column ÷ 4, row, step, site).": partial(_drawn, swap=True),
        "Every column has a counter of its own here: four neighbors share one, column // 4, and take a word each.": (
            partial(_drawn, neighbors=1)
        ),
        "Four neighbors get the same number: they share a counter, and column % 4 says whose word is whose.": (
            partial(_drawn, word=0)
        ),
        "Step and site are exchanged in the counter: (column ÷ 4, row, step, site).": (
            _at(lambda key, *corner: (Key(key.seed, key.site, key.step), *corner))
        ),
        "The upper half of the seed is lost: it has 64 bits, and Philox takes the low and the high 32 of them.": (
            partial(_drawn, seed=lambda seed: (seed & 0xFFFFFFFF, 0))
        ),
        "The seed was passed whole: it has 64 bits, and Philox takes the low and the high 32 of them.": (
            partial(_drawn, seed=lambda seed: (seed, 0))
        ),
        "The halves of the seed are exchanged: the low one comes first.": (
            partial(_drawn, seed=lambda seed: _halves(seed)[::-1])
        ),
        "This is the remaining model's side, 1 − m: m is one where the odds a : 2²⁴ − a are larger than e⁻ˡ.": (
            Then(torch.logical_not)
        ),
        "The sign of the score is reversed: a high score makes m = 1 likely.": lambda s, *rest: _drawn(-s, *rest),
        "This mask holds no noise: 1[l > 0] is what key=None gives.": lambda scores, *rest: scores > 0,
    },
    "Your tile knows its place: it was drawn alone, and fits into the whole to the bit.",
    also={"in numbers: True and False are asked for.": lambda got, *_: truths(got)},
    room=lambda scores, *rest: 8 * scores.numel() + 64,
    too_large="more was drawn than the tile: what is above and left of it belongs to other programs.",
    last="Right but for scores at which the two sides are nearly equal: logarithms and sigmoids round there. "
    "Compare the odds themselves, with exp_minus.",
)


def _blocks() -> list[tuple]:
    """Logits in blocks of unequal width; then such that exp overflows, and such that it underflows."""
    z = 3 * seeded()(4, 23) + torch.linspace(-1, 2, 23)
    return [(z.split([10, 4, 9], 1),), ((z[:, :7] + 900).split([2, 5], 1),), ((z[:3] - 900).split([16, 7], 1),)]


def _all(blocks):
    return torch.cat(blocks, 1).double()


def _each(blocks, reduce):
    """What ``reduce`` gives for each block, [N, blocks]."""
    return torch.stack([reduce(b.double()) for b in blocks], 1)


def _kl(blocks, lse=lambda blocks: _all(blocks).logsumexp(1), mean=lambda blocks: _all(blocks).mean(1), log_v=True):
    return lse(blocks) - mean(blocks) - log_v * math.log(_all(blocks).shape[1])


uniform_kl = Function(
    _kl,
    _blocks,
    {
        "The mean of the blocks' means was taken: the blocks differ in width, so carry sums and divide by V once.": (
            dict(mean=lambda blocks: _each(blocks, lambda b: b.mean(1)).mean(1))
        ),
        "The blocks' losses were averaged: each is measured against the uniform distribution of its own block.": (
            lambda blocks: _each(blocks, lambda b: _kl([b])).mean(1)
        ),
        "The blocks' log-sum-exps were added: they are logarithms, and what adds up is their exponentials.": (
            dict(lse=lambda blocks: _each(blocks, lambda b: b.logsumexp(1)).sum(1))
        ),
        "log V is missing: without it the loss of a uniform prediction is not zero.": dict(log_v=False),
        "This is KL(p ‖ uniform), log V less the entropy: here the mean is over the uniform distribution.": (
            lambda blocks: math.log(_all(blocks).shape[1]) - naive.entropy(_all(blocks))
        ),
        "The exponentials overflow or vanish: take the largest logit so far out of exp, and put it back after log.": (
            dict(lse=lambda blocks: _each(blocks, lambda b: b.exp().sum(1)).sum(1).log())
        ),
        "This is a mean over the rows, and each row's loss is asked for, [N].": Then(torch.mean),
        "The softmax ran over the rows: the vocabulary is the second axis.": lambda blocks: _kl([_all(blocks).T]),
    },
    "A few running numbers a row, and the vocabulary may come in any pieces.",
    tolerance=1e-3,
    room=lambda blocks: max(b.numel() for b in blocks),
    too_large="a tensor larger than any block was made: the whole row is not to be there at once.",
)


def mystery(student: Student) -> tuple[torch.Tensor, torch.Tensor, int]:
    """What an exercise hands out: ``scores`` [64, 96], a ``mask`` that was drawn from them, and the run's seed."""
    generator = torch.Generator().manual_seed(student.seed)
    scores = torch.randn(64, 96, generator=generator)
    step, site = (int(torch.randint(n, (), generator=generator)) for n in (STEPS, SITES))
    return scores, _sample(scores, Key(student.seed, step, site)), student.seed


def _agreement(step, site, scores, mask, seed, part=...):
    """The share of equal decisions; none where there is no such address."""
    if min(step, site) < 0:
        return 0.0
    return float((_sample(scores[part], Key(seed, int(step), int(site))) == mask[part]).double().mean())


which_step = Claims(
    {
        "A pair of two whole numbers is asked for: (step, site).": lambda answer, *given: (
            len(answer) == 2 and all(not isinstance(a, (bool, str)) and float(a) == int(a) for a in answer)
        ),
        "Site and step are exchanged: the pair is (step, site).": (
            lambda answer, *given: answer[0] == answer[1] or _agreement(answer[1], answer[0], *given) < 1
        ),
        f"The step is a whole number below {STEPS}, the site one below {SITES}, and both count from 0.": (
            lambda answer, *given: 0 <= answer[0] < STEPS and 0 <= answer[1] < SITES
        ),
        "It agrees on the first four weights and not beyond: with so many addresses, some agree there by accident.": (
            lambda answer, *given: _agreement(*answer, *given, FIRST_FOUR) < 1 or _agreement(*answer, *given) == 1
        ),
        "The mask of this address is another one: it agrees with yours about as often as chance does.": (
            lambda answer, *given: _agreement(*answer, *given) == 1
        ),
    },
    "The address is found: a mask that nobody stored can be named by three numbers.",
)
