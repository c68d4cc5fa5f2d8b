"""How much do subnetworks share, and is it more than chance?  All overlaps of up to 16 masks, each beside its null.

    IoU = |A ∩ B| / |A ∪ B|,     for n masks  |∩| / |∪|

The masks are read once, a site at a time, into the counts of their membership patterns (``counting``).  Everything
asked later is a sum of these; what chance would give follows from the sizes alone (``chance``).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from lens.given import passes, whole
from lens.mask.subnetwork import BY, SiteKey
from lens.overlap import chance
from lens.overlap.counting import patterns
from lens.overlap.sets import Some, named, of_neurons, site
from lens.results import markdown


@dataclass(frozen=True)
class Measured:
    """A number beside what chance gives: ``expected`` on average, and ``low`` to ``high`` in 95 of 100 draws.

    ``of``: the number of weights (or neurons) there are; of an IoU, 1.
    """

    observed: float
    expected: float
    low: float
    high: float
    of: float

    @property
    def share(self) -> float:
        """``observed`` of ``of``."""
        return self.observed / self.of

    @property
    def ratio(self) -> float:
        """How many times as much as by chance; not a number where both are 0."""
        return self.observed / self.expected if self.expected else float("inf" if self.observed else "nan")

    def __str__(self) -> str:
        text = [_number(v) for v in (self.observed, self.expected, self.low, self.high)]
        return f"{text[0]} (chance {text[1]} [{text[2]}, {text[3]}])"


@dataclass(frozen=True, eq=False)  # arrays have no truth
class Overlap:
    """What ``compare`` found: ``overlap.iou("a", "b")``, and so on; without names, of all masks.

    ``counts`` int64 [S, 2ⁿ]: of each of the S ``sites``, how many weights are in exactly the masks whose bits are set;
    ``columns`` [S]: weights of a row (1 where neurons are counted); ``by_row`` [n]: which masks are of whole rows.
    """

    names: tuple[Hashable, ...]
    sites: tuple[SiteKey, ...] = field(repr=False)
    counts: np.ndarray = field(repr=False)
    columns: np.ndarray = field(repr=False)
    by_row: tuple[bool, ...] = field(repr=False)
    unit: str

    def sizes(self) -> dict[Hashable, int]:
        """How many weights (or neurons) are in each."""
        return dict(zip(self.names, self._sizes(range(len(self.names))).sum(1).tolist()))

    def intersection(self, *names: Hashable) -> Measured:
        """In all of the named; raises ``ValueError``, as all of these do, for a name that is none."""
        return self.at_least(len(self._chosen(names)), *names)

    def union(self, *names: Hashable) -> Measured:
        """In any of the named."""
        return self.at_least(1, *names)

    def at_least(self, k: int, *names: Hashable) -> Measured:
        """In at least ``k`` of the named; ``ValueError`` for a k that is not from 1 to their number."""
        chosen = self._chosen(names)
        if not passes(whole, k, 1, len(chosen)):
            raise ValueError(
                f"k is {k!r} and there are {len(chosen)} masks: give a whole number from 1 to {len(chosen)}."
            )
        held = np.arange(self.counts.shape[1])
        observed = self.counts[:, sum(held >> i & 1 for i in chosen) >= k].sum()
        mean, covariance = self._moments(chosen)
        return self._beside(int(observed), mean[k], covariance[k, k])

    def exactly(self, *names: Hashable) -> Measured:
        """In all of the named and in no other of the masks: a region of a Venn diagram."""
        inside = self._chosen(names)
        outside = [i for i in range(len(self.names)) if i not in inside]
        observed = int(self.counts[:, sum(1 << i for i in inside)].sum())
        mean, covariance = self._moments([*inside, *outside], len(outside))
        return self._beside(observed, mean[-1], covariance[-1, -1])

    def iou(self, *names: Hashable) -> Measured:
        """Intersection over union, 1 where both are empty; its chance to the second order in the spread of both."""
        chosen = self._chosen(names)
        shared, any_of = self.intersection(*names).observed, self.union(*names).observed
        mean, covariance = self._moments(chosen)
        if not any_of:
            return Measured(1.0, 1.0, 1.0, 1.0, 1)
        base, ratio = mean[1], mean[-1] / mean[1]  # E[I/U] and var(I/U) by the delta method
        spread = covariance[-1, -1] - 2 * ratio * covariance[-1, 1] + ratio**2 * covariance[1, 1]
        expected = ratio + (ratio * covariance[1, 1] - covariance[-1, 1]) / base**2
        low, high = chance.interval(expected * base, max(0.0, spread))
        return Measured(shared / any_of, float(expected), float(low / base), min(1.0, float(high / base)), 1)

    def pairs(self) -> dict[tuple[Hashable, Hashable], Measured]:
        """The IoU of every two."""
        return {pair: self.iou(*pair) for pair in combinations(self.names, 2)}

    def by(self, what: str) -> dict[Hashable, Overlap]:
        """The same for each ``"layer"``, ``"site"`` or ``"module"`` (layer, site) alone; ``ValueError`` for another."""
        if what not in BY:
            raise ValueError(f"Overlap by {what!r} is not known: choose one of {', '.join(BY)}.")
        found: dict[Hashable, list[int]] = {}
        for i, key in enumerate(self.sites):
            found.setdefault(BY[what](key), []).append(i)
        return {name: self._part(some) for name, some in found.items()}

    def shuffled(self, draws: int = 20, seed: int = 0) -> Iterator[Overlap]:
        """The null hypothesis, drawn: overlaps of random masks, as large in each site as the observed.

        A permutation check of every chance level: ``[one.iou().observed for one in overlap.shuffled()]``.
        """
        generator = np.random.default_rng(seed)
        weights, sizes = self.counts.sum(1), self._sizes(range(len(self.names)))
        for _ in range(draws):
            each = zip(weights, self.columns, sizes.T)
            yield replace(self, counts=np.stack([chance.drawn(*one, self.by_row, generator) for one in each]))

    def table(self) -> str:
        """Sizes, the IoU of each pair, and what all share, as a Markdown table with chance beside each number."""
        total, sizes = int(self.counts.sum()), self.sizes()
        lines = [[f"of {total} {self.unit}", "", "chance", "95 % of chance", "× chance"]]
        lines += [[f"{name}", f"{size} ({100 * size / total:.2f} %)", "", "", ""] for name, size in sizes.items()]
        rows = {f"IoU of {a} and {b}": m for (a, b), m in self.pairs().items()}
        n = len(self.names)
        if n > 2:
            rows |= {"IoU of all": self.iou()}
        rows |= {"in all": self.intersection()}
        rows |= {f"in at least {k}": self.at_least(k) for k in range(n - 1, 1, -1)} | {"in any": self.union()}
        for name, m in rows.items():
            reach = f"{_number(m.low)} to {_number(m.high)}"
            lines.append([name, _number(m.observed), _number(m.expected), reach, f"{m.ratio:.3g}"])
        return markdown.table(lines)

    def __str__(self) -> str:
        return self.table()

    def _part(self, some: list[int]) -> Overlap:
        return replace(
            self, sites=tuple(self.sites[i] for i in some), counts=self.counts[some], columns=self.columns[some]
        )

    def _chosen(self, names: Sequence[Hashable]) -> list[int]:
        for name in names:
            if name not in self.names:
                raise ValueError(f"There is no mask {name!r}: choose of {', '.join(map(repr, self.names))}.")
        return sorted({self.names.index(name) for name in names or self.names})

    def _sizes(self, chosen: Sequence[int]) -> np.ndarray:
        held = np.arange(self.counts.shape[1])
        return np.stack([self.counts[:, (held >> i & 1) == 1].sum(1) for i in chosen])  # [n, S]

    def _moments(self, chosen: Sequence[int], without: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Of "in at least k of the chosen", the last ``without`` of which stand for their complements."""
        weights, sizes = self.counts.sum(1), self._sizes(chosen)
        if without:
            sizes[-without:] = weights - sizes[-without:]
        return chance.moments(weights, self.columns, sizes, [self.by_row[i] for i in chosen])

    def _beside(self, observed: int, mean: float, variance: float) -> Measured:
        of = int(self.counts.sum())
        low, high = chance.interval(float(mean), float(variance))
        return Measured(observed, float(mean), low, min(high, of), of)


