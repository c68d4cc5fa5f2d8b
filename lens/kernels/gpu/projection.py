"""Logits made and surveyed in one kernel on a GPU: for short vectors, whose product is soon done.

A program has 128 rows of h and 128 rows of E.  It walks along d, adding to a tile of logits in its registers, and
surveys the tile there before it writes it:

              E, transposed
             ┌── 128 ──┐
    h  ┌ D ┐ │ D       │  →  d          ┌────────┐ ─► best[block]     maximum (or minimum) along the columns
   128 │   │ └─────────┘   z += h Eᵀ    │ z      │ ─► m[block]        the same maximum, NaN left out
       └───┘                            │        │ ─► s[block]        Σ eᶻ⁻ᵐ
                                        └────────┘ ─► inside[block]   log s − t/s         with t = Σ eᶻ⁻ᵐ (z − m)
                                            │      ─► larger[block]   Σ 1[z > own]
                                            ▼
                                            z, for top-k

``own``, the logit of a row's token, has to be known before, and must have the bits that it has among the others.  So a
first kernel makes it by the same product of the same tiles: of 128 rows with the rows of E of their 128 tokens, of
which only the diagonal is kept.

Programs of one block of E follow one another, so E comes from memory once and h stays in the L2 cache.  Two launches a
chunk of rows.  Bytes a row: 4 V written while the product is computed; 20 for each 128 logits written, and read again.
The logits are float32: tensor cores multiply float16 and bfloat16 exactly, and add up in float32.
"""

import torch
import triton
import triton.language as tl

BLOCK = 128
"""Rows of h and rows of E of a program, and the tile whose best entry decides whether top-k looks at it."""

STEP = 64
"""Features that a program reads at a time; d is a multiple of it."""


@triton.jit
def _logits(
    h, e, rows, columns, n, vocabulary, d, h_row, h_feature, e_row, e_feature, BLOCK: tl.constexpr, STEP: tl.constexpr
):
    """z [BLOCK, BLOCK] in float32: ``rows`` of h times ``columns`` of Eᵀ."""
    features = tl.arange(0, STEP).to(tl.int64)
    left = h + rows[:, None] * h_row + features[None, :] * h_feature  # [BLOCK, STEP]
    right = e + columns[None, :] * e_row + features[:, None] * e_feature  # [STEP, BLOCK]
    z = tl.zeros([BLOCK, BLOCK], tl.float32)
    for _ in range(0, d, STEP):
        a = tl.load(left, (rows < n)[:, None], other=0.0)
        b = tl.load(right, (columns < vocabulary)[None, :], other=0.0)
        z = tl.dot(a, b, z)
        left += STEP * h_feature
        right += STEP * e_feature
    return z


@triton.jit
def _own_kernel(
    h, e, tokens, own, n, vocabulary, d, h_row, h_feature, e_row, e_feature, BLOCK: tl.constexpr, STEP: tl.constexpr
):
    """own[row] = z[row, tokens[row]]."""
    each = tl.arange(0, BLOCK)
    rows = tl.program_id(0).to(tl.int64) * BLOCK + each
    columns = tl.load(tokens + rows, rows < n, other=0)
    z = _logits(h, e, rows, columns, n, vocabulary, d, h_row, h_feature, e_row, e_feature, BLOCK, STEP)
    diagonal = tl.where(each[:, None] == each[None, :], z, 0.0)
    tl.store(own + rows, tl.sum(diagonal, 1), rows < n)


