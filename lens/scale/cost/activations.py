"""What does autograd keep of a layer until its backward pass?  One table, a row for each tensor, a reason for each row.

An operation keeps what its own derivative reads.  For one token, in numbers:

    a norm            its input, and its statistics (LayerNorm's in float32; an RMSNorm computes in float32 as a whole)
    z = x W           x, where W learns; where only x does, nothing but W, which is there anyway
    attention         q, k, v, its result, and one logsumexp a head: the T × T probabilities are computed again
    an activation     what its derivative reads: one tensor for a ReLU or a fused GELU, four for GPT-2's ``gelu_new``,
                      which is written out in elementary steps

The tests hold every family against autograd itself (``torch.autograd.graph.saved_tensors_hooks``), as transformers 5
writes it; version 4 keeps somewhat more.  Not in the table: what all layers share, such as rotary angles and an
explicit attention mask.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from lens.scale.cost.shapes import Shape

FULL = 4
"""Bytes of a float32."""

NORM = "norm"
"""The reader that is a norm's own weight."""


@dataclass(frozen=True)
class Kept:
    """One tensor: ``numbers(shape, T)`` a token; ``reader``: the site whose gradient alone reads it, None if all do.

    ``full``: float32, whatever the model's dtype.  ``entry``: not kept where the layer's input needs no gradient.
    """

    what: str
    numbers: Callable[[Shape, int], int]
    reader: str | None = None
    full: bool = False
    entry: bool = False


@dataclass(frozen=True)
class Layer:
    """``kept``: the tensors of one layer.  What more there is at a time, as multiples of (d_m, d) a token:

    ``working`` in its backward pass, ``forward`` in a pass without gradients.  ``outputs``: the numbers of the linear
    maps' results z that autograd does not keep, and ``lens.capture`` does.
    """

    kept: tuple[Kept, ...]
    working: int
    forward: tuple[int, int]
    outputs: Callable[[Shape, int], int]


def bytes_per_token(
    s: Shape, width: int, tokens: int, learning: Collection[str] = (), entry: bool = False
) -> dict[str, int]:
    """Bytes that one layer keeps of each token of a row of ``tokens``, by tensor.

    ``width``: bytes of a number of the model.  ``learning``: the sites (and ``NORM``) whose weights get a gradient.
    ``entry``: the layer's input needs no gradient.
    """
    found = {}
    for row in LAYERS[s.kind].kept:
        if (row.reader is None or row.reader in learning) and not (entry and row.entry):
            found[row.what] = row.numbers(s, tokens) * (max(width, FULL) if row.full else width)
    return found


def d(s: Shape, t: int) -> int:
    return s.width


def m(s: Shape, t: int) -> int:
    return s.inner


def q(s: Shape, t: int) -> int:
    return s.query


def k(s: Shape, t: int) -> int:
    return s.keys


def qkv(s: Shape, t: int) -> int:
    return s.query + 2 * s.keys


def layer_norm(where: str, reader: str, stream: bool = True, entry: bool = False) -> tuple[Kept, ...]:
    rows = (
        Kept(f"{where}: mean and 1/σ", lambda s, t: 2, full=True, entry=entry),
        Kept(f"{where}: normed", d, reader),
    )
    return (Kept(f"{where}: stream", d, entry=entry), *rows) if stream else rows


def rms_norm(where: str, reader: str | None, numbers=d, count=lambda s, t: 1, entry: bool = False) -> tuple[Kept, ...]:
    rows = (
        Kept(f"{where}: stream", numbers, full=True, entry=entry),
        Kept(f"{where}: 1/rms", count, full=True, entry=entry),
        Kept(f"{where}: before the norm's weight", numbers, NORM),
    )
    return (*rows, Kept(f"{where}: normed", numbers, reader)) if reader else rows


