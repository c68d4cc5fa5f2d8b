"""Where does each model family keep its parts?  One table, no branches.

A *site* is one linear map inside a layer, ``z = x W + b``.  Every family names the same nine roles:

====================  =====================================================================
``attn_q/k/v/out``    the four maps of attention
``ff1``               into the MLP (Llama-style MLPs: the ``up`` projection)
``ff1_gate``          the second map into a gated MLP, where there is one
``ff2``               out of the MLP (Llama-style: ``down``)
====================  =====================================================================

Some families compute q, k and v in one matrix.  ``Site.part`` says which third a site is, and ``Site.layout`` how
the thirds lie side by side: ``"blocks"`` is [q | k | v] (GPT-2); ``"heads"`` is [q₁ k₁ v₁ | q₂ k₂ v₂ | …] (GPT-NeoX).
To teach ``lens`` a new family, add one entry to ``FAMILIES``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Site:
    """One linear map of a layer: the module's path below the layer, and which third of it (fused q, k, v only)."""

    module: str
    part: int | None = None
    layout: str = "blocks"

    def slice(self, z: torch.Tensor, heads: int) -> torch.Tensor:
        """Cut this site's columns out of the fused output ``z [..., 3·d]``; the identity where nothing is fused."""
        if self.part is None:
            return z
        if self.layout == "blocks":
            return z.chunk(3, dim=-1)[self.part]
        return z.unflatten(-1, (heads, 3, -1))[..., self.part, :].flatten(-2)


@dataclass(frozen=True)
class Family:
    """Paths below the model: its layers, what follows the last layer before the unembedding, and a layer's sites."""

    layers: str
    final: tuple[str, ...]
    sites: dict[str, Site] = field(hash=False)


def _fused(module: str, layout: str) -> dict[str, Site]:
    return {f"attn_{name}": Site(module, part, layout) for part, name in enumerate("qkv")}


_GPT2 = Family(
    layers="transformer.h",
    final=("transformer.ln_f",),
    sites=_fused("attn.c_attn", "blocks")
    | {"attn_out": Site("attn.c_proj"), "ff1": Site("mlp.c_fc"), "ff2": Site("mlp.c_proj")},
)

_GPT_NEOX = Family(
    layers="gpt_neox.layers",
    final=("gpt_neox.final_layer_norm",),
    sites=_fused("attention.query_key_value", "heads")
    | {
        "attn_out": Site("attention.dense"),
        "ff1": Site("mlp.dense_h_to_4h"),
        "ff2": Site("mlp.dense_4h_to_h"),
    },
)

_OPT = Family(
    layers="model.decoder.layers",
    final=("model.decoder.final_layer_norm", "model.decoder.project_out"),
    sites={f"attn_{name}": Site(f"self_attn.{name}_proj") for name in ("q", "k", "v", "out")}
    | {"ff1": Site("fc1"), "ff2": Site("fc2")},
)

_LLAMA = Family(
    layers="model.layers",
    final=("model.norm",),
    sites={f"attn_{name}": Site(f"self_attn.{name}_proj") for name in "qkv"}
    | {
        "attn_out": Site("self_attn.o_proj"),
        "ff1": Site("mlp.up_proj"),
        "ff1_gate": Site("mlp.gate_proj"),
        "ff2": Site("mlp.down_proj"),
    },
)

FAMILIES: dict[str, Family] = {
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
    "opt": _OPT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _LLAMA,
}


def family_of(model_type: str) -> Family:
    """The family's entry, by ``config.model_type``; ``ValueError`` names an unknown one and what it would need."""
    if model_type not in FAMILIES:
        raise ValueError(
            f"The model family {model_type!r} is not known to lens (known: {', '.join(FAMILIES)}); to add it, "
            "give FAMILIES in lens/model/families.py one entry with its layers, its final norm and its attention and "
            "MLP sites."
        )
    return FAMILIES[model_type]
