"""How does a mask learn?  One score l per weight (or neuron), a sample of the masked weights for each step, and back.

    W ∘ (1 − m)   for the remaining model,     W ∘ m   for the subnetwork alone,     m ~ Bernoulli(σ(l))

A step samples each matrix once into a leaf of autograd's graph; however many passes use it, their gradients add up
there, and the straight-through rule takes the sum to the scores in one sweep (``lens.kernels.masking``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, log

import torch
from torch import Tensor

from lens import kernels
from lens.kernels import Bits, Key, pack
from lens.mask.places import Place
from lens.mask.subnetwork import Subnetwork

MaskedWeights = dict[tuple[int, str], Tensor]
"""(layer, path of a module below it) → a weight to be used in place of the module's own, oriented as it is."""


class Scores:
    """The scores of ``places``, all at l = log(start/(1 − start)), in ``values``: one float32 tensor per place.

    ``"weight"``: of the stored weight's shape; entries of sites that are not masked have l = −∞ for good.
    ``"neuron"``: [d_in, sites], one score for a whole input row of each site's matrix.
    """

    def __init__(self, places: Sequence[Place], granularity: str, start: float, seed: int, tau: float = 1.0):
        self.places, self.granularity, self.seed, self.tau = tuple(places), granularity, seed, tau
        self.values: list[Tensor] = []
        level = log(start / (1 - start))
        for place in self.places:
            w = place.weight
            if granularity == "neuron":
                values = torch.full((place.matrix.shape[0], len(place.sites)), level, device=w.device)
            else:
                values = torch.full(w.shape, level if place.whole else -inf, device=w.device)
                if not place.whole:
                    for columns in place.columns:
                        place.upright(values)[:, columns.to(w.device)] = level
            self.values.append(values.requires_grad_())
        self._spread = [self._owner(place) for place in self.places] if granularity == "neuron" else None
        self.total = sum(place.matrix.shape[0] * sum(map(len, place.columns)) for place in self.places)

    @torch.no_grad()
    def forbid(self, subnetwork: Subnetwork) -> None:
        """The weights of ``subnetwork`` can be in no mask: l = −∞ for good.  So can neurons that hold one of them.

        Raises ``ValueError`` where that leaves none.
        """
        for place, values in zip(self.places, self.values):
            for s, (site, columns) in enumerate(zip(place.sites, place.columns)):
                if (place.layer, site) not in subnetwork.bits:
                    continue
                taken = subnetwork.mask(place.layer, site).to(values.device)  # [d_in, d_out]
                if self.granularity == "neuron":
                    values[taken.any(1), s] = -inf
                else:
                    upright, columns = place.upright(values), columns.to(values.device)
                    upright[:, columns] = upright[:, columns].masked_fill(taken, -inf)
        if not any((v > -inf).any() for v in self.values):
            raise ValueError("No weight is left outside the subnetwork given as outside: give a smaller one.")

    def sample(self, step: int, draw: int = 0, part: str = "remaining") -> list[Tensor]:
        """Each place's weight under a mask drawn for (step, draw), in its stored orientation; autograd reaches l."""
        return [
            self._masked(i, Key(self.seed, step, draw * len(self.places) + i), part) for i in range(len(self.places))
        ]

    def _masked(self, i: int, key: Key, part: str) -> Tensor:
        place, scores = self.places[i], self.values[i]
        weight = place.weight.detach()
        if self.granularity == "weight":
            masked = kernels.mask(weight, scores, key, tau=self.tau, part=part)
            if part == "subnetwork" and not place.whole:  # sites that are not masked stay beside it
                masked = torch.where(scores > -inf, masked, weight)
            return masked
        kept = kernels.mask(torch.ones_like(scores), scores, key, tau=self.tau, part=part)  # [d_in, sites]
        outside = kept.new_ones(len(kept), 1)  # sites that are not masked
        kept = torch.cat([kept, outside], 1)[:, self._spread[i]]
        return weight * place.upright(kept).to(weight.dtype)

    def named(self, weights: Sequence[Tensor]) -> MaskedWeights:
        """One tensor per place under the place's name, as ``UpperLayers`` takes them."""
        return {(place.layer, place.path): w for place, w in zip(self.places, weights)}

    def density(self) -> Tensor:
        """mean σ(l) over the weights that can be masked: the expected share of ones, counted as in ``hard_density``."""
        shares = [kernels.density(v) * (v.numel() * weights / self.total) for v, weights in self._weighted()]
        return sum(share.to(shares[0].device) for share in shares)

    @torch.no_grad()
    def hard(self) -> list[Tensor]:
        """Each place's weight without its critical entries, W ∘ 1[l ≤ 0]: the remaining model."""
        if self.granularity == "weight":
            return [p.weight.detach() * (v <= 0).to(p.weight.dtype) for p, v in zip(self.places, self.values)]
        return [
            place.weight.detach() * place.upright(torch.cat([v <= 0, (v[:, :1] < inf)], 1)[:, owner]).to(place.weight)
            for place, v, owner in zip(self.places, self.values, self._spread)
        ]

    def hard_density(self) -> float:
        """The share of maskable weights with a score above 0; a neuron counts with all its weights."""
        return sum(int((v > 0).sum()) * weights for v, weights in self._weighted()) / self.total

    def _weighted(self) -> Iterator[tuple[Tensor, int]]:
        """The scores, and how many weights each of them decides on."""
        for place, values in zip(self.places, self.values):
            if self.granularity == "neuron":
                yield from zip(values.unbind(1), map(len, place.columns))
            else:
                yield values, 1

    def bits(self) -> dict[tuple[int, str], Bits]:
        """1[l > 0] per (layer, site), packed: [d_in, d_out], or [d_in, 1] for neurons."""
        found = {}
        for place, values in zip(self.places, self.values):
            ones = (values.detach() > 0).cpu()
            for s, (site, columns) in enumerate(zip(place.sites, place.columns)):
                own = ones[:, s : s + 1] if self.granularity == "neuron" else place.upright(ones)[:, columns]
                found[place.layer, site] = pack(own)
        return found

    def shapes(self) -> dict[tuple[int, str], tuple[int, int]]:
        """[d_in, d_out] per (layer, site)."""
        sites = [(place, site, columns) for place in self.places for site, columns in zip(place.sites, place.columns)]
        return {(place.layer, site): (place.matrix.shape[0], len(columns)) for place, site, columns in sites}

    def load(self, values: Sequence[Tensor]) -> None:
        """Take over the scores of a checkpoint."""
        with torch.no_grad():
            for mine, other in zip(self.values, values, strict=True):
                mine.copy_(other.view(mine.shape))

    def _owner(self, place: Place) -> Tensor:
        """Which of a place's sites each column of its matrix belongs to; ``len(sites)`` where to none."""
        owner = torch.full((place.matrix.shape[1],), len(place.sites))
        for s, columns in enumerate(place.columns):
            owner[columns] = s
        return owner.to(place.weight.device)
