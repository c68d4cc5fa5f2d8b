"""How are logits made where all of them do not fit?  A chunk of rows at a time, into one buffer that is used again.

    z = h Eᵀ + b,   and with Gemma's soft cap  z ← c·tanh(z/c)                                  [N, V]

For 240 vectors of GPT-2 small z is 48 MB, for 100 prompts 4 GB, and nobody wants z itself: only the best words, a rank,
a sum.  So a chunk of rows goes into a buffer (``chunk_bytes``), is read, and is overwritten by the next.  On a CPU
the chunk itself is made a block of ``BLOCK`` columns at a time:

              columns ──►     BLOCK     BLOCK    …     last (starts early: BLOCK wide like all others)
            ┌──────────────┬─────────┬─────────┬─────┬───────╔═╗
      rows  │ made, used   │ being   │                        ║║
        │   │              │ made    │                        ║║
        ▼   └──────────────┴─────────┴─────────┴─────┴───────╚═╝

Two gains.  The product is faster, because a block of E (768 rows of GPT-2 small's: 2.4 MB) stays in the L2 caches while
all rows of h pass it: 115 instead of 176 ms for 240 vectors on two quiet cores.  And whoever iterates over ``blocks``
reads each logit while it is still in the cache.

**Logits are float32 whatever E is**, or float64.  bfloat16 has 8 bits: rounded to it, the ten best of 50,257 words tie
as often as not, and ranks count too few.  The products are exact in float32 and are added up there; E stays as it is,
and is widened a block of its rows at a time where the device's product cannot add up in float32 itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 1 << 25, "cuda": 1 << 29}
"""Bytes of logits held at one time: 32 MB on a CPU, near the size of its last cache; on a GPU see ``chunk_bytes``."""

ROWS = 1024
"""Rows of logits that a GPU's chunk holds at least, memory permitting."""

UNIT = 192
"""Blocks are a multiple of this wide.

Words that have equal rows of E must have equal logits, bit for bit, or their ranks would depend on rounding.  But a
processor's matrix product computes the last columns of an odd-sized matrix by other code, which rounds differently: in
a plain product of a few vectors with GPT-2's 50,257 words they come out unequal.  In blocks of one width, which its
inner loops divide (MKL's take 16, 24, 32, 48 or 64 columns), there are no last columns.  This holds where rows of E are
a multiple of 64 bytes long, as every model's are.
"""

BLOCK = 4 * UNIT


def check(vectors: Tensor, unembedding: Tensor, bias: Tensor | None = None, what: str = "vectors") -> None:
    """``ValueError`` where [N, d], [V, d] and [V], one dtype and one device, is not what was given."""
    n, v = list(vectors.shape), list(unembedding.shape)
    if len(n) != 2 or len(v) != 2 or n[1] != v[1] or not v[0] or (bias is not None and list(bias.shape) != v[:1]):
        tail = "" if bias is None else f" and a bias {list(bias.shape)}"
        raise ValueError(f"The {what} must be [N, d], the unembedding [V, d] and a bias [V], and got {n}, {v}{tail}.")
    given = [vectors, unembedding] if bias is None else [vectors, unembedding, bias]
    if len({(t.dtype, t.device) for t in given}) > 1:
        got = " and ".join(f"{t.dtype} on {t.device}" for t in given)
        raise ValueError(f"The {what}, the unembedding and a bias must share dtype and device: convert one of {got}.")


