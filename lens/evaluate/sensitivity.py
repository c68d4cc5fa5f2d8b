"""Is a subnetwork more than its size?  Weights are taken from the remaining model, or given back, at random.

    share > 0     the subnetwork and share · |m| further weights of each site are removed
    share < 0     a random −share of its weights is given back: at −1 the model is the original

each beside random masks of the same size in each site.  If any weights of that number did what the subnetwork does,
the two curves would fall together; if its suppression hung on a few of its weights, it would be gone with the first
ones given back; and if the remaining model were about to break, the controls would go with the first further ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lens.data import Knowledge
from lens.evaluate.knowledge import sets_of
from lens.evaluate.readings import Readings
from lens.given import door, number, passes, several
from lens.mask.subnetwork import Subnetwork
from lens.mask.variants import grown, random_like, shrunk
from lens.model import LanguageModel

SHARES = (-1.0, -0.75, -0.5, -0.25, -0.1, 0.0, 0.25, 0.5, 1.0, 2.0)
SIZES = {"unseen_taught": 0, "unseen_untaught": 0, "control": 0, "control_held_out": 256, "text_held_out": 25}


@dataclass(frozen=True)
class Sweep:
    """What ``sensitivity`` found for the TargetKG ``name``: perplexities, and at which densities.

    ``ppl``: ("subnetwork" or "random", set) → [shares, seeds]; ``removed`` [shares]: the share of the maskable weights
    that is gone (a random mask's is the same); ``original``: set → the perplexity of the model as it is.
    """

    name: str
    model: str
    shares: tuple[float, ...]
    removed: Tensor = field(repr=False)
    ppl: Mapping[tuple[str, str], Tensor] = field(repr=False)
    original: Mapping[str, float] = field(repr=False)

    def rows(self) -> list[dict]:
        """One flat row for each share, kind of mask, set and seed."""
        about = {"target_kg": self.name, "model": self.model}
        return [
            about | {"share": share, "removed": float(removed), "mask": kind, "set": one, "seed": seed, "ppl": ppl}
            for (kind, one), values in self.ppl.items()
            for share, removed, line in zip(self.shares, self.removed, values.tolist())
            for seed, ppl in enumerate(line)
        ]


@door(shares=lambda name, value: several(name, value, "a finite number", lambda item: passes(number, item)))
def sensitivity(
    lm: LanguageModel,
    kg: Knowledge,
    subnetwork: Subnetwork,
    shares: Sequence[float] = SHARES,
    seeds: int = 3,
    *,
    sizes: Mapping[str, int] = SIZES,
    progress: bool = True,
) -> Sweep:
    """Perplexities while random weights are removed beside ``subnetwork`` (share > 0) or given back (share < 0).

    ``shares`` are relative to the subnetwork's own size in each site, −1 or larger, and are sorted; ``seeds``: how many
    random draws; ``sizes``: set → at most so many prompts or texts (see ``knowledge``).  The model is not changed.

    Raises ``ValueError`` for a subnetwork of another model, a share below −1, and no seeds or shares.

    >>> import lens
    >>> lm, kg = lens.load("mini"), lens.data.knowledge("building")
    >>> few = SIZES | {"control_held_out": 8, "text_held_out": 2}
    >>> sweep = sensitivity(lm, kg, lens.mask.shipped("building"), [-1, 0], seeds=1, sizes=few, progress=False)
    >>> before, after = sweep.ppl["subnetwork", "target"][:, 0].tolist()
    >>> after > before
    True
    """
    shares = tuple(sorted(float(share) for share in shares))
    if not shares or shares[0] < -1 or seeds < 1:
        raise ValueError(f"Got the shares {list(shares)} and {seeds} seeds: give shares of −1 or more, and a seed.")
    subnetwork.check(lm)
    readings = Readings(lm, sets_of(kg, sizes), min(layer for layer, _ in subnetwork.bits))
    original = {name: m.ppl for name, m in readings.original.items()}

    known: dict[str, dict[str, float]] = {}  # at the shares −1 and 0, every seed draws the same weights

    def read(mask: Subnetwork) -> dict[str, float]:
        if (digest := mask.digest()) not in known:
            with mask.removed(lm):
                known[digest] = {name: m.ppl for name, m in readings().items()}
        return known[digest]

    removed, found = [], {(kind, name): [] for kind in ("subnetwork", "random") for name in original}
    draws = list(product(shares, range(seeds)))
    for share, seed in tqdm(draws, desc=kg.name, unit="mask", disable=not progress):
        mask = grown(subnetwork, share, seed) if share >= 0 else shrunk(subnetwork, -share, seed)
        removed.append(mask.density())
        for kind, one in (("subnetwork", mask), ("random", random_like(mask, seed))):
            for name, ppl in read(one).items():
                found[kind, name].append(ppl)

    def table(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(len(shares), seeds)

    ppl = {key: table(values) for key, values in found.items()}
    return Sweep(kg.name, lm.name, shares, table(removed)[:, -1], ppl, original)
