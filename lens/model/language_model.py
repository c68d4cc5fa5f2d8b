"""What is a language model to this book?  A transformers model, its tokenizer, and where its parts are.

``LanguageModel`` answers the questions every chapter asks: which tokens are these, which
module is site ``ff2`` of layer 3, what logits does this vector stand for.  The transformers model inside is left
exactly as it was loaded: no folded norms, no centred weights, no wrapper.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from math import inf

import torch
from torch import Tensor, nn

from lens import kernels
from lens.given import whole
from lens.model import devices, soundness, tokens
from lens.model.families import Family, family_of
from lens.model.tokens import Tokens
from lens.model.weights import Weights


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with the names this book uses for its parts.

    ``model`` is the unmodified transformers model and ``tokenizer`` its tokenizer; ``name`` is what it was loaded as.
    Raises ``TypeError`` for what is no causal language model, and ``ValueError`` for one that is quantized or carries
    adapters (LoRA); ``lens.load(model, tokenizer)`` looks at its numbers too.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> len(lm.layers), tuple(lm.weight(0, "ff1").shape), tuple(lm.unembedding.shape)  # [d_in, d_out], [V, d]
    (8, (192, 768), (6144, 192))
    """

    model: nn.Module
    tokenizer: object
    name: str = ""

    def __post_init__(self):
        soundness.check_parts(self)

    def __repr__(self) -> str:
        c = self.model.config
        return (
            f"LanguageModel({self.name or c.model_type!r}: {c.model_type}, {len(self.layers)} layers, "
            f"width {self.width}, vocabulary {self.vocabulary_size}, {self.dtype}, {self.device})"
        )

    # --- parts -----------------------------------------------------------------------------------------------------

    @cached_property
    def family(self) -> Family:
        """Where this model keeps its parts; ``ValueError`` where it is unknown, or runs with a wrong attention."""
        return family_of(self.model.config.model_type, self.model.config._attn_implementation)

    @cached_property
    def base_model(self) -> nn.Module:
        """The model without its head: token ids [B, T] → ln_f's output, as ``last_hidden_state`` [B, T, d]."""
        return self.model.get_submodule(self.family.layers.rpartition(".")[0])

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.model.get_submodule(self.family.layers)

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the linear maps inside one layer."""
        return tuple(self.family.sites)

    @property
    def device(self) -> torch.device:
        """Where token ids enter the model."""
        return devices.device(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.model.get_output_embeddings().weight.dtype

    @property
    def unembedding(self) -> Tensor:
        """E [V, d]: row ``t`` is the direction that raises token ``t``'s logit."""
        return devices.weight(soundness.plain(self.model.get_output_embeddings(), "The unembedding"))

    @property
    def vocabulary_size(self) -> int:
        """V, how many tokens there are."""
        return soundness.plain(self.model.get_output_embeddings(), "The unembedding").weight.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the residual stream."""
        return self.model.config.hidden_size

    def site(self, layer: int, site: str) -> nn.Module:
        """The module that computes ``site`` in ``layer`` (q, k and v may share one)."""
        self.check(layer, site)
        module = self.layers[layer].get_submodule(self.family.sites[site].module)
        return soundness.plain(module, f"Site {site!r} of layer {layer}")

    def weight(self, layer: int, site: str) -> Tensor:
        """W [d_in, d_out] of a site, whichever way round the model stores it; shares memory where that is possible."""
        module = self.site(layer, site)
        w = devices.weight(module) if type(module).__name__ == "Conv1D" else devices.weight(module).T
        return self.family.sites[site].slice(w, self.model.config)

    def check(self, layer: int, site: str) -> None:
        """``IndexError`` or ``ValueError``, in one sentence, where this model has no such layer or site."""
        depth = len(self.layers)
        whole("layer", layer, -inf)
        if not -depth <= layer < depth:
            raise IndexError(f"There is no layer {layer}: this model has {depth} layers, 0 to {depth - 1}.")
        if site not in self.family.sites:
            raise ValueError(f"There is no site {site!r} in this model: choose one of {', '.join(self.sites)}.")

    @cached_property
    def weights(self) -> Weights:
        """The owner of the model's weights: what lies on them, and how all of it is taken back."""
        return Weights(self.model)

    @property
    def fingerprint(self) -> str:
        """Which model is this, as it was loaded?  A SHA-256 of its parameters (``Weights.fingerprint``)."""
        return self.weights.fingerprint

    @property
    def changed(self) -> tuple[str, ...]:
        """What lies on the model's weights at this moment (edits, masks), first to last; empty where nothing does."""
        return self.weights.changed

    # --- the way out: hidden vector → logits -----------------------------------------------------------------------

    def norm(self, hidden: Tensor) -> Tensor:
        """ln_f, applied to every row of ``hidden [..., d]`` on its own."""
        for path in self.family.final:
            module = reduce(lambda module, name: getattr(module, name, None), path.split("."), self.model)
            if module is not None:
                hidden = module(hidden.to(device=devices.device(module)))
        return hidden

    def toward(self, tokens: Tensor) -> Tensor:
        """E[t] as directions of the residual stream: [K, d] for token ids [K].

        These are rows of E, but where a family has a linear map between ln_f and E (OPT-350m): there E[t] is carried
        back through it, so that the direction is the one along which the logit of t grows.
        """
        unembedding = self.unembedding.detach()
        rows = unembedding[tokens.to(unembedding.device)]
        for path in reversed(self.family.final):
            module = reduce(lambda module, name: getattr(module, name, None), path.split("."), self.model)
            if isinstance(module, nn.Linear):
                rows = rows.to(device=devices.device(module)) @ devices.weight(module).detach()
        return rows

    @property
    def softcap(self) -> float | None:
        """c where logits are bounded by c·tanh(z/c), as Gemma's are; None elsewhere."""
        return getattr(self.model.config, "final_logit_softcapping", None)

    @property
    def head_terms(self) -> dict:
        """What a logit has besides h Eᵀ, as ``lens.kernels`` takes it: ``bias`` [V] or None, and ``softcap``."""
        bias = getattr(self.model.get_output_embeddings(), "bias", None)
        return {"bias": None if bias is None else bias.detach(), "softcap": self.softcap}

    def head(self, normed: Tensor) -> Tensor:
        """Logits [..., V] of vectors that ln_f has seen, in float32 at least: ``normed Eᵀ``, and Gemma's soft cap."""
        head = self.model.get_output_embeddings()
        normed = normed.to(device=devices.device(head))
        half = normed.dtype.itemsize == 2
        logits = kernels.unembed(normed, self.unembedding, getattr(head, "bias", None)) if half else head(normed)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    # --- tokens ----------------------------------------------------------------------------------------------------

    def encode(self, prompt: Tokens) -> list[int]:
        """The token ids of a prompt: text, one id, or ids as a list, tensor, array or a tokenizer's dictionary.

        A text gets the beginning-of-text token if this family's tokenizer adds one and the text does not begin with
        it, and never an end-of-text token.  A text that ends in a space is read as it is, with a warning.
        ``ValueError`` for a prompt of no tokens, one longer than the model reads, or ids outside the vocabulary.
        """
        ids = tokens.prompt_ids(self.tokenizer, prompt)
        if not ids:
            raise ValueError("The prompt has no tokens: give it at least one word.")
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit and len(ids) > limit:
            raise ValueError(f"The prompt has {len(ids)} tokens and this model reads at most {limit}: shorten it.")
        return self.in_vocabulary(ids)

    def target_ids(self, target: Tokens) -> list[int]:
        """The token ids of a continuation: text, or ids in any form that ``encode`` takes.

        The leading-space rule of the whole book is here: a word gets one space in front, because in running text the
        word "Paris" is the token " Paris".  Where running text has no space there is none: before a comma and its
        like, before ``'s``, and before Han, kana, Thai, Lao, Burmese and Khmer.  Text that begins with white space is
        taken as it is, and ``##`` in front says "no space", as in WordPiece: ``##ing`` is the token "ing".
        """
        ids = tokens.target_ids(self.tokenizer, target)
        if not ids:
            raise ValueError("The target has no tokens: give the word the model should say next, such as 'Paris'.")
        return self.in_vocabulary(ids)

    def word(self, token: int) -> str:
        r"""A token as people read it: a leading space shows as ``·``, line breaks and tabs as their escapes.

        A part of a character shows as its bytes, ``\xc3``, and a row of E that is no token as its id, ``[6150]``.
        """
        return tokens.word(self.tokenizer, int(token))

    def words(self, ids) -> list:
        """``word`` for every id in a tensor, array or list, keeping its nesting."""
        return [self.words(t) if isinstance(t, (list, tuple)) else self.word(t) for t in tokens.plain(ids)]

    def in_vocabulary(self, ids: list[int]) -> list[int]:
        """The ids, unchanged; ``ValueError`` names the first that is outside the vocabulary."""
        size = self.vocabulary_size
        for i in ids:
            if not 0 <= i < size:
                raise ValueError(f"Token id {i} is outside this model's vocabulary (0 to {size - 1}).")
        return ids
