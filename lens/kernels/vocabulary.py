"""Which words does a vector stand for?  The best k, given tokens' ranks, log-sum-exp and entropy of ``norm(v) Eᵀ``.

A chunk of logits (``logits.py``) is surveyed in one reading, and what is left of it is small:

    tiles of 64 columns      best[tile]    = max z (or min)
    blocks of columns        m, s, H       largest z, Σ eᶻ⁻ᵐ, and the entropy of the softmax inside the block
    rows                     ranks         = number of z strictly larger than the token's own

**Top k, exactly.**  The k best words are in at most k tiles, and these are the k tiles with the best best entry: a word
in any other tile has at least k words before it.  So look for k tiles among V/64, then for k words among 64 k.

**Merging.**  With M the largest m, a block has the weight s·eᵐ⁻ᴹ, and the share w of the sum of all weights.  Then

    log Σ eᶻ = M + log Σ_block s·eᵐ⁻ᴹ,       entropy = entropy of w + Σ_block w·H,

the second by Shannon's chain rule: first say which block, then which word in it.

**Ranks.**  The token's own logit is read from the same chunk as the others, so a token never counts itself, and words
with equal rows of E tie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lens.kernels.logits import BLOCK, blocks, buffers, check, mass, together
from lens.kernels.paths import HALF, choose, multiplies

TILE = 64
"""Columns whose best entry decides whether top-k looks at them."""

SHORT = 2048
"""Vectors shorter than this are surveyed on a GPU in the kernel that makes their logits (``gpu/projection.py``).

