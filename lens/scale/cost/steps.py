"""Which phases does each step go through, and what does it hold in each?

Every function answers for one step: {phase: {part: bytes}}, how many weights learn, and the bytes of the result.  It
follows the code of the step line by line; the reason for each term stands beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch

from lens.edit.statistics import TOKENS as STATISTICS_TOKENS
from lens.kernels.logits import BLOCK, buffers
from lens.mask.config import Config
from lens.scale.cost.activations import FULL, LAYERS, bytes_per_token
from lens.scale.cost.shapes import Module, Shape

Parts = dict[str, int]
Phases = dict[str, Parts]
Found = tuple[Phases, int, int]

DTYPES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number."""

DOUBLE = 8
"""Bytes of a float64: second moments are summed and factored in it."""


@dataclass(frozen=True)
class Work:
    """What a step works on.

    ``dtype`` of the model's weights.  ``batch`` rows of ``tokens`` tokens (of a mask: the longest prompt), ``scored``
    places in a row where a token is predicted.  ``config``: settings of a mask; ``rows``: how many rows of its three
    sets are kept; its layers and sites, and ``granularity`` and ``samples``, are the configuration's.  ``layers`` and
    ``sites``: what learns in "finetune" (None: every parameter) and "lora" (None: every matrix); ``rank`` of "lora".
    ``edited``: the layers whose FF2 an editor changes; ``contexts``: prompts in its search.  ``checkpointing``: layers
    are run again in the backward pass.  ``devices``: layers spread evenly; the fullest is told.
    """

    dtype: str = "float32"
    batch: int = 1
    tokens: int = 16
    scored: int = 1
    config: Config = field(default_factory=Config)
    rows: tuple[int, int, int] = (64, 128, 16)
    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] | None = None
    rank: int = 8
    edited: tuple[int, ...] | None = None
    contexts: int | None = None
    checkpointing: bool = False
    devices: int = 1

    @property
    def width(self) -> int:
        """Bytes of a number of the model."""
        return DTYPES[self.dtype]


# --- what passes hold -------------------------------------------------------------------------------------------------


def kept(
    s: Shape,
    w: Work,
    rows: int,
    tokens: int,
    first: int,
    learning: dict[int, Collection[str]],
    entry: bool = True,
    again: bool = True,
) -> int:
    """What autograd keeps of the layers from ``first`` on for rows [rows, tokens], and of the final norm.

    With checkpointing: each layer's input and, in the backward pass (``again``), all of one layer.
    """
    each = [
        rows * tokens * sum(bytes_per_token(s, w.width, tokens, learning.get(i, ()), entry and i == first).values())
        for i in range(first, s.layers)
    ]
    final = rows * tokens * (s.width + 2) * w.width
    if w.checkpointing and each:
        return (len(each) - 1) * rows * tokens * s.width * w.width + again * max(each) + final
    return sum(each) + final


def working(s: Shape, w: Work, places: int, ff2_learns: bool = False) -> int:
    """What one layer's backward pass makes beside what is kept; where FF2 learns, its input is gone by then."""
    layer = LAYERS[s.kind]
    own = ff2_learns and any(row.reader == "ff2" for row in layer.kept)
    return (layer.working - own) * places * s.inner * w.width


def passing(s: Shape, w: Work, places: int) -> int:
    """What a pass without gradients holds at a time."""
    inner, width = LAYERS[s.kind].forward
    return places * (inner * s.inner + width * s.width) * w.width


def chunk(s: Shape, w: Work, rows: int, count: int, blocks: int = 6) -> int:
    """The buffers of a chunk of logits, asked of the function that makes them, and ``blocks`` blocks of its columns.

    Of a divergence: log p, log q, q, their difference, the terms of the sum, and one in exchange.  Of words: two.
    """
    e = torch.empty(s.vocabulary, 1, dtype=getattr(torch, w.dtype), device="meta")
    held = buffers(rows, e, count)
    return sum(b.nbytes for b in held) + blocks * len(held[0]) * min(BLOCK, s.vocabulary) * max(w.width, FULL)


def loss(s: Shape, w: Work, places: int, held: bool = True) -> int:
    """Cross-entropy over plain logits: log p and, in the backward pass, its gradient and z's, in float32.

    ``held``: z itself is still there, because the caller has a name for it.
    """
    wide = max(w.width, FULL)
    return places * s.vocabulary * (3 * wide + held * w.width + (wide if wide != w.width else 0))


def weights(s: Shape, w: Work) -> Parts:
    return {"weights": s.parameters * w.width}


# --- reading and editing ----------------------------------------------------------------------------------------------


