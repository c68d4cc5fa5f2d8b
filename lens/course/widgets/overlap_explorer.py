"""Do two or three subnetworks share more weights than chance would have them share, and in which layers and sites?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import combinations
from operator import and_

from lens.course.widgets.explorer import Explorer, page
from lens.course.widgets.in_page import digests, in_page
from lens.course.widgets.mask_cases import AskedFact, said, typed
from lens.course.widgets.named_masks import Masks, named
from lens.given import RULES, door
from lens.mask import Subnetwork
from lens.model import LanguageModel
from lens.overlap import Measured, Overlap, compare, union
from lens.overlap.sets import of_neurons, site

FEW = 6
"""Up to so many subnetworks, of all or of one TargetKG, every three are compared, and every two by layer and site."""

MOST = 30
"""Subnetworks of one explorer: 435 pairs."""


class OverlapExplorer(Explorer):
    """Subnetworks two or three at a time: a Venn diagram, its counts, and the IoU, each beside what chance would give.

    ``subnetworks``: a list, or a dict by (TargetKG, seed), of 2 to 30; files may stand in their place.  Every two are
    compared.  Where there are more than six, comparisons by layer and site, and of three, are kept for those of one
    TargetKG; in a running notebook any three can be chosen.  With their model ``lm`` a prompt can be typed, to see
    what is said without the weights that they share, or that only one of them has; ``k``: words shown behind it.
    Raises what ``lens.overlap.compare`` and ``load`` raise, and ``ValueError`` for another model than theirs.

    >>> import lens
    >>> explorer = OverlapExplorer([lens.mask.shipped("building", seed) for seed in range(3)])
    >>> sorted(explorer.state["found"]), explorer.state["parts"][:2]
    (['0,1', '0,1,2', '0,2', '1,2'], ['all layers and sites', 'layer 4'])
    """

    _esm, _css = page("overlap")

    @door(k=RULES["count"])
    def __init__(self, subnetworks: Masks, lm: LanguageModel | None = None, k: int = 4):
        self._masks, self._lm, self._k = named(subnetworks), lm, k
        if not 2 <= len(self._masks) <= MOST:
            raise ValueError(f"Give 2 to {MOST} subnetworks to compare, not {len(self._masks)}.")
        if lm is not None:
            self._masks[0].subnetwork.check(lm)  # that all are of one model compare() says
        numbers = range(len(self._masks))
        groups = [one.group for one in self._masks]
        close = [numbers] if len(numbers) <= FEW else [[i for i in numbers if groups[i] == g] for g in set(groups)]
        near = {some for each in close if len(each) <= FEW for n in (2, 3) for some in combinations(each, n)}
        found = {some: self._found(some, some in near) for some in sorted({*near, *combinations(numbers, 2)})}
        overlap = self._compare((0, 1))
        state = {"masks": [{"group": one.group, "label": one.label} for one in self._masks], "unit": overlap.unit}
        state |= {"parts": ["all layers and sites", *(name for name, _ in _by_part(overlap))]}
        state |= {"found": {",".join(map(str, some)): each for some, each in found.items()}, "asks": lm is not None}
        masks = digests(one.subnetwork for one in self._masks)  # a page that has no model can still compare
        kernel = (lm and in_page("overlap", lm, masks=masks, k=k)) or {"explorer": "overlap", "masks": masks}
        super().__init__(state | {"kernel": kernel})

    def _compare(self, some: Iterable[int]) -> Overlap:
        return compare({i: self._masks[i].subnetwork for i in some})

    def _found(self, some: tuple[int, ...], by_part: bool) -> list:
        """What ``_row`` says of all, and where it is asked for of each layer and each site."""
        overlap = self._compare(some)
        return [_row(overlap), *(_row(part) for _, part in _by_part(overlap) if by_part)]

    def compute(self, request: dict) -> dict:
        """Any two or three subnetworks by number, ``of``, with all their parts.

        With a typed ``prompt``, what the model says without each region of their Venn diagram, without each of them,
        and without all.
        """
        asked, known = request.get("of"), range(len(self._masks))
        of = tuple(sorted({i for i in asked if isinstance(i, int) and i in known})) if isinstance(asked, list) else ()
        if len(of) not in (2, 3):
            raise ValueError("Choose two or three different subnetworks.")
        name = {"of": ",".join(map(str, of))}
        if "prompt" not in request:
            return {**name, "found": self._found(of, True)}
        if self._lm is None:
            raise ValueError("This explorer has no model to ask: give it one, OverlapExplorer(subnetworks, lm).")
        asked = [AskedFact("typed", *typed(self._lm, str(request["prompt"]).rstrip()))]
        return name | said(self._lm, asked, removals([self._masks[i].subnetwork for i in of]), self._k)

    def summary(self) -> str:
        """What the explorer shows, in a sentence of plain text."""
        return f"Overlap of every two of these subnetworks beside chance: {'; '.join(map(str, self._masks))}."


def _by_part(overlap: Overlap) -> list[tuple[str, Overlap]]:
    layers = [(f"layer {layer}", part) for layer, part in overlap.by("layer").items()]
    return [*layers, *overlap.by("site").items()]


def _row(overlap: Overlap) -> list:
    """[number of weights, sizes, regions, in all, IoU]; a region, in the order of its bits from 1, is [count, chance]
    and the last two are [observed, expected, low, high]."""
    names = overlap.names
    regions = [[name for i, name in enumerate(names) if bits >> i & 1] for bits in range(1, 1 << len(names))]
    exactly = [overlap.exactly(*some) for some in regions]
    shared, iou = overlap.intersection(), overlap.iou()
    sizes = list(overlap.sizes().values())
    return [shared.of, sizes, [[m.observed, _whole(m.expected)] for m in exactly], _four(shared), _four(iou)]


def _four(m: Measured) -> list[float]:
    return [m.observed, *map(_whole, (m.expected, m.low, m.high))]


def _whole(value: float) -> float:
    """Large counts without their fraction, which nobody reads and every page would carry."""
    return round(value) if value >= 100 else value


def removals(subnetworks: Sequence[Subnetwork]) -> list[Subnetwork]:
    """Of n subnetworks the 2ⁿ − 1 regions in the order of their bits from 1, then each as a whole, then their union.

    Bit i of a region says whether it lies inside subnetwork i; where some consist of weights, so do the regions.

    >>> from lens.mask import shipped
    >>> only_a, only_b, both, *_, either = removals([shipped("building", 0), shipped("building", 1)])
    >>> both.density() < only_a.density() < either.density()
    True
    """
    like = next((one for one in subnetworks if not of_neurons(one)), subnetworks[0])
    masks = {key: site(subnetworks, key) for key in like.bits}

    def region(inside: int) -> Subnetwork:
        held = {
            key: reduce(and_, (m if inside >> i & 1 else ~m for i, m in enumerate(some))) for key, some in masks.items()
        }
        return like.with_bits(held, "a region")

    return [*map(region, range(1, 1 << len(subnetworks))), *subnetworks, union(subnetworks)]
