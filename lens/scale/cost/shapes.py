"""How large is a model?  Every number that a cost follows from, read off a model of no memory.

A configuration is built on torch's "meta" device, where tensors have shapes and no numbers, so the weights of any model
are counted and none is downloaded.  ``KNOWN`` holds the configurations of well-known models as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lens.data import paths
from lens.mask.places import places
from lens.model import LanguageModel
from lens.model.families import family_of


def _gpt2(width: int, layers: int, heads: int) -> dict:
    return {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads}


def _pythia(width: int, layers: int, heads: int, vocabulary: int = 50304) -> dict:
    return {
        "model_type": "gpt_neox", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * width, "vocab_size": vocabulary, "max_position_embeddings": 2048,
    }  # fmt: skip


def _llama(width: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int) -> dict:
    return {
        "model_type": "llama", "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": groups, "vocab_size": vocabulary,
    }  # fmt: skip


KNOWN: dict[str, dict] = {
    # Radford et al., 2019, as published in the hub's configurations
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    # Biderman et al., 2023, Table 1
    "pythia-160m": _pythia(768, 12, 12),
    "pythia-410m": _pythia(1024, 24, 16),
    "pythia-1.4b": _pythia(2048, 24, 16),
    "pythia-2.8b": _pythia(2560, 32, 32),
    "pythia-6.9b": _pythia(4096, 32, 32, 50432),
    # Touvron et al., 2023; Grattafiori et al., 2024, Table 3
    "llama-2-7b": _llama(4096, 11008, 32, 32, 32, 32000),
    "llama-2-70b": _llama(8192, 28672, 80, 64, 8, 32000),
    "llama-3-8b": _llama(4096, 14336, 32, 32, 8, 128256),
    "llama-3-70b": _llama(8192, 28672, 80, 64, 8, 128256),
}
"""Name → the arguments of its transformers configuration."""


@dataclass(frozen=True)
class Module:
    """One weight matrix: [d_in, d_out], and how many of its entries belong to the sites asked for."""

    layer: int
    path: str
    sites: tuple[str, ...]
    d_in: int
    d_out: int
    inside: int

    @property
    def weights(self) -> int:
        return self.d_in * self.d_out


@dataclass(frozen=True)
class Shape:
    """The numbers of one model: ``layers`` L, ``width`` d, ``inner`` d_m, ``vocabulary`` V, all ``parameters``.

    ``query`` and ``keys`` are the widths of q and of k, ``heads`` the number of q's heads.  ``tied``: one matrix is
    embedding and unembedding.
    """

    name: str
    kind: str
    layers: int
    width: int
    inner: int
    query: int
    keys: int
    heads: int
    vocabulary: int
    parameters: int
    tied: bool
    model: LanguageModel = field(repr=False, compare=False)

    @property
    def matrices(self) -> int:
        """The weights of all layers' linear maps: those that are multiplied with every token."""
        return sum(m.weights for m in self.modules(range(self.layers)))

    def modules(self, layers=None, sites=None) -> tuple[Module, ...]:
        """The weight matrices that hold ``sites`` (default: all) of ``layers`` (default: the upper half)."""
        return tuple(
            Module(p.layer, p.path, p.sites, *p.matrix.shape, len(p.matrix) * sum(map(len, p.columns)))
            for p in places(self.model, layers, sites)
        )


def shape(what: str | Path | Mapping | object) -> Shape:
    """The shape of a model: a name (``KNOWN``, or built in), a folder, a transformers configuration, or a model.

    No weight is read.  Raises ``ValueError`` for a name that is none of these and for a family unknown to ``lens``.

    >>> xl = shape("gpt2-xl")
    >>> xl.layers, xl.width, xl.parameters
    (48, 1600, 1557611200)
    """
    if isinstance(what, Shape):
        return what
    lm = what if isinstance(what, LanguageModel) else _on_meta(what)
    m, e = lm.model, lm.unembedding
    return Shape(
        lm.name or m.config.model_type,
        m.config.model_type,
        len(lm.layers),
        lm.width,
        lm.weight(0, "ff1").shape[1],
        lm.weight(0, "attn_q").shape[1],
        lm.weight(0, "attn_k").shape[1],
        m.config.num_attention_heads,
        e.shape[0],
        sum(p.numel() for p in m.parameters()),
        e is m.get_input_embeddings().weight,
        lm,
    )


def _on_meta(what) -> LanguageModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    name = str(what) if isinstance(what, (str, Path)) else ""
    known = KNOWN.get(name.rsplit("/", 1)[-1].lower())
    if isinstance(what, Mapping):
        known = dict(what)
    if known is not None:
        config = AutoConfig.for_model(**known)
    elif not name:
        config = what
    else:
        folder = paths.model(name) if name in paths.BUILT_IN else Path(name).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"The model {name!r} is not known: give one of {', '.join((*paths.BUILT_IN, *KNOWN))}, a folder, or a "
                "transformers configuration."
            )
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    family = family_of(config.model_type)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=family.attention)
        return LanguageModel(model.eval(), None, name)