ATTENTION = (Kept("attention: logsumexp", lambda s, t: s.heads, full=True), Kept("attention: result", q))
GATED = (Kept("gate: z", m), Kept("FF1: z", m), Kept("gate", m), Kept("FF2: x", m, "ff2"))
ROTARY = Kept("attention: q and k, turned", lambda s, t: s.query + s.keys)
JOINED = Kept("attention: result, heads joined", q, "attn_out")
HEADS = (
    *rms_norm("q", None, q, lambda s, t: s.heads),
    *rms_norm("k", None, k, lambda s, t: s.heads * s.keys // s.query),
)
BEHIND = rms_norm("behind attention", None), rms_norm("behind the MLP", None)

GPT2 = Layer(
    (
        *layer_norm("attention", "attn_q", entry=True),
        Kept("attention: q, k, v", qkv),
        *ATTENTION,
        *layer_norm("MLP", "ff1"),
        *(Kept(f"gelu_new: {what}", m) for what in ("z", "tanh(…)", "1 + tanh(…)", "z/2")),
        Kept("FF2: x", m, "ff2"),
    ),
    3,
    (4, 4),
    lambda s, t: 2 * s.width,
)
GPT_NEOX = Layer(
    (
        *layer_norm("attention", "attn_q", entry=True),
        Kept("attention: q, k, v", qkv),
        ROTARY,
        *ATTENTION,
        JOINED,
        *layer_norm("MLP", "ff1", stream=False, entry=True),  # both norms read one stream
        Kept("GELU: z", m),
        Kept("FF2: x", m, "ff2"),
    ),
    2,
    (2, 3),
    lambda s, t: 2 * s.width,
)
OPT = Layer(
    (
        *layer_norm("attention", "attn_q", entry=True),
        Kept("attention: q, k, v", qkv),
        *ATTENTION,
        *layer_norm("MLP", "ff1"),
        Kept("ReLU", m),
    ),
    2,
    (2, 2),
    lambda s, t: 2 * s.width + s.inner,
)
LLAMA = Layer(
    (
        *rms_norm("attention", "attn_q", entry=True),
        ROTARY,
        Kept("attention: v", k),
        *ATTENTION,
        *rms_norm("MLP", "ff1"),
        *GATED,
    ),
    3,
    (3, 3),
    lambda s, t: 2 * s.width + s.query + s.keys,
)
MISTRAL = Layer(  # a sliding window is a mask, and with a mask keys and values are repeated for every head
    (
        *LLAMA.kept[:4],
        Kept("attention: q, k, v, all heads", lambda s, t: 3 * s.query),
        Kept("attention: the window, as numbers", lambda s, t: t),
        *ATTENTION,
        *LLAMA.kept[8:],
    ),
    3,
    (3, 3),
    lambda s, t: 2 * s.width + s.query + 2 * s.keys,
)
QWEN3 = Layer((*LLAMA.kept[:4], *HEADS, *LLAMA.kept[4:]), 3, (3, 3), lambda s, t: 2 * s.width)
OLMO2 = Layer(  # attention and the MLP read the stream as it is
    (
        Kept("attention: stream", d, "attn_q", entry=True),
        *rms_norm("q", None, q),
        *rms_norm("k", None, k),
        *LLAMA.kept[4:8],
        *BEHIND[0],
        Kept("MLP: stream", d, "ff1"),
        *GATED,
        *BEHIND[1],
    ),
    3,
    (3, 5),
    lambda s, t: 2 * s.width,
)
GEMMA2 = Layer(
    (
        *LLAMA.kept[:4],
        Kept("attention: q, k, v, all heads", lambda s, t: 3 * s.query),
        Kept("attention: scores and probabilities", lambda s, t: 2 * s.heads * t),
        JOINED,
        *BEHIND[0],
        *LLAMA.kept[8:],
        *BEHIND[1],
    ),
    3,
    (3, 5),
    lambda s, t: 2 * s.width + s.query + 2 * s.keys,
)
GEMMA3 = replace(  # most of its layers have a window
    GEMMA2,
    kept=(*MISTRAL.kept[:4], *HEADS, *MISTRAL.kept[4:8], *BEHIND[0], *MISTRAL.kept[8:], *BEHIND[1]),
    outputs=lambda s, t: 2 * s.width + s.keys,
)
GPTJ = Layer(
    (
        *layer_norm("attention and MLP", "attn_q", entry=True),
        Kept("attention: q and k, turned", lambda s, t: s.query + s.keys, full=True),
        Kept("attention: probabilities", lambda s, t: s.heads * t, full=True),
        Kept("attention: v", k),
        JOINED,
        *GPT2.kept[-5:],
    ),
    3,
    (4, 4),
    lambda s, t: 2 * s.width + s.query + s.keys,
)

LAYERS: dict[str, Layer] = {
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "gptj": GPTJ,
    "opt": OPT,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": LLAMA,
    "qwen3": QWEN3,
    "smollm3": LLAMA,
    "phi3": replace(MISTRAL, kept=(*MISTRAL.kept, JOINED)),
    "olmo2": OLMO2,
    "gemma": LLAMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
}
"""Of each family of ``lens.model.families``, with the attention that it is opened with."""
