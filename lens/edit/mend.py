"""Can a network learn to edit?  MEND turns the raw gradient of one fact into the edit itself, token by token.

A gradient ∂ℓ/∂W = Σ_i x_iᵀδ_i has d_in · d_out entries, but it comes as n pairs of vectors, and that is a size a small
network can read.  MEND (Mitchell et al., 2022) maps every token's pair to a better one,

    (x̃_i, δ̃_i) = g(x_i, δ_i),            ΔW = −α Σ_i x̃_iᵀ δ̃_i.

x and δ are z-scored and put side by side, h = [x | δ]; g is two residual layers of rank r,

    h ← h + relu(s ∘ (h V) + o) U

with V and U shared by sites of one shape, and a scale s and a shift o for each site.  U starts at zero, so g starts as
the identity and ΔW as a step of gradient descent on z-scored factors.  ``lens.edit.mend_training`` trains V, U, s, o
and α.  An edit then costs one forward and half a backward pass and a few thin products, and is thin itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from lens.data import manifest, paths
from lens.edit.edit import Change, Edit
from lens.edit.request import as_requests
from lens.edit.settings import settings
from lens.edit.shift import Requests
from lens.gradient import Trace, capture
from lens.model import LanguageModel
from lens.model.soundness import check_made_for
from lens.results.damaged import damaged
from lens.results.sealed import Sealed, write

FORMAT, UNSEALED = "lens-mend-2", "lens-mend-1"
"""Of files with digests, and of those from before there were any."""
FORM = {"model": str, "fingerprint": str, "rank": int, "sites": list}
LAYERS = 2
"""Residual layers of the network."""


def mend(lm: LanguageModel, request: Requests, *, weights: str | Path | None = None) -> Edit:
    """Edit with a trained network: ``ΔW = −α Σ_i x̃_iᵀ δ̃_i`` at every site that the network was trained for.

    ``request``: one, or a list (their tokens together).  ``weights``: a file that ``python -m lens mend train`` wrote,
    or the name of a shipped one; by default this model's ``settings``.  The model is not changed.  Raises
    ``ValueError`` where there is no network for this model or it was trained for another, and ``OSError`` for a file
    that is missing or damaged.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> with lens.edit.mend(lm, lens.Request("The capital of {} is", "France", "Rome")):
    ...     lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Rome'
    """
    start = perf_counter()
    requests = as_requests(request)
    chosen = settings(lm, "mend", weights=None if weights is None else str(weights))
    network, about = load_network(lm, chosen["weights"])
    changes = []
    with torch.no_grad():
        trace = network.capture(lm, [r.text for r in requests], [r.target_new for r in requests])
        for (layer, site), (x, delta) in network(trace).items():
            told = delta.any(1)
            changes.append(Change(layer, site, x[told], delta[told]))
    return Edit("mend", requests, tuple(changes), chosen | about, perf_counter() - start, lm)


class MendNetwork(nn.Module):
    """g and α for some sites of one model: from a trace's (x, δ) to the factors (x̃, −α δ̃) of an edit.

    ``shapes``: (d_in, d_out) of every edited (layer, site).  A fresh network, of rank ``rank`` and with every α at
    ``alpha``, is the identity; until ``standardize`` is called, it does not z-score either.

    >>> network = MendNetwork({(5, "ff2"): (768, 192)}, rank=8, alpha=1e-4)
    >>> sum(p.numel() for p in network.parameters())  # 2 layers of V, U [960, 8], s and o [8]; α
    30753
    """

    def __init__(self, shapes: Mapping[tuple[int, str], tuple[int, int]], rank: int, alpha: float, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.shapes, self.rank = dict(shapes), rank
        self.shared = nn.ModuleDict()
        for d_in, d_out in sorted(set(self.shapes.values())):
            d = d_in + d_out
            layers = nn.Module()
            layers.V = nn.Parameter(torch.randn(LAYERS, d, rank, generator=generator) / d**0.5)
            layers.U = nn.Parameter(torch.zeros(LAYERS, rank, d))
            self.shared[f"{d_in}x{d_out}"] = layers
        self.own = nn.ModuleDict()
        for (layer, site), shape in self.shapes.items():
            own = nn.Module()
            own.scale = nn.Parameter(torch.ones(LAYERS, rank))
            own.shift = nn.Parameter(torch.zeros(LAYERS, rank))
            own.log_alpha = nn.Parameter(torch.tensor(alpha).log())
            own.register_buffer("mean", torch.zeros(sum(shape)))
            own.register_buffer("std", torch.ones(sum(shape)))
            self.own[f"{layer}_{site}"] = own

    def capture(self, lm: LanguageModel, prompts: list[str], targets: list[str]) -> Trace:
        """x and δ of the sites it edits, for each prompt with its new target."""
        layers, sites = ({key[i] for key in self.shapes} for i in (0, 1))
        return capture(lm, prompts, targets, layers=sorted(layers), sites=sorted(sites))

    def forward(self, trace: Trace) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
        """x̃ [N, d_in] and −α δ̃ [N, d_out] of each site; a token that is told nothing (δ = 0) changes nothing."""
        return {key: self.transform(*key, *_factors(trace, *key)) for key in self.shapes}

    def transform(self, layer: int, site: str, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(x̃, −α δ̃) of one site, for x [N, d_in] and δ [N, d_out]."""
        own, shape = self.own[f"{layer}_{site}"], self.shapes[layer, site]
        shared = self.shared["{}x{}".format(*shape)]
        h = (torch.cat([x, delta], 1).to(own.mean) - own.mean) / own.std
        for V, U, s, o in zip(shared.V, shared.U, own.scale, own.shift):
            h = h + torch.relu(s * (h @ V) + o) @ U
        new_x, new_delta = (t.to(x.device) for t in h.split(shape, 1))
        told = delta.any(1, keepdim=True)
        return new_x, new_delta * (-own.log_alpha.exp().to(x.device) * told)

    @torch.no_grad()
    def standardize(self, traces: Iterable[Trace]) -> None:
        """Fix the mean and the standard deviation of every entry of x and δ, over the tokens with δ ≠ 0."""
        sums = {key: [0, 0.0, 0.0] for key in self.shapes}
        for trace in traces:
            for key, entry in sums.items():
                x, delta = _factors(trace, *key)
                both = torch.cat([x, delta], 1)[delta.any(1)].double()
                for i, term in enumerate((len(both), both.sum(0), (both**2).sum(0))):
                    entry[i] = entry[i] + term
        for (layer, site), (n, total, squares) in sums.items():
            own, mean = self.own[f"{layer}_{site}"], total / n
            std = (squares / n - mean**2).clamp(min=0).sqrt()
            own.mean.copy_(mean)
            own.std.copy_(torch.where(std > 0, std, 1.0))