def compare(subnetworks: Some) -> Overlap:
    """Every overlap of 2 to 16 subnetworks of one model and the same sites, beside what chance would give.

    ``subnetworks``: name → subnetwork, or a sequence (then the names are 0, 1, …).  In place of one may stand its file:
    then its masks are read a site at a time, so that memory holds one site of each.  Neurons are counted as neurons
    where all are; beside masks of weights, with all their weights.

    Raises ``ValueError`` in one sentence for too few or too many, another model or other sites, ``TypeError`` for what
    is no subnetwork, and ``OSError`` for a file that is none.

    >>> from lens.mask import shipped
    >>> overlap = compare({seed: shipped("building", seed) for seed in range(3)})
    >>> overlap.iou().observed < overlap.iou(0, 1).observed, overlap.iou(0, 1).ratio > 5
    (True, True)
    """
    some = named(subnetworks)
    all_of, sites = list(some.values()), tuple(next(iter(some.values())).shapes)
    by_row = [of_neurons(one) for one in all_of]
    found, columns = [], []
    for key in sites:
        masks = site(all_of, key)
        rows, width = masks[0].shape
        found.append(patterns([mask.bytes for mask in masks], rows * width))
        columns.append(width)
    unit = "neurons" if all(by_row) else "weights"
    drawn_by_row = tuple(row and unit == "weights" for row in by_row)
    return Overlap(tuple(some), sites, np.stack(found), np.array(columns), drawn_by_row, unit)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or value >= 1000 else f"{value:.3g}"