def chunk_bytes(device: torch.device, row: int) -> int:
    """How many bytes of logits to hold at a time, where a row of them has ``row`` bytes.

    On a GPU every chunk reads E once more, 2 d V bytes in bfloat16, beside 8 V for each row of logits, written and read
    again.  So a chunk must have many rows: in one of 32 MB, the size of an L2 cache, E would pass up to 28 times as
    often as the logits.  For 10,000 vectors, chunks and bytes of E a byte of logits:

                                    32 MB: chunks, bytes of E      this function's
        GPT-2 (d 768)                   61    1.17                     4    0.08
        Llama 3 8B (d 4,096)           154    15.8                    10    1.02
        Gemma 2 9B (d 3,584)           313    28.0                    10    0.90

    On paper, with an A100's 312 TFLOP/s and 1.56 TB/s, reading the logits again adds 10 % to Llama 3's product and 11 %
    to Gemma 2's.  To GPT-2's, which is short, it would add 52 %: there the kernel that makes the logits surveys them
    (``gpu/projection.py``), and what it leaves to be read adds 5 %.  None of this is measured yet.

    512 MB, or ``ROWS`` rows where that is more, but a quarter of what is free.
    """
    if device.type != "cuda":
        return CHUNK_BYTES["cpu"]
    wanted = max(CHUNK_BYTES["cuda"], ROWS * row)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(row, min(wanted, free // 4))


def buffers(rows: int, unembedding: Tensor, count: int = 1) -> list[Tensor]:
    """``count`` buffers [step, V] that fit ``chunk_bytes`` together; ``step`` ≥ 1 splits ``rows`` into even chunks.

    They hold logits, in ``statistics(E's dtype)``.  Their rows begin 64 numbers apart or a multiple of it, so a GPU
    reads and writes them in whole vectors although GPT-2's vocabulary is odd.
    """
    size = unembedding.shape[0]
    width = -(-size // 64) * 64
    dtype = statistics(unembedding.dtype)
    row = count * width * dtype.itemsize
    most = max(1, chunk_bytes(unembedding.device, row) // row)
    chunks = max(1, -(-rows // most))
    return list(unembedding.new_empty(count, max(1, -(-rows // chunks)), width, dtype=dtype)[:, :, :size])


def blocks(
    hidden: Tensor, unembedding: Tensor, bias: Tensor | None, softcap: float | None, out: Tensor
) -> Iterator[Tensor]:
    """Fill ``out [rows, V]`` with the logits of ``hidden [rows, d]`` and yield its columns, left to right, as it fills.

    On a GPU all at once, where its product can add up in ``out``'s dtype.  ``out`` is whole only when the iteration has
    ended.
    """
    size = unembedding.shape[0]
    mixed = hidden.dtype != out.dtype and _sums_in_float32(out.device)
    width = size if mixed else widened(unembedding)
    if out.device.type == "cpu" and size >= UNIT:
        width = min(BLOCK, size // UNIT * UNIT)
    hidden = hidden if mixed else hidden.to(out.dtype)
    done = 0
    while done < size:
        start = min(done, size - width)
        z = out[:, start : start + width]
        columns = unembedding[start : start + width].T  # [d, width]
        if mixed:
            torch.mm(hidden, columns, out_dtype=out.dtype, out=z)
        else:
            torch.mm(hidden, columns.to(out.dtype), out=z)
        if bias is not None:
            z.add_(bias[start : start + width])
        if softcap is not None:
            z.div_(softcap).tanh_().mul_(softcap)
        yield z[:, done - start :]
        done = start + width


def widened(unembedding: Tensor) -> int:
    """So many rows of E are widened to float32 at a time: they fit ``CHUNK_BYTES``.  All rows, where they are that."""
    size, width = unembedding.shape
    if unembedding.dtype == statistics(unembedding.dtype):
        return size
    budget = chunk_bytes(unembedding.device, 4 * max(1, width))
    return min(size, max(UNIT, budget // (4 * max(1, width)) // UNIT * UNIT))


def back(slopes: Tensor, unembedding: Tensor) -> Tensor:
    """∂/∂z E [rows, d] of ``slopes`` [rows, V], in their dtype; E is widened a block of rows at a time."""
    step = widened(unembedding)
    if step == len(unembedding):
        return slopes @ unembedding.to(slopes.dtype)
    out = slopes.new_zeros(len(slopes), unembedding.shape[1])
    for some, rows in zip(slopes.split(step, 1), unembedding.split(step)):
        out.addmm_(some, rows.to(slopes.dtype))
    return out


def down(slopes: Tensor, hidden: Tensor, total: Tensor) -> None:
    """``total`` [V, d] += (∂/∂z)ᵀ h of ``slopes`` [rows, V] and h [rows, d], each block of rows rounded once."""
    hidden = hidden.to(slopes.dtype)
    for some, rows in zip(slopes.split(widened(total), 1), total.split(widened(total))):
        rows.add_(some.T @ hidden) if rows.dtype != slopes.dtype else rows.addmm_(some.T, hidden)


class _Unembed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, unembedding, bias):
        ctx.save_for_backward(hidden, unembedding, bias)
        z = hidden.new_empty(len(hidden), len(unembedding), dtype=statistics(hidden.dtype))
        for _ in blocks(hidden, unembedding, bias, None, z):
            pass
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slopes):
        hidden, unembedding, bias = ctx.saved_tensors
        found = [None] * 3
        if ctx.needs_input_grad[0]:
            found[0] = back(slopes, unembedding).to(hidden.dtype)
        if ctx.needs_input_grad[1]:
            found[1] = torch.zeros_like(unembedding)
            down(slopes, hidden, found[1])
        if ctx.needs_input_grad[2]:
            found[2] = slopes.sum(0).to(bias.dtype)
        return tuple(found)


def unembed(hidden: Tensor, unembedding: Tensor, bias: Tensor | None = None) -> Tensor:
    """z = h Eᵀ + b, all of it, [..., V] in float32 (float64 of float64), for h [..., d]; differentiable once.

    >>> E = torch.randn(5, 2, dtype=torch.bfloat16)
    >>> unembed(E[:3], E).dtype
    torch.float32
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    check(flat, unembedding, bias)
    return _Unembed.apply(flat, unembedding, bias).view(*hidden.shape[:-1], len(unembedding))


def _sums_in_float32(device: torch.device) -> bool:
    """Can this device's matrix product add up half-precision products in float32, and leave them so?

    Tensors without numbers ("meta") are taken for a GPU's.
    """
    return device.type in ("cuda", "meta") and not torch.version.hip and _TORCH >= (2, 8)


_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def statistics(dtype: torch.dtype) -> torch.dtype:
    """Logits, and sums over the vocabulary, are float32, of half-precision weights too, and float64 of float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def mass(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m = max z and s = Σ eᶻ⁻ᵐ of each row of a block [rows, columns], and the block's z − m and eᶻ⁻ᵐ.

    m is kept apart from log s, because their sum would be rounded at the size of m.  An infinite m is not subtracted.
    """
    m = z.amax(1, keepdim=True)
    z = z - m.masked_fill(m.isinf(), 0)
    e = z.exp()
    return m[:, 0], e.sum(1), z, e


def together(m: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """M = max m [rows, 1] and s·eᵐ⁻ᴹ, which add up to Σ eᶻ⁻ᴹ, of ``m`` and ``s`` [rows, blocks]; M is 0 if infinite."""
    top = m.amax(1, keepdim=True)
    top = top.masked_fill(top.isinf(), 0)
    return top, s * (m - top).exp()
