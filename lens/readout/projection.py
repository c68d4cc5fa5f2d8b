"""Which words does a vector stand for?  Projection into the vocabulary, without ever holding [N, V].

The logit lens of a vector v of the model's width is ``LL(v) = softmax(ln_f(v) Eᵀ)``, with ln_f recomputed for every
row.  Words are read off the logits, never off the softmax, whose tails underflow and tie.  The *rank* of a token is
the number of tokens with a strictly larger logit: 0 is the top, V − 1 the bottom.

Signs: training subtracts a gradient, so for a VJP δ the words an update *adds* are the bottom of LL(δ)
(``largest=False``), or the top of LL(−δ).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lens import kernels
from lens.given import door, passes, whole
from lens.model import LanguageModel, Tokens
from lens.model.soundness import finite, not_finite
from lens.model.tokens import first_token


@dataclass(frozen=True)
class Projection:
    """The k words nearest to (or farthest from) each vector: ``ids`` and ``logits`` [..., k], best first."""

    ids: Tensor
    logits: Tensor
    _lm: LanguageModel

    @cached_property
    def words(self) -> list:
        """The tokens as text, nested like ``ids``; ``·`` is a leading space."""
        return self._lm.words(self.ids)

    def __repr__(self) -> str:
        return f"Projection({self.words!r})"


@door
def project(
    lm: LanguageModel, vectors: Tensor, k: int = 10, largest: bool = True, normalize: bool = False
) -> Projection:
    """The k tokens with the largest (or smallest) logits in LL(v), for each vector of ``vectors [..., d]``.

    ``normalize=True`` reads v/‖v‖ instead.  Without it, ln_f's ε flattens a vector whose mean
    square is not far above ε, as late VJPs can be, and the result depends on the scale of the loss (*Backward Lens*,
    appendix H).

    Raises ``ValueError`` where ``vectors`` is not of the model's width or not finite, or ``k`` not between 1 and V.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> paris = lm.target_ids("Paris")[0]
    >>> project(lm, lm.unembedding[paris], k=1).words
    ['·Paris']
    """
    check_k(lm, k)
    out = read(lm, vectors, k=k, largest=largest, normalize=normalize)
    return Projection(out["ids"], out["logits"], lm)


def check_k(lm: LanguageModel, k: int) -> None:
    """``ValueError`` where k words cannot be shown."""
    size = lm.vocabulary_size
    if not passes(whole, k, 1, size):
        raise ValueError(f"k is {k!r}: ask for at least 1 and at most {size} words, the size of the vocabulary.")


def token_rank(lm: LanguageModel, vectors: Tensor, token: Tokens, normalize: bool = False) -> Tensor:
    """How many tokens have a strictly larger logit than ``token`` in LL(v): int64 [...] for ``vectors [..., d]``.

    ``token`` is text (its first token counts, with the leading space), a token id, or a tensor of ids that broadcasts
    to [...].  0 is the most probable, V − 1 the least.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> int(token_rank(lm, lm.unembedding[7], 7))
    0
    """
    return read(lm, vectors, tokens=token, normalize=normalize)["ranks"]


def read(
    lm: LanguageModel,
    vectors: Tensor,
    *,
    k: int = 0,
    largest: bool = True,
    tokens: Tokens | None = None,
    normalize: bool = False,
    log_normalizer: bool = False,
) -> dict[str, Tensor]:
    """One pass over the vocabulary that answers everything asked: ``ids`` and ``logits`` of the k best, ``ranks`` and
    ``token_logits`` of given tokens, and ``log_normalizer`` = logsumexp of the logits."""
    width = lm.width
    if not isinstance(vectors, Tensor) or vectors.ndim == 0 or vectors.shape[-1] != width:
        got = list(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise ValueError(
            f"Only vectors of this model's width can be read as words: expected [..., {width}], got {got}."
        )
    if not finite(vectors):
        bad = ~vectors.isfinite().all(-1)
        raise not_finite(lm, f"{int(bad.sum())} of {bad.numel()} vectors hold NaN or infinity and stand for no words")
    shape, unembedding = vectors.shape[:-1], lm.unembedding
    flat = vectors.reshape(-1, width).to(unembedding.device)
    if normalize:
        # Scaled in the vector's own precision: a half-precision VJP may be too small for its squares.
        flat = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
        # By a power of two first, which rounds nothing: squares of large and of small entries are no numbers.
        flat = torch.ldexp(flat, -flat.abs().amax(-1, keepdim=True).frexp().exponent.clamp(-126, 126))
        flat = flat / flat.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    wide, flat = flat, flat.to(unembedding.dtype)
    if wide.dtype != flat.dtype and bool((lost := (flat == 0).all(-1) & (wide != 0).any(-1)).any()):
        raise ValueError(
            f"{int(lost.sum())} of {len(lost)} vectors are too small for {flat.dtype}: read them with normalize=True."
        )
    if tokens is not None:
        if hasattr(tokens, "__array__") and not isinstance(tokens, str):
            tokens = torch.as_tensor(tokens)
            if tokens.is_floating_point() or tokens.dtype == torch.bool:
                raise ValueError(f"Token ids are whole numbers, and these are {tokens.dtype}: give int64.")
        elif isinstance(tokens, (list, tuple)) and len(tokens) > 1:
            raise ValueError(f"Got {len(tokens)} tokens in a {type(tokens).__name__}: give text, one id, or a tensor.")
        else:
            tokens = torch.tensor(first_token(lm.tokenizer, lm.target_ids(tokens)))
        try:
            tokens = tokens.expand(shape)
        except RuntimeError:
            raise ValueError(
                f"Give one token, or one per vector: the vectors are {list(shape)} and the tokens {list(tokens.shape)}."
            ) from None
        if tokens.numel():
            lm.in_vocabulary([int(tokens.min()), int(tokens.max())])
        tokens = tokens.to(flat.device, torch.long).reshape(-1)

    out = kernels.project(
        flat,
        unembedding,
        norm=lm.norm,
        k=k,
        largest=largest,
        tokens=tokens,
        log_normalizer=log_normalizer,
        **lm.head_terms,
    )
    if not all(finite(t) for t in out.values()):
        raise not_finite(lm, "Logits are NaN or infinite and stand for no words")
    return {name: t.reshape((*shape, *t.shape[1:])) for name, t in out.items()}
