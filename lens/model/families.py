"""Where does each model family keep its parts?  One table, no branches.

A *site* is one linear map inside a layer, ``z = x W + b``.  Every family names the same nine roles:

====================  =====================================================================
``attn_q/k/v/out``    the four maps of attention
``ff1``               into the MLP (Llama-style MLPs: the ``up`` projection)
``ff1_gate``          the second map into a gated MLP, where there is one
``ff2``               out of the MLP (Llama-style: ``down``)
====================  =====================================================================

Some families compute several sites in one matrix.  ``Site.part`` says which part of it a site is, and ``Site.layout``
how the parts lie side by side: ``"blocks"`` is [q | k | v] (GPT-2; Phi-3, where k and v may be narrower), ``"heads"``
is [q₁ k₁ v₁ | q₂ k₂ v₂ | …] (GPT-NeoX), ``"halves"`` is [gate | up] (Phi-3).  To teach ``lens`` a new family, add one
entry to ``FAMILIES``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True)
class Site:
    """One linear map of a layer: the module's path below the layer and, where it is fused, which part of it and how."""

    module: str
    part: int | None = None
    layout: str = "blocks"

    def slice(self, z: torch.Tensor, config) -> torch.Tensor:
        """Cut this site's columns out of the module's output ``z [..., d_out]``: z itself where nothing is fused.

        ``config`` is the model's own, which knows the numbers of heads.  It is a view, but for the layout ``"heads"``.
        """
        if self.part is None:
            return z
        heads = config.num_attention_heads
        if self.layout == "heads":
            return z.unflatten(-1, (heads, 3, -1))[..., self.part, :].flatten(-2)
        groups = getattr(config, "num_key_value_heads", None) or heads
        shares = {"blocks": (heads, groups, groups), "halves": (1, 1)}[self.layout]
        return z.split([z.shape[-1] // sum(shares) * share for share in shares], dim=-1)[self.part]


@dataclass(frozen=True)
class Family:
    """Paths below the model: its layers, what follows the last layer before the unembedding, and a layer's sites.

    ``behind``: the norm, by its path below the layer, that a site's output goes through before it is added to the
    residual stream, where there is one.  ``attention``: what to open it with, where not every implementation is right.
    """

    layers: str
    final: tuple[str, ...]
    sites: dict[str, Site] = field(hash=False)
    behind: dict[str, str] = field(default_factory=dict, hash=False)
    attention: str | None = None


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
    | {"attn_out": Site("attention.dense"), "ff1": Site("mlp.dense_h_to_4h"), "ff2": Site("mlp.dense_4h_to_h")},
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

_GPTJ = Family(
    layers="transformer.h",
    final=("transformer.ln_f",),
    sites={f"attn_{name}": Site(f"attn.{name}_proj") for name in ("q", "k", "v", "out")}
    | {"ff1": Site("mlp.fc_in"), "ff2": Site("mlp.fc_out")},
)

_PHI3 = replace(
    _LLAMA,
    sites=_LLAMA.sites
    | _fused("self_attn.qkv_proj", "blocks")
    | {"ff1": Site("mlp.gate_up_proj", 1, "halves"), "ff1_gate": Site("mlp.gate_up_proj", 0, "halves")},
)

# Llama has a ``post_attention_layernorm`` too, and there it is the norm before the MLP.
_OLMO2 = replace(_LLAMA, behind={"attn_out": "post_attention_layernorm", "ff2": "post_feedforward_layernorm"})

_GEMMA2 = replace(_OLMO2, attention="eager")  # torch's own leaves out the soft cap on its scores

FAMILIES: dict[str, Family] = {
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
    "gptj": _GPTJ,
    "opt": _OPT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "phi3": _PHI3,
    "olmo2": _OLMO2,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _OLMO2,
}


def family_of(model_type: str, attention: str | None = None) -> Family:
    """The family's entry, by ``config.model_type``; ``ValueError`` names an unknown one and what it would need.

    ``attention``: the one that a model runs with; ``ValueError`` where the family needs another.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"The model family {model_type!r} is not known to lens (known: {', '.join(FAMILIES)}); to add it, "
            "give FAMILIES in lens/model/families.py one entry with its layers, its final norm and its attention and "
            "MLP sites."
        )
    family = FAMILIES[model_type]
    if family.attention and attention == "sdpa":
        raise ValueError(
            f"This {model_type} runs with torch's own attention ('sdpa'), which leaves out its soft cap: open it with "
            f"lens.load, or call model.set_attn_implementation({family.attention!r}) first."
        )
    return family


def check_adds(lm, site: str, what: str, instead: str) -> None:
    """``ValueError`` where a norm lies between ``site`` and the stream: ``what`` needs none, so do ``instead``."""
    normed_sum = not getattr(lm.model.config, "do_layer_norm_before", True)  # OPT-350M
    if norm := "do_layer_norm_before is False" if normed_sum else lm.family.behind.get(site):
        raise ValueError(
            f"{what} needs a model that adds {site} to its residual stream as it is, and {lm.model.config.model_type} "
            f"sends it through a norm first ({norm}): {instead}."
        )
