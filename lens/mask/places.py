"""Which weights can be masked, and how do sites lie in the matrices that a model stores?

A mask is kept per *site*, [d_in, d_out], one name for one role in every family.  A model stores *modules*: GPT-2's
c_attn is q, k and v side by side, an nn.Linear is [d_out, d_in].  Training works on whole modules, as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lens.model import LanguageModel


@dataclass(frozen=True)
class Place:
    """One module whose weight is masked: its layer, its path below the layer, and the sites in it, with their columns.

    ``weight`` is the parameter itself, as stored; ``columns[s]`` (int64) are the outputs of ``sites[s]`` among the
    columns of ``matrix``.
    """

    layer: int
    path: str
    weight: Tensor
    turned: bool  # stored [d_out, d_in], as in an nn.Linear
    sites: tuple[str, ...]
    columns: tuple[Tensor, ...]

    @property
    def matrix(self) -> Tensor:
        """The weight as [d_in, d_out of all sites in the module], in the model's own memory."""
        return self.upright(self.weight.detach())

    def upright(self, stored: Tensor) -> Tensor:
        """Between the stored orientation and [d_in, d_out]; its own inverse."""
        return stored.T if self.turned else stored

    @property
    def whole(self) -> bool:
        """Do its sites fill the module?"""
        return sum(map(len, self.columns)) == self.matrix.shape[1]


def places(
    lm: LanguageModel, layers: Iterable[int] | None = None, sites: Iterable[str] | None = None
) -> tuple[Place, ...]:
    """The modules that hold ``sites`` (default: all) of ``layers`` (default: the upper half), in the model's order.

    Raises ``IndexError`` for an unknown layer and ``ValueError`` for an unknown site.

    >>> import lens
    >>> [(p.layer, p.path, p.sites) for p in places(lens.load("mini"), layers=[-1], sites=["attn_q", "ff2"])]
    [(7, 'attn.c_attn', ('attn_q',)), (7, 'mlp.c_proj', ('ff2',))]
    """
    depth = len(lm.layers)
    layers = range(depth // 2, depth) if layers is None else list(layers)
    wanted = lm.sites if sites is None else tuple(sites)
    for layer in layers:
        for site in wanted:
            lm.check(layer, site)
    found = []
    for layer in sorted({layer % depth for layer in layers}):
        modules: dict[str, list[str]] = {}
        for site in lm.sites:
            if site in wanted:
                modules.setdefault(lm.family.sites[site].module, []).append(site)
        for path, inside in modules.items():
            module = lm.site(layer, inside[0])
            turned = type(module).__name__ != "Conv1D"
            outputs = torch.arange(module.weight.shape[0 if turned else 1])
            columns = tuple(lm.family.sites[site].slice(outputs, lm.model.config) for site in inside)
            found.append(Place(layer, path, module.weight, turned, tuple(inside), columns))
    return tuple(found)
