"""How much of a change falls on a subnetwork?  The share of its energy inside the mask, against chance.

    share = ‖m ∘ D‖² / ‖D‖²          D: a gradient xᵀδ, the ΔW of an edit, or W ∘ D

Chance puts as many weights of each site (or rows, for neurons) anywhere in it.  Let a site have N weights, K of them in
the mask, and let q be their energies D². A random mask of it then holds

    on average  (K/N) Σ q,      with variance  K (N − K) / (N (N − 1)) · (Σ q² − (Σ q)²/N),

and sites add up, as they are drawn independently.  A matrix is built from its factors a block of rows at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lens.edit import Change, Edit
from lens.given import passes, whole
from lens.gradient import FactoredGradient, Trace
from lens.kernels import Bits
from lens.mask.subnetwork import BY, SiteKey, Subnetwork
from lens.model import LanguageModel

BLOCK = 1 << 18
"""Weights of one matrix that are looked at together."""

Write = Trace | Edit | FactoredGradient | Change | Mapping[SiteKey, Tensor]
"""What changes weights: a trace (the gradient of its loss, the sum over its prompts), an edit, one site's gradient or
change, or (layer, site) → ΔW [d_in, d_out]."""


@dataclass(frozen=True)
class Energy:
    """The energy of changes in the masked sites, ‖D‖², and what of it falls on subnetworks; float64.

    ``total`` [..., M]: of the whole site, for the M ``sites``; ``inside``: on the subnetwork; ``expected`` and
    ``variance``: on a random one of equal density in each site.  The leading dimensions are [changes, subnetworks],
    each only where a sequence was given.
    """

    sites: tuple[SiteKey, ...]
    total: Tensor
    inside: Tensor
    expected: Tensor
    variance: Tensor

    def share(self, by: str | None = None) -> Tensor | dict:
        """The share of the energy inside the mask, 0 to 1 (NaN where there is none): of all masked sites together, or
        for each ``by`` ("layer", "site", "module")."""
        return self._each(by, lambda part: part(self.inside) / part(self.total))

    def chance(self, by: str | None = None) -> Tensor | dict:
        """The share that a random mask of equal density has on average; ``by`` as in ``share``."""
        return self._each(by, lambda part: part(self.expected) / part(self.total))

    def deviation(self, by: str | None = None) -> Tensor | dict:
        """The standard deviation of that share over random masks; ``by`` as in ``share``."""
        return self._each(by, lambda part: part(self.variance).sqrt() / part(self.total))

    def ratio(self, by: str | None = None) -> Tensor | dict:
        """The share over chance: 1 where a change does not know of the mask; ``by`` as in ``share``."""
        return self._each(by, lambda part: part(self.inside) / part(self.expected))

    def _each(self, by: str | None, value: Callable) -> Tensor | dict:
        if by is None:
            return value(lambda t: t.sum(-1))
        if by not in BY:
            raise ValueError(f"Energy by {by!r} is not known: choose one of {', '.join(BY)}, or None.")
        groups: dict = defaultdict(list)
        for i, key in enumerate(self.sites):
            groups[BY[by](key)].append(i)
        return {name: value(lambda t, some=some: t[..., some].sum(-1)) for name, some in groups.items()}


@torch.no_grad()
def energy(
    subnetwork: Subnetwork | Sequence[Subnetwork],
    change: Write | Sequence[Write],
    *,
    weights: LanguageModel | None = None,
) -> Energy:
    """How much of a change's energy falls on a subnetwork, in each masked site: one of each, or all pairs of several.

    ``change``: a trace, an edit, a gradient or change of one site, or (layer, site) → ΔW [d_in, d_out]; what it does
    outside the masked sites is left out.  ``weights``: multiply each entry of the change by this model's weight first,
    for the energy of W ∘ D, what a gradient says about removing weights.

    Raises ``ValueError`` for a change that is zero in all masked sites or not finite there, for one of other shapes or
    of a layer that is no number from 0, for a trace, an edit or ``weights`` of another model than the subnetwork's, for
    ``weights`` that an edit or a mask lies on, and for subnetworks of different sites.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> found = lens.mask.shipped("building")
    >>> trace = lens.capture(lm, "A cafe is a kind of", "restaurant")
    >>> bool(energy(found, trace).ratio() > 1)
    True
    """
    several_masks = not isinstance(subnetwork, Subnetwork)
    several = not isinstance(change, (Trace, Edit, FactoredGradient, Change, Mapping))
    masks: list[Subnetwork] = list(subnetwork) if several_masks else [subnetwork]
    given = list(change) if several else [change]
    if not masks or not given:
        raise ValueError("Energy needs at least one subnetwork and one change, and got an empty list.")
    changes = [_by_site(one, masks) for one in given]
    if weights is not None and weights.changed:
        raise ValueError(f"The weights are changed now ({weights.changed[-1]}): undo that first.")
    models = [one.lm for one in given if isinstance(one, (Trace, Edit))]
    _fit(masks, changes, models if weights is None else [*models, weights])
    keys = tuple(masks[0].bits)
    sums = torch.zeros(4, len(changes), len(masks), len(keys), dtype=torch.float64)
    for k, key in enumerate(keys):
        writing = [c for c, one in enumerate(changes) if key in one]
        if writing:
            scale = None if weights is None else weights.weight(*key).detach()
            sums[:, writing, :, k] = _site(
                [m.bits[key] for m in masks], masks[0].shapes[key], [changes[c][key] for c in writing], scale
            )
    totals = sums[0].sum((1, 2))
    for i in (~totals.isfinite() | (totals == 0)).nonzero()[:, 0].tolist():
        which = f"Change {i}" if several else "The change"
        if totals[i]:
            raise ValueError(f"{which} has numbers in the masked sites whose squares are not finite: give others.")
        raise ValueError(
            f"{which} is zero in every masked site (layers {keys[0][0]} to {keys[-1][0]}), so it has no energy to "
            "share out: give one that writes there."
        )
    sums = sums if several_masks else sums[:, :, 0]
    return Energy(keys, *(sums if several else sums[:, 0]))


def _by_site(change: Write, masks: Sequence[Subnetwork]) -> dict[SiteKey, list]:
    """(layer, site) → what is added up there: factors (x, δ), or a matrix as (None, ΔW)."""
    found: dict[SiteKey, list] = defaultdict(list)
    if isinstance(change, Trace):
        for key in [key for key in masks[0].bits if key[0] in change.layers and key[1] in change.sites]:
            g = change.gradient(*key)
            found[key].append((g.x, g.delta))
    elif isinstance(change, Mapping):
        for key, matrix in change.items():
            found[key].append((None, matrix))
    elif isinstance(change, (Edit, FactoredGradient, Change)):
        for one in change.changes if isinstance(change, Edit) else [change]:
            found[one.layer, one.site].append((one.x, one.delta))
    else:
        raise ValueError(f"Got {change!r} for a change: give a trace, an edit, a gradient or (layer, site) → ΔW.")
    for key in found:
        if not passes(whole, key[0]):
            raise ValueError(f"A change is of layer {key[0]!r}, site {key[1]!r}: give the layer's number, from 0.")
    return {key: parts for key, parts in found.items() if key in masks[0].bits}


def _fit(masks: Sequence[Subnetwork], changes: Sequence[dict], models: Sequence[LanguageModel]) -> None:
    """``ValueError`` where these do not belong to one model."""
    first = masks[0]
    kinds = [(m.fingerprint, m.shapes, {key: b.shape for key, b in m.bits.items()}) for m in masks]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(
            "These subnetworks are not of one model, the same sites and one granularity: measure them apart."
        )
    for lm in models:
        first.check(lm)
    for one in changes:
        for key, parts in one.items():
            for x, delta in parts:
                shape = tuple(delta.shape) if x is None else (x.shape[1], delta.shape[1])
                if shape != first.shapes[key]:
                    raise ValueError(
                        f"The change of layer {key[0]} {key[1]} is {list(shape)} and the mask "
                        f"{list(first.shapes[key])}: give a change of the model that the subnetwork was found in."
                    )


def _site(masks: Sequence[Bits], shape: tuple[int, int], changes: Sequence[list], scale: Tensor | None) -> Tensor:
    """``total``, ``inside``, ``expected`` and ``variance`` of one site: [4, changes, subnetworks]."""
    total, squares = torch.zeros(2, len(changes), 1, dtype=torch.float64)
    inside = torch.zeros(len(changes), len(masks), dtype=torch.float64)
    for rows, stacked in _blocks(masks, shape):
        mask, place = stacked.nonzero().T
        for c, parts in enumerate(changes):
            q = _units(parts, rows, scale, whole_rows=masks[0].shape != shape)
            total[c] += q.sum(dtype=torch.float64).cpu()
            squares[c] += torch.linalg.vector_norm(q, dtype=torch.float64).cpu() ** 2
            inside[c].index_add_(0, mask, q[place.to(q.device)].double().cpu())
    n = torch.tensor(masks[0].shape).prod()
    k = torch.tensor([float(bits.count()) for bits in masks], dtype=torch.float64)
    spread = (squares - total**2 / n).clamp(min=0) / (n - 1).clamp(min=1)
    return torch.stack([total.expand_as(inside), inside, total * k / n, spread * k * (n - k) / n])


def _blocks(masks: Sequence[Bits], shape: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of the matrix at a time, and which of their weights (or they) are in each mask: [masks, units]."""
    each = masks[0].shape[1]
    step = max(8, BLOCK // shape[1] // 8 * 8)  # eight rows of any width are whole bytes
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        part = slice(start * each // 8, (stop * each + 7) // 8)
        units = [Bits(bits.bytes[part], (stop - start, each)).unpack().flatten() for bits in masks]
        yield slice(start, stop), torch.stack(units)


def _units(parts: Sequence[tuple], rows: slice, scale: Tensor | None, whole_rows: bool) -> Tensor:
    """The energy of each weight of these rows [rows · d_out], or of each row [rows]."""
    d = sum(_wide(delta[rows]) if x is None else _wide(x[:, rows]).T @ _wide(delta) for x, delta in parts)
    d = d if scale is None else d * scale[rows].to(d)
    q = d.square()
    return q.sum(1) if whole_rows else q.flatten()


def _wide(t: Tensor) -> Tensor:
    """At least float32: a half-precision gradient may be too small for its square."""
    return t.detach().to(torch.promote_types(t.dtype, torch.float32))
