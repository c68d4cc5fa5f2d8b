"""How does a mask learn?  One score l per weight (or neuron), a sample of the masked weights for each step, and back.

    W ∘ (1 − m)   for the remaining model,     W ∘ m   for the subnetwork alone,     m ~ Bernoulli(σ(l))

A step samples all matrices at once, into leaves of autograd's graph; however many passes use them, their gradients add
up there, and the straight-through rule takes the sums to the scores in one sweep (``lens.kernels.masks``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, log

import torch
from torch import Tensor

from lens.kernels import AllMasks, Bits, Key, pack
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
        self.neurons = granularity == "neuron"
        self.total = sum(place.matrix.shape[0] * sum(map(len, place.columns)) for place in self.places)
        alike: dict[tuple, list[int]] = {}
        for i, place in enumerate(self.places):
            alike.setdefault((place.weight.device, place.weight.dtype), []).append(i)
        self._masks = [AllMasks([self._masked(self.places[i]) for i in some], some) for some in alike.values()]
        self.values = self._in_order(masks.views for masks in self._masks)
        if self.neurons:  # which site each column belongs to; how many weights each score of a site decides on
            self._spread = [self._owner(place) for place in self.places]
            self._weights = [v.new_tensor([len(c) for c in p.columns]) for p, v in zip(self.places, self.values)]
        level = log(start / (1 - start))
        for place, values in zip(self.places, self.values):
            if self.neurons or place.whole:
                values.fill_(level)
                continue
            for columns in place.columns:
                place.upright(values)[:, columns.to(values.device)] = level

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
                if self.neurons:
                    values[taken.any(1), s] = -inf
                else:
                    upright, columns = place.upright(values), columns.to(values.device)
                    upright[:, columns] = upright[:, columns].masked_fill(taken, -inf)
        if not any((v > -inf).any() for v in self.values):
            raise ValueError("No weight is left outside the subnetwork given as outside: give a smaller one.")

    def sample(self, step: int, draw: int = 0, part: str = "remaining") -> list[Tensor]:
        """Each place's weight under a mask drawn for (step, draw), in its stored orientation; ``back_`` goes back."""
        drawn = self._in_order(masks.draw(self._key(step, draw), tau=self.tau, part=part) for masks in self._masks)
        if self.neurons:
            return [self._kept(i, kept) for i, kept in enumerate(drawn)]
        if part == "subnetwork":  # sites that are not masked stay beside it
            for place, weight in zip(self.places, drawn):
                other = torch.ones(place.matrix.shape[1], dtype=torch.bool, device=weight.device)
                other[torch.cat(place.columns).to(weight.device)] = False
                place.upright(weight)[:, other] = place.matrix[:, other]
        return drawn

    def back_(
        self, grads: list[Tensor], step: int, draw: int = 0, part: str = "remaining", sparsity: float = 0.0
    ) -> None:
        """Add the gradient of ``sparsity`` · ``density()``, and what ``grads`` of the weights sampled for (step, draw)
        say by the straight-through rule, to the gradients of the values; ``grads`` is emptied on the way."""
        price = sparsity / self.total
        if self.neurons:
            grads[:] = (self._summed(i, grads[i]) for i in range(len(grads)))
        groups = [[grads[i] for i in masks.sites] for masks in self._masks]
        grads.clear()
        for masks, own in zip(self._masks, groups):
            masks.back_(own, self._key(step, draw), tau=self.tau, part=part, sparsity=0.0 if self.neurons else price)
        if self.neurons and price:
            for values, weights in zip(self.values, self._weights):
                s = values.sigmoid()
                values.grad.addcmul_(s * (1 - s), weights, value=price)

    def named(self, weights: Sequence[Tensor]) -> MaskedWeights:
        """One tensor per place under the place's name, as ``UpperLayers`` takes them."""
        return {(place.layer, place.path): w for place, w in zip(self.places, weights)}

    @torch.no_grad()
    def density(self) -> Tensor:
        """mean σ(l) over the weights that can be masked: the expected share of ones, counted as in ``hard_density``."""
        if self.neurons:
            sums = [(v.sigmoid() * weights).sum() for v, weights in zip(self.values, self._weights)]
        else:
            sums = [masks.density() for masks in self._masks]
        return sum(one.to(sums[0].device) for one in sums) / self.total

    @torch.no_grad()
    def hard(self) -> list[Tensor]:
        """Each place's weight without its critical entries, W ∘ 1[l ≤ 0]: the remaining model."""
        if not self.neurons:
            return [p.weight.detach() * (v <= 0).to(p.weight.dtype) for p, v in zip(self.places, self.values)]
        return [self._kept(i, (v <= 0).to(v.dtype)) for i, v in enumerate(self.values)]

    def hard_density(self) -> float:
        """The share of maskable weights with a score above 0; a neuron counts with all its weights."""
        if self.neurons:
            return sum(int(((v > 0) * weights).sum()) for v, weights in zip(self.values, self._weights)) / self.total
        return sum(int((v > 0).sum()) for v in self.values) / self.total

    def bits(self) -> dict[tuple[int, str], Bits]:
        """1[l > 0] per (layer, site), packed: [d_in, d_out], or [d_in, 1] for neurons."""
        found = {}
        for place, values in zip(self.places, self.values):
            ones = (values.detach() > 0).cpu()
            for s, (site, columns) in enumerate(zip(place.sites, place.columns)):
                own = ones[:, s : s + 1] if self.neurons else place.upright(ones)[:, columns]
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

    def _key(self, step: int, draw: int) -> Key:
        """What a draw's noise is made of; a place's index is added to the site."""
        return Key(self.seed, step, draw * len(self.places))

    def _masked(self, place: Place) -> Tensor:
        """What the scores decide on: the weight itself; of neurons a 1 for each score, spread over their weights."""
        if not self.neurons:
            return place.weight
        wide = torch.promote_types(place.weight.dtype, torch.float32)
        return torch.ones(place.matrix.shape[0], len(place.sites), dtype=wide, device=place.weight.device)

    def _in_order(self, groups: Iterable[Sequence[Tensor]]) -> list[Tensor]:
        """One tensor a place, from a list of them for each of the ``AllMasks``."""
        found = {i: one for masks, some in zip(self._masks, groups) for i, one in zip(masks.sites, some)}
        return [found[i] for i in range(len(self.places))]

    def _kept(self, i: int, kept: Tensor) -> Tensor:
        """The weight of place i with a factor [d_in, sites] for each of its neurons; what is not masked stays."""
        place = self.places[i]
        kept = torch.cat([kept, kept.new_ones(len(kept), 1)], 1)[:, self._spread[i]]
        return place.weight.detach() * place.upright(kept).to(place.weight.dtype)

    def _summed(self, i: int, grad: Tensor) -> Tensor:
        """Σ G ∘ W over the weights of each neuron, [d_in, sites]: the gradient of ``_kept``'s factors."""
        place, values = self.places[i], self.values[i]
        each = place.upright(grad.to(values.dtype) * place.weight.detach())
        return each.new_zeros(len(each), len(place.sites) + 1).index_add_(1, self._spread[i], each)[:, :-1]

    def _owner(self, place: Place) -> Tensor:
        """Which of a place's sites each column of its matrix belongs to; ``len(sites)`` where to none."""
        owner = torch.full((place.matrix.shape[1],), len(place.sites))
        for s, columns in enumerate(place.columns):
            owner[columns] = s
        return owner.to(place.weight.device)