def forward(s: Shape, w: Work) -> Found:
    """One pass, and the logits of the scored places."""
    places = w.batch * w.tokens
    base = weights(s, w)
    normed = {"activations": places * s.width * w.width}
    head = base | normed | {"logits": w.batch * w.scored * s.vocabulary * w.width}
    return {"layers": base | {"activations": passing(s, w, places)}, "head": head}, 0, 0


def lens(s: Shape, w: Work) -> Found:
    """``capture``: a graph over all layers, beside it x, z and δ of every site; then the words of a site's vectors."""
    places, every = w.batch * w.tokens, s.modules(range(s.layers))
    sites = {site for m in every for site in m.sites}
    plain = kept(s, w, w.batch, w.tokens, 0, {}, entry=False)
    with_x = kept(s, w, w.batch, w.tokens, 0, dict.fromkeys(range(s.layers), sites), entry=False)
    z = s.layers * places * LAYERS[s.kind].outputs(s, w.tokens) * w.width
    behind = s.layers * len(s.model.family.behind) * s.width  # what is read behind a norm
    delta = places * (sum(m.d_out for m in every) + behind) * w.width
    x = places * sum(m.d_in for m in every if m.sites[0] not in ("attn_k", "attn_v", "ff1_gate")) * w.width
    outs = delta
    copies = 2 if w.batch > 1 else 1  # of several prompts the padding is left out
    stacked = places * s.layers * s.width * w.width
    base = weights(s, w)
    return (
        {
            "backward begins": base
            | {
                "activations": plain,
                "inputs and outputs": with_x - plain + z,
                "working": working(s, w, places),
                "logits": loss(s, w, w.batch * w.scored),
            },
            "backward ends": base | {"inputs and outputs": x + outs, "VJPs": delta},
            "factors": base | {"inputs and outputs": x * copies + outs, "VJPs": delta * copies},
            "words": base
            | {
                "inputs and outputs": x,
                "VJPs": delta + 2 * stacked,
                "logits": chunk(s, w, places * s.layers, 1, blocks=2),
            },
        },
        0,
        x + delta,
    )


def shift(s: Shape, w: Work) -> Found:
    """A forward pass, and the two factors of the change in float32."""
    phases, _, _ = forward(s, w)
    return phases, 0, FULL * w.batch * w.scored * (s.inner + s.width)


def statistics(s: Shape, w: Work) -> Found:
    """One layer's second moment at a time: the sum in float64, and the product of a batch's FF2 inputs in float32."""
    side = s.inner**2
    base = weights(s, w) | {"statistics": side * (DOUBLE + FULL)}
    inputs = STATISTICS_TOKENS * s.inner * (w.width + (FULL if w.width < FULL else 0))
    return (
        {
            "layers": weights(s, w) | {"statistics": side * DOUBLE, "activations": passing(s, w, STATISTICS_TOKENS)},
            "sum": base | {"activations": inputs},
            "mean": weights(s, w) | {"statistics": side * (2 * DOUBLE + FULL)},
        },
        0,
        side * FULL,
    )


def rome(s: Shape, w: Work) -> Found:
    """The search for v* over 21 contexts and one more row, and C with its Cholesky factor."""
    return _with_statistics(s, w, w.edited or (s.layers * 17 // 48,), w.contexts or 21)


def memit(s: Shape, w: Work) -> Found:
    """The same in several layers, over 6 contexts."""
    last = s.layers * 17 // 48
    return _with_statistics(s, w, w.edited or tuple(range(max(0, last - 4), last + 1)), w.contexts or 6)


def _with_statistics(s: Shape, w: Work, layers: tuple[int, ...], contexts: int) -> Found:
    side, rows = s.inner**2, contexts + 1
    held = weights(s, w) | {"statistics": len(layers) * side * FULL}
    factors = len(layers) * side * DOUBLE
    # The residual is added to what the edited layer gives, so the graph begins there.
    above = kept(s, w, rows, w.tokens, max(layers) + 1, {}, entry=False)
    search = {
        "activations": above + rows * w.tokens * s.width * w.width,
        "working": working(s, w, rows * w.tokens),
        "logits": loss(s, w, rows),
    }
    last = {"statistics": held["statistics"] + factors + side * DOUBLE}  # C in float64 beside its factor
    return {"search": held | search, "factors of C": held | last}, 0, len(layers) * FULL * (s.inner + s.width)


def sites_of(modules: Iterable[Module]) -> dict[int, set[str]]:
    """Which inputs are kept: a name for what q, k and v read, and one for what FF1 and its gate read."""
    found: dict[int, set[str]] = {}
    for m in modules:
        names = {
            "attn_q" if site in ("attn_k", "attn_v") else "ff1" if site == "ff1_gate" else site for site in m.sites
        }
        found.setdefault(m.layer, set()).update(names)
    return found
