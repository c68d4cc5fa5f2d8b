"""What was found?  A set of weights, one bit each, that can be taken out of its model, or left alone in it.

    removed:  W ← W ∘ (1 − m)      the remaining model
    only:     W ← W ∘ m            the critical subnetwork alone (outside the masked sites the model is whole)

Both are context managers of ``lm.weights``: the weights come back bit for bit, together with what was left on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256

import torch
from torch import Tensor

from lens.kernels import Bits
from lens.mask.config import Config
from lens.mask.places import Place, places
from lens.model import LanguageModel
from lens.model.soundness import check_made_for
from lens.results.display import Grid, Shown, shaded, spread

BY: dict[str, Callable[[SiteKey], Hashable]] = {
    "module": lambda key: key,
    "layer": lambda key: key[0],
    "site": lambda key: key[1],
}
"""How modules are put into groups."""

SiteKey = tuple[int, str]
"""(layer, site)"""


@dataclass(frozen=True)
class Subnetwork(Shown):
    """A binary mask over the weights of some sites, m = 1 on the subnetwork.

    ``bits``: (layer, site) → packed mask, [d_in, d_out], or [d_in, 1] where whole input rows (neurons) are in or out;
    ``shapes``: (layer, site) → (d_in, d_out).  ``history``: a row for each check of the training that found it.
    ``model`` and ``fingerprint`` say for which model it was made, ``head_dim`` how wide a head of it is; ``about`` has
    command, machine, versions and seconds.
    """

    bits: Mapping[SiteKey, Bits] = field(repr=False)
    shapes: dict[SiteKey, tuple[int, int]] = field(repr=False)
    config: Config
    history: tuple[dict, ...] = field(repr=False)
    model: str
    fingerprint: str = field(repr=False)
    head_dim: int = field(repr=False)
    about: dict = field(repr=False, default_factory=dict)

    def __repr__(self) -> str:
        what = f"{self.config.granularity}s of {self.model!r}, {len(self.bits)} sites"
        return f"Subnetwork({what}, sparsity {100 * self.sparsity:.2f} %)"

    def _grid(self) -> Grid:
        density, sites = self.density("module"), list(dict.fromkeys(site for _, site in self.bits))
        layers = spread(sorted({layer for layer, _ in self.bits}))
        shares = [[density.get((layer, site), 0.0) for site in sites] for layer in layers]
        rows = [[str(layer), *row] for layer, row in zip(layers, shaded(shares, ".2%"))]
        return Grid(("layer", *sites), rows, "Share of the weights of each layer and site that are in it.")

    @property
    def sparsity(self) -> float:
        """The share of the maskable weights that are not in it."""
        return 1 - self.density()

    def digest(self) -> str:
        """SHA-256 of which weights are in it, as hexadecimal digits."""
        digest = sha256()
        for (layer, site), bits in sorted(self.bits.items()):
            digest.update(f"{layer} {site} {tuple(bits.shape)}".encode() + bits.bytes.cpu().numpy().tobytes())
        return digest.hexdigest()

    def mask(self, layer: int, site: str) -> Tensor:
        """m of one site, bool [d_in, d_out]; ``KeyError`` where the site is not masked."""
        if (layer, site) not in self.bits:
            raise KeyError(f"Layer {layer} {site} is not masked: {', '.join(f'{k} {s}' for k, s in self.bits)} are.")
        return self.bits[layer, site].unpack().expand(self.shapes[layer, site])

    def density(self, by: str | None = None) -> float | dict:
        """The share of maskable weights that are in it: of all, or for each module, layer, site or head.

        ``"module"`` gives (layer, site) → share; ``"head"`` (layer, site, head) → share for the attention's sites: a
        head's own outputs of q, k and v, its own inputs of attn_out.  Raises ``ValueError`` for another ``by``.
        """
        if by is None:
            return self._shares(lambda key: None)[None]
        if by in BY:
            return self._shares(BY[by])
        if by != "head":
            raise ValueError(f"Density by {by!r} is not known: choose one of {', '.join(BY)}, head, or None.")
        found = {}
        for layer, site in self.bits:
            if site.startswith("attn_"):
                m = self.mask(layer, site).float()
                m = m if site == "attn_out" else m.T  # a head's inputs, or its outputs
                for head, part in enumerate(m.split(self.head_dim)):
                    found[layer, site, head] = float(part.mean())
        return found

    def _shares(self, name: Callable[[SiteKey], Hashable]) -> dict:
        inside, total = Counter(), Counter()
        for key, bits in self.bits.items():
            rows, columns = self.shapes[key]
            inside[name(key)] += bits.count() * (rows * columns // torch.Size(bits.shape).numel())
            total[name(key)] += rows * columns
        return {key: inside[key] / total[key] for key in total}

    def removed(self, lm: LanguageModel) -> AbstractContextManager[LanguageModel]:
        """The remaining model, inside the block: W ∘ (1 − m).

        Raises ``ValueError`` for another model than the one it was made for.

        >>> import lens
        >>> lm = lens.load("mini")
        >>> with lens.mask.shipped("building").removed(lm):
        ...     said = lens.logit_lens(lm, "A cafe is a kind of").words[-1][-1][0]
        >>> said == "·restaurant"
        False
        """
        return self._without(lm, inside=True)

    def only(self, lm: LanguageModel) -> AbstractContextManager[LanguageModel]:
        """The subnetwork alone, inside the block: W ∘ m in the masked sites, everything else as it is."""
        return self._without(lm, inside=False)

    @contextmanager
    def _without(self, lm: LanguageModel, inside: bool) -> Iterator[LanguageModel]:
        self.check(lm)
        with lm.weights.block(f"{self!r} {'removed' if inside else 'alone'}") as written:
            for place, gone in self.in_places(lm, inside):
                matrix = place.matrix
                lm.weights.claim(written, place.weight)
                written.restore.append(partial(_put, matrix, gone, matrix[gone]))
                _put(matrix, gone, 0)
            lm.weights.wrote(written)
            yield lm

    def in_places(self, lm: LanguageModel, inside: bool = True) -> Iterator[tuple[Place, Tensor]]:
        """Each module of ``lm`` with a masked site, and where in its matrix, bool [d_in, d_out], m is 1.

        Where it is 0 in the masked sites, unless ``inside``.
        """
        for place in places(lm, {layer for layer, _ in self.bits}, {site for _, site in self.bits}):
            masked = [both for both in zip(place.sites, place.columns) if (place.layer, both[0]) in self.bits]
            where = torch.zeros(place.matrix.shape, dtype=torch.bool)
            for site, columns in masked:
                where[:, columns] = self.mask(place.layer, site) == inside
            if masked:  # and not another layer's site
                yield place, where.to(place.weight.device)

    def check(self, lm: LanguageModel) -> None:
        """``ValueError`` where ``lm`` is not the model it was made for."""
        remedy = "open that model, in the same dtype"
        check_made_for(lm, self.model, self.fingerprint, "This subnetwork was found in", remedy)

    def with_bits(self, bits: Mapping[SiteKey, Bits], note: str) -> Subnetwork:
        """Another set of weights of the same sites, such as a union; ``note`` says in ``about`` what it is.

        Raises ``ValueError`` for other sites, and for bits of another shape than the site's, or its rows'.
        """
        for key, own in bits.items():
            shape = self.shapes.get(key, ())
            if tuple(own.shape) not in (shape, (*shape[:1], 1)):
                raise ValueError(
                    f"Site {key} of this subnetwork has the shape {list(shape)}, and its bits {list(own.shape)}: give "
                    "bits [d_in, d_out], or [d_in, 1], for its own sites."
                )
        return replace(self, bits=bits, history=(), about={"note": note})


def _put(matrix: Tensor, where: Tensor, values: Tensor | float) -> None:
    with torch.no_grad():
        matrix[where] = values
