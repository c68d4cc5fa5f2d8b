"""With what is a subnetwork compared?  Random masks of its density, and itself with weights added or given back."""

from __future__ import annotations

import torch

from lens.given import door, number, passes
from lens.kernels import Bits, pack
from lens.mask.subnetwork import SiteKey, Subnetwork


@door
def random_like(subnetwork: Subnetwork, seed: int = 0) -> Subnetwork:
    """As many weights (or neurons) of each site as the subnetwork has there, drawn at random: the negative control.

    Draws of one seed lie in each other, whatever subnetworks they are like: give each a seed of its own where they are
    compared.

    >>> import lens
    >>> found = lens.mask.shipped("building")
    >>> lens.mask.random_like(found).density("module") == found.density("module")
    True
    """

    def drawn(bits: Bits, generator: torch.Generator) -> Bits:
        return _some(torch.ones(bits.shape, dtype=torch.bool), bits.count(), generator)

    return subnetwork.with_bits(_each(subnetwork, drawn, seed), f"random weights of equal density, seed {seed}")


@door
def grown(subnetwork: Subnetwork, share: float, seed: int = 0) -> Subnetwork:
    """The subnetwork and, in each site, further weights at random: ``share`` of as many as it has there.

    Where a site has fewer weights left, all of them.  Raises ``ValueError`` for a share below 0.
    """
    if not passes(number, share, 0):
        raise ValueError(f"share is {share!r}: give a number, 0 or larger.")

    def more(bits: Bits, generator: torch.Generator) -> Bits:
        return bits | _some(~bits.unpack(), round(share * bits.count()), generator)

    note = f"with {share:g} times as many random weights, seed {seed}"
    return subnetwork.with_bits(_each(subnetwork, more, seed), note)


@door
def shrunk(subnetwork: Subnetwork, share: float, seed: int = 0) -> Subnetwork:
    """The subnetwork without a random ``share`` (0 to 1) of its weights in each site, which the model gets back.

    Raises ``ValueError`` for a share outside 0 to 1.
    """
    if not passes(number, share, 0) or share > 1:
        raise ValueError(f"share is {share!r}: give a number from 0 to 1.")

    def fewer(bits: Bits, generator: torch.Generator) -> Bits:
        return _some(bits.unpack(), bits.count() - round(share * bits.count()), generator)

    return subnetwork.with_bits(_each(subnetwork, fewer, seed), f"{share:g} of its weights given back, seed {seed}")


def _each(subnetwork: Subnetwork, change, seed: int) -> dict[SiteKey, Bits]:
    generator = torch.Generator().manual_seed(seed)
    return {key: change(bits, generator) for key, bits in subnetwork.bits.items()}


def _some(pool: torch.Tensor, count: int, generator: torch.Generator) -> Bits:
    """``count`` of the places where ``pool`` is True, or all where there are fewer."""
    places = pool.flatten().nonzero()[:, 0]
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    return pack(torch.zeros(pool.numel(), dtype=torch.bool).index_fill_(0, chosen, True).view(pool.shape))
