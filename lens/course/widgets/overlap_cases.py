"""What does a model say without what subnetworks share, or without what only one of them has?

W ← W ∘ (1 − m),      m a region of the Venn diagram, one of the subnetworks, or all of them together
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_

from lens.mask import Subnetwork
from lens.overlap import union
from lens.overlap.sets import of_neurons, site


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