@triton.jit
def _project_kernel(
    h, e, own, z, best, m, s, inside, larger,  # best [rows, whole blocks], the next four [rows, blocks]
    n, vocabulary, d, h_row, h_feature, e_row, e_feature, z_row,
    LARGEST: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    block, blocks, whole = tl.program_id(1), tl.num_programs(1), vocabulary // BLOCK
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    columns = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _logits(h, e, rows, columns, n, vocabulary, d, h_row, h_feature, e_row, e_feature, BLOCK, STEP)
    there = rows < n
    # The buffer's rows are padded to 64 columns, and a mask that ends with the padding lets stores be whole vectors.
    tl.store(z + rows[:, None] * z_row + columns[None, :], x, there[:, None] & (columns < z_row)[None, :])

    # A GPU's max and min skip NaN; torch's top-k puts it first among the largest and last among the smallest.
    x = tl.where((columns < vocabulary)[None, :], x, -float("inf"))
    peak = tl.max(x, 1)  # [BLOCK]
    if LARGEST:
        extreme = peak + tl.sum(tl.where(x == x, 0.0, x), 1)
    else:
        extreme = tl.min(tl.where(x == x, x, float("inf")), 1)
    tl.store(best + rows * whole + block, extreme, there & (block < whole))

    shift = tl.where((peak == float("inf")) | (peak == -float("inf")), 0.0, peak)  # ∞ − ∞ would be NaN
    more = x > tl.load(own + rows, there, other=0.0)[:, None]
    below = x - shift[:, None]
    power = tl.exp(below)  # outside the vocabulary: e^−∞ = 0
    total = tl.sum(power, 1)
    t = tl.sum(tl.where(power == 0.0, 0.0, power * below), 1)
    at = rows * blocks + block
    tl.store(m + at, peak, there)
    tl.store(s + at, total, there)
    tl.store(inside + at, tl.log(total) - t / total, there)
    tl.store(larger + at, tl.sum(more.to(tl.int32), 1), there)


def project_kernel(hidden, unembedding, tokens, z, largest: bool):
    """Fill ``z [rows, V]``, a view of rows that are padded (``logits.buffers``), with h Eᵀ of half-precision h and E.

    Given are ``own`` [rows], ``larger`` (int32) [rows, blocks], ``best`` [rows, V // 128], and ``m``, ``s`` and
    ``inside`` [rows, blocks].  d is a multiple of 64.  Without ``tokens`` the logits larger than 0 are counted.
    """
    (rows, d), vocabulary = hidden.shape, len(unembedding)
    blocks = triton.cdiv(vocabulary, BLOCK)
    own = torch.zeros(rows, dtype=torch.float32, device=z.device)
    larger = torch.empty(rows, blocks, dtype=torch.int32, device=z.device)
    best = torch.empty(rows, vocabulary // BLOCK, dtype=torch.float32, device=z.device)
    m, s, inside = torch.empty(3, rows, blocks, dtype=torch.float32, device=z.device)
    if rows:
        tiles = triton.cdiv(rows, BLOCK)
        size = rows, vocabulary, d, *hidden.stride(), *unembedding.stride()
        with torch.cuda.device_of(z):
            if tokens is not None:
                tokens = tokens.contiguous()
                _own_kernel[(tiles,)](hidden, unembedding, tokens, own, *size, BLOCK=BLOCK, STEP=STEP, **_OPTIONS)
            _project_kernel[tiles, blocks](
                hidden, unembedding, own, z, best, m, s, inside, larger, *size, z.stride(0),
                LARGEST=largest, BLOCK=BLOCK, STEP=STEP, **_OPTIONS,
            )  # fmt: skip
    return own, larger, best, m, s, inside


_OPTIONS = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}
_SIZE = {"n": "i32", "vocabulary": "i32", "d": "i32", "h_row": "i32", "h_feature": 1, "e_row": "i32", "e_feature": 1}
_SURVEY = {"best": "*fp32", "m": "*fp32", "s": "*fp32", "inside": "*fp32", "larger": "*i32"}
_TILE = {"BLOCK": BLOCK, "STEP": STEP}
SIGNATURES = {
    "_own_kernel": ({"h": "*H", "e": "*H", "tokens": "*i64", "own": "*fp32"} | _SIZE, _TILE, _OPTIONS),
} | {
    name: (
        {"h": "*H", "e": "*H", "own": "*fp32", "z": "*fp32"} | _SURVEY | _SIZE | {"z_row": "i32"},
        {"LARGEST": largest} | _TILE,
        _OPTIONS,
    )
    for name, largest in (("_project_kernel", True), ("_project_kernel:smallest", False))
}
