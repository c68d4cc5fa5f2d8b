"""How large is a model?  Every number that a cost follows from, read off a model of no memory.

A configuration is built on torch's "meta" device, where tensors have shapes and no numbers, so the weights of any model
are counted and none is downloaded.  ``KNOWN`` holds the configurations of well-known models as plain numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from lens.data import manifest, paths
from lens.given import refuse
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
    # as published in its GGUF file
    "smollm2-135m": _llama(576, 1536, 30, 9, 3, 49152) | {"tie_word_embeddings": True},
}
"""Name → the arguments of its transformers configuration."""


class Module(NamedTuple):
    """The weights of one matrix: its layer, its path below the layer, and how many they are."""

    layer: int
    path: str
    weights: int


@dataclass(frozen=True)
class Shape:
    """The numbers of one model: ``layers`` L, ``width`` d, ``inner`` d_m, ``vocabulary`` V, all ``parameters``.

    ``query`` is the width of q, ``heads`` the number of its heads.  ``tied``: one matrix is embedding and unembedding.
    """

    name: str
    kind: str
    layers: int
    width: int
    inner: int
    query: int
    heads: int
    vocabulary: int
    parameters: int
    tied: bool
    layer: tuple[tuple[str, int], ...] = field(repr=False)  # the path and the weights of each matrix; layers are alike
    config: str = field(repr=False)  # transformers' own, as JSON

    @property
    def matrices(self) -> int:
        """The weights of all layers' linear maps: those that are multiplied with every token."""
        return self.layers * sum(weights for _, weights in self.layer)

    def modules(self) -> tuple[Module, ...]:
        """The weight matrices of the upper half of the layers."""
        return tuple(Module(i, *one) for i in range(self.layers // 2, self.layers) for one in self.layer)

    def chosen(self, layers: Iterable[int]) -> tuple[int, ...]:
        """Layers, counted from the end where negative, in order; ``IndexError`` for one that does not exist."""
        for layer in (layers := tuple(layers)):
            if not -self.layers <= layer < self.layers:
                raise IndexError(f"There is no layer {layer}: {self.name} has {self.layers}, 0 to {self.layers - 1}.")
        return tuple(sorted({layer % self.layers for layer in layers}))


def shape(what: str | Path | Mapping | object) -> Shape:
    """The shape of a model: a name (``KNOWN``, or built in), a folder, a transformers configuration, or a model.

    No weight is read.  Raises ``ValueError`` for a name that is none of these and for a family unknown to ``lens``.

    >>> xl = shape("gpt2-xl")
    >>> xl.layers, xl.width, xl.parameters
    (48, 1600, 1557611200)
    """
    if isinstance(what, Shape):
        return what
    config = what.model.config if isinstance(what, LanguageModel) else _config(what)
    name = getattr(what, "name", "") or (str(what) if isinstance(what, (str, Path)) else config.model_type)
    family_of(config.model_type)
    return _shape(name, config.num_hidden_layers, config.to_json_string(use_diff=False))


@cache
def _shape(name: str, layers: int, config: str) -> Shape:
    lm = on_meta(config, 1)
    m, e = lm.model, lm.unembedding
    parameters, a_layer = (sum(p.numel() for p in part.parameters()) for part in (m, lm.layers[0]))
    total, tied = parameters + (layers - 1) * a_layer, e is m.get_input_embeddings().weight
    sizes = dict(inner=lm.weight(0, "ff1").shape[1], query=lm.weight(0, "attn_q").shape[1], vocabulary=len(e))
    sizes |= dict(layers=layers, width=lm.width, heads=m.config.num_attention_heads, parameters=total)
    layer = tuple((place.path, place.matrix.numel()) for place in places(lm, [0]))
    return Shape(name=name, kind=m.config.model_type, tied=tied, layer=layer, config=config, **sizes)


def _config(what):
    """The transformers configuration of a name, a folder, or its own arguments."""
    from transformers import AutoConfig

    name = str(what) if isinstance(what, (str, Path)) else ""
    known = dict(what) if isinstance(what, Mapping) else KNOWN.get(name.rsplit("/", 1)[-1].lower())
    if known is not None:
        return AutoConfig.for_model(**known)
    if not name:
        if not hasattr(what, "model_type"):
            raise refuse("model", what, "a name, a folder, a transformers configuration, or a model")
        return what
    folder = paths.model(name) if name in paths.BUILT_IN else Path(name).expanduser()
    if name in paths.BUILT_IN and not folder.is_dir():
        raise ValueError(f"The model {name!r} is not on this machine: {manifest.remedy(f'{name}/config.json')}")
    if not folder.is_dir():
        raise ValueError(
            f"The model {name!r} is not known: give one of {', '.join((*paths.BUILT_IN, *KNOWN))}, a folder, or a "
            "transformers configuration."
        )
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def on_meta(config: str, layers: int, dtype: str = "float32") -> LanguageModel:
    """A model of ``config``, but of so many layers, that has shapes and no numbers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**json.loads(config))
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    family = family_of(config.model_type)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=family.attention)
    return LanguageModel(model.eval().to(getattr(torch, dtype)), Letters(), "")


class Letters:
    """Stands for a tokenizer: a letter is a token."""

    is_fast = True
    num_special_tokens_to_add = staticmethod(lambda: 0)
    convert_ids_to_tokens = decode = staticmethod(lambda *_, **__: "")

    def __call__(self, text: str, **_) -> dict:
        return {"input_ids": [1] * len(text), "offset_mapping": [(i, i + 1) for i in range(len(text))]}