To read the logits of longer ones again takes, on an A100 and on paper, less than a fifth of the product's time.
"""


@torch.no_grad()
def project(
    vectors: Tensor,
    unembedding: Tensor,
    *,
    norm: Callable[[Tensor], Tensor] | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
    k: int = 0,
    largest: bool = True,
    tokens: Tensor | None = None,
    log_normalizer: bool = False,
    entropy: bool = False,
) -> dict[str, Tensor]:
    """Read ``vectors [N, d]`` as words of ``unembedding [V, d]``: z = norm(v) Eᵀ + b, without ever holding [N, V].

    ``norm`` is applied to a chunk of rows at a time (the model's own ln_f, on whatever device), ``bias`` is [V],
    ``softcap`` the c of c·tanh(z/c).  Logits are float32 of half-precision E too, so that words tie where their rows
    of E are equal, not where rounding makes them so.  What is asked for is in the result, by these names:

    - ``k`` > 0: ``ids`` (int64) and ``logits`` [N, k] of the k largest (or smallest) logits, best first; among equal
      logits any may come first.
    - ``tokens`` int64 [N]: ``token_logits`` [N], and ``ranks`` (int64) [N], the number of strictly larger logits.
      A token whose logit is NaN has no rank and gets V, one past the last.
    - ``log_normalizer``: log Σ eᶻ [N]; ``entropy``: −Σ p log p of p = softmax(z) [N], in nats.  Where a logit is +∞
      there is no p, and its entropy is NaN.

    A NaN in a vector makes its numbers NaN.  Raises ``ValueError`` for shapes, dtypes or devices that do not fit
    together, k outside 0 … V, and tokens outside the vocabulary.

    >>> E = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> out = project(torch.tensor([[2.0, 1.0]]), E, k=2, tokens=torch.tensor([1]))
    >>> out["ids"].tolist(), out["logits"].tolist(), out["ranks"].tolist()
    ([[2, 0]], [[3.0, 2.0]], [2])
    """
    _check(vectors, unembedding, k, tokens)
    survey = _survey_of(vectors, unembedding, bias is None and softcap is None)
    (buffer,) = buffers(len(vectors), unembedding)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, max(len(vectors), 1), len(buffer)):
        rows = slice(start, start + len(buffer))
        hidden = vectors[rows] if norm is None else norm(vectors[rows]).to(unembedding)
        check(hidden, unembedding, bias)
        z = buffer[: len(hidden)]  # [rows, V]
        chunk = _Chunk(hidden, unembedding, bias, softcap, z, None if tokens is None else tokens[rows], largest)
        seen = survey(chunk, log_normalizer or entropy, entropy)
        answer = {}
        if k:
            answer["logits"], answer["ids"] = topk(z, k, largest, seen.best, seen.tile)
        if tokens is not None:
            answer["token_logits"] = seen.own
            answer["ranks"] = torch.where(seen.own.isnan(), z.shape[1], seen.larger)
        if log_normalizer or entropy:
            lse, whole = merge(seen.m, seen.s, seen.inside)
            answer |= {"log_normalizer": lse} if log_normalizer else {}
            answer |= {"entropy": whole} if entropy else {}
        for name, value in answer.items():
            parts.setdefault(name, []).append(value)
    return {name: torch.cat(p) for name, p in parts.items()}


def topk(z: Tensor, k: int, largest: bool, best: Tensor | None = None, tile: int = TILE) -> tuple[Tensor, Tensor]:
    """``torch.topk`` of each row of ``z [rows, V]``, exactly, but only among the k tiles that have the best best entry.

    ``best`` [rows, V // tile]: the best entry of each whole tile, where it is known already; see ``tile_best``.

    >>> values, ids = topk(torch.arange(1000.0)[None], 3, largest=True)
    >>> ids.tolist()
    [[999, 998, 997]]
    """
    rows, size = z.shape
    tiles = size // tile
    if k * 4 > tiles:  # too few tiles to leave any out
        return z.topk(k, dim=-1, largest=largest)
    best = tile_best(z, largest) if best is None else best
    chosen = best.topk(k, dim=-1, largest=largest, sorted=False).indices  # [rows, k]
    columns = (chosen[..., None] * tile + torch.arange(tile, device=z.device)).flatten(1)
    tail = torch.arange(tiles * tile, size, device=z.device).expand(rows, -1)
    columns = torch.cat([columns, tail], dim=1)  # [rows, k tiles and the tail]
    values, index = z.gather(1, columns).topk(k, dim=-1, largest=largest)
    return values, columns.gather(1, index)


def tile_best(z: Tensor, largest: bool) -> Tensor:
    """The largest (smallest) entry of each whole tile of 64 columns, [rows, V // 64]; NaN is larger than all, as in
    ``torch.topk``."""
    tiled = z[:, : z.shape[1] // TILE * TILE].unflatten(1, (-1, TILE))
    if largest:
        return tiled.amax(-1)
    best = tiled.amin(-1)
    if bool(best.isnan().any()):  # amin says NaN where any entry is NaN
        best = tiled.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(-1)
    return best


def merge(m: Tensor, s: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """log Σ eᶻ and entropy of each row from its blocks' m, s and entropies inside, [rows, blocks] each."""
    top, weight = together(m, s)
    total = weight.sum(1, keepdim=True)
    lse = (top + total.log())[:, 0]
    if inside is None:
        return lse, None
    share = weight / total
    return lse, (torch.special.entr(share) + torch.where(share == 0, 0, share * inside)).sum(1)


class _Chunk(NamedTuple):
    """A chunk of logits that is still to be made, in ``z`` [rows, V]."""

    hidden: Tensor  # [rows, d]
    unembedding: Tensor  # [V, d]
    bias: Tensor | None
    softcap: float | None
    z: Tensor
    tokens: Tensor | None  # [rows]
    largest: bool

    def made(self):
        """Blocks of columns as they are made (``logits.blocks``)."""
        return blocks(self.hidden, self.unembedding, self.bias, self.softcap, self.z)


class _Survey(NamedTuple):
    """What one reading of a chunk leaves, each where it was asked for."""

    own: Tensor | None  # [rows] the logit of the row's token
    larger: Tensor | None  # [rows] how many are larger
    best: Tensor | None  # [rows, tiles]
    m: Tensor | None  # [rows, blocks] largest logit
    s: Tensor | None  # [rows, blocks] Σ eᶻ⁻ᵐ
    inside: Tensor | None  # [rows, blocks] H
    tile: int = TILE


def _survey_of(vectors: Tensor, unembedding: Tensor, plain: bool) -> Callable[[_Chunk, bool, bool], _Survey]:
    """How a chunk is surveyed here; ``plain``: its logits are the product and nothing more."""
    if choose("project", vectors, unembedding) != "triton":
        return _survey_torch
    from lens.kernels.gpu.projection import STEP

    width = unembedding.shape[1]
    short = unembedding.dtype in HALF and width < SHORT and width % STEP == 0
    return _survey_at_once if plain and short and multiplies(unembedding.device) else _survey_triton


def _survey_torch(chunk: _Chunk, sums: bool, entropy: bool) -> _Survey:
    m, s, inside, own, larger = [], [], [], None, None
    for block in chunk.made():  # sums are taken while the block is in the cache
        if not sums:
            continue
        *found, x, e = mass(block)
        m.append(found[0])
        s.append(found[1])
        if entropy:  # −Σ p log p of p = e/s; 0 log 0 is 0
            inside.append(s[-1].log() - (e * x).masked_fill_(e == 0, 0).sum(1) / s[-1])
    if chunk.tokens is not None:
        own = chunk.z.gather(1, chunk.tokens[:, None])
        larger = sum((block > own).count_nonzero(1) for block in chunk.z.split(BLOCK, 1))
        own = own[:, 0]
    # The best of each tile is left to topk, which knows whether it needs them.
    return _Survey(own, larger, None, *(torch.stack(part, 1) if part else None for part in (m, s, inside)))


def _survey_triton(chunk: _Chunk, sums: bool, entropy: bool) -> _Survey:
    from lens.kernels.gpu import vocabulary as gpu

    for _ in chunk.made():  # the whole product: a GPU's blocks are as wide as the vocabulary
        pass
    z = chunk.z
    own = z[:, 0] if chunk.tokens is None else z.gather(1, chunk.tokens[:, None])[:, 0]
    larger, *rest = gpu.survey_kernel(z, own, chunk.largest)
    return _Survey(own, larger.sum(1), *rest)


def _survey_at_once(chunk: _Chunk, sums: bool, entropy: bool) -> _Survey:
    from lens.kernels.gpu import projection as gpu

    own, larger, *rest = gpu.project_kernel(chunk.hidden, chunk.unembedding, chunk.tokens, chunk.z, chunk.largest)
    return _Survey(own, larger.sum(1), *rest, tile=gpu.BLOCK)


def _check(vectors: Tensor, unembedding: Tensor, k: int, tokens: Tensor | None) -> None:
    if vectors.ndim != 2 or unembedding.ndim != 2:  # the width is checked behind norm, which may change it
        check(vectors, unembedding)
    size = len(unembedding)
    if not 0 <= k <= size:
        raise ValueError(f"k is {k}: ask for at least 0 and at most {size} words, the size of the vocabulary.")
    if tokens is None:
        return
    if tokens.dtype != torch.long or list(tokens.shape) != [len(vectors)]:
        got = f"{tokens.dtype} {list(tokens.shape)}"
        raise ValueError(f"Give one int64 token for each of the {len(vectors)} vectors, not {got}.")
    if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < size):
        raise ValueError(f"A token is outside the vocabulary: give ids from 0 to {size - 1}.")