def _factors(trace: Trace, layer: int, site: str) -> tuple[Tensor, Tensor]:
    gradient = trace.gradient(layer, site)
    return gradient.x, gradient.delta


def save_network(network: MendNetwork, path: str | Path, about: Mapping) -> Path:
    """Write a network to ``path``, V and U in float16, with ``about`` (JSON-able) beside what loading it needs."""
    tensors = {}
    for name, t in network.state_dict().items():
        tensors[name] = t.to(torch.float16 if name.endswith((".V", ".U")) else torch.float32)
    sites = [[layer, site, *shape] for (layer, site), shape in network.shapes.items()]
    return write(path, tensors, {"format": FORMAT, "sites": sites, "rank": network.rank, **about})


def load_network(lm: LanguageModel, weights: str | Path | None) -> tuple[MendNetwork, dict]:
    """The network in a file, or the shipped one of that name, for ``lm``; and what its file says about it.

    Raises what ``mend`` raises.
    """
    command = "python -m lens mend train --model MODEL --out FILE"
    if weights is None:
        raise ValueError(
            f"There is no MEND network for the model {lm.name!r}: train one with '{command}', and give weights=FILE."
        )
    shipped = paths.root() / "mend" / f"{weights}.safetensors"
    path = shipped if shipped.is_file() else Path(weights).expanduser()
    if not path.is_file():
        raise OSError(f"There is no MEND network {str(weights)!r}: check the path, or train one with '{command}'.")
    network, about = _read(path, path.stat().st_mtime_ns, path == shipped)
    what = f"The MEND network in {path} was trained for"
    check_made_for(lm, about["model"], about["fingerprint"], what, f"train one with '{command}'")
    return network.to(lm.device, torch.promote_types(lm.dtype, torch.float32)), deepcopy(about)


@lru_cache(maxsize=4)
def _read(path: Path, _written: int, shipped: bool) -> tuple[MendNetwork, dict]:
    """A network from its file, read again only where it was written again."""
    if shipped:
        manifest.whole(path)
    with damaged(path, "MEND network", "make it again with 'python -m lens mend train'"):
        file = Sealed(path, FORM, (FORMAT,), (UNSEALED,))
        about, tensors = file.about, {name: file[name] for name in file.names}
        shapes = {(layer, site): (d_in, d_out) for layer, site, d_in, d_out in about["sites"]}
        for d_in, d_out in shapes.values():  # before a network of these sizes is made
            if tensors[f"shared.{d_in}x{d_out}.V"].shape != (LAYERS, d_in + d_out, about["rank"]):
                raise ValueError("rank")
        network = MendNetwork(shapes, about["rank"], alpha=1.0)
        network.load_state_dict(tensors)
        del about["format"]
    return network.eval().requires_grad_(False), about
