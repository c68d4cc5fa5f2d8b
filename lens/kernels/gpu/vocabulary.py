"""A chunk of logits surveyed on a GPU: one kernel that reads each logit once and writes 1/64 of what it read.

A program has one row of z and 4,096 columns of it, 64 tiles of 64, and sees them as a square:

                    column ──►  64
              tile 0  ┌────────────────┐ ─► best[0]    maximum (or minimum) along the columns
              tile 1  │                │ ─► best[1]
                ⋮     │  z [64, 64]    │    ⋮
              tile 63 └────────────────┘ ─► best[63]
                              │
                              ├─► m[block]       max z
                              ├─► s[block]       Σ eᶻ⁻ᵐ
                              ├─► inside[block]  log s − t/s         with t = Σ eᶻ⁻ᵐ (z − m)
                              └─► larger[block]  Σ 1[z > own]

``inside`` is the entropy of p = eᶻ⁻ᵐ/s:  −Σ p log p = −Σ p (z − m − log s) = log s − t/s.

The logits were written by cuBLAS a moment ago into a buffer larger than the L2 cache (``logits.chunk_bytes`` says why),
so they come from the GPU's memory.  Bytes: 4 read a logit, which is float32 whatever E is; 68 numbers written for 4,096
read.  One exponential a logit; the tiles' maxima are the block's maximum, so m costs 64 comparisons more.  4,096
numbers are 16 registers in each of 256 threads, enough loads in flight and no spills.  No atomic additions: every
number has its own place, and ``lens.kernels.vocabulary.merge`` adds them in order.
"""

import torch
import triton
import triton.language as tl

TILE = 64
TILES = 64


@triton.jit
def _survey_kernel(
    z, own,  # [rows, columns] and [rows], the logit each row's are compared with
    best, m, s, inside, larger,  # [rows, tiles] and four [rows, blocks]
    columns, tiles, blocks, z_row, own_row,
    LARGEST: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    tile = block * TILES + tl.arange(0, TILES)
    column = tile[:, None] * TILE + tl.arange(0, TILE)[None, :]
    # The buffer's rows are padded to whole tiles, and a mask that is the same along a tile lets loads be 16 bytes wide.
    x = tl.load(z + row * z_row + column, (tile * TILE < columns)[:, None], other=0.0)
    x = tl.where(column < columns, x, -float("inf"))  # [TILES, TILE]

    # A GPU's max and min skip NaN; torch's top-k puts it first among the largest and last among the smallest.
    top = tl.max(x, 1)  # [TILES]
    if LARGEST:
        extreme = top + tl.sum(tl.where(x == x, 0.0, x), 1)
    else:
        extreme = tl.min(tl.where(x == x, x, float("inf")), 1)
    tl.store(best + row * tiles + tile, extreme, tile < tiles)

    peak = tl.max(top, 0)
    shift = tl.where((peak == float("inf")) | (peak == -float("inf")), 0.0, peak)  # ∞ − ∞ would be NaN
    below = x - shift
    e = tl.exp(below)  # outside the row: e^−∞ = 0
    total = tl.sum(tl.sum(e, 1), 0)
    t = tl.sum(tl.sum(tl.where(e == 0.0, 0.0, e * below), 1), 0)
    at = row * blocks + block
    tl.store(m + at, peak)
    tl.store(s + at, total)
    tl.store(inside + at, tl.log(total) - t / total)
    tl.store(larger + at, tl.sum(tl.sum((x > tl.load(own + row * own_row)).to(tl.int32), 1), 0))


def survey_kernel(z, own, largest: bool):
    """``larger`` (int32) [rows, blocks], ``best`` [rows, V // 64], ``m``, ``s`` and ``inside`` [rows, blocks] of
    ``z [rows, V]``, a view of rows that are padded to a multiple of 64 adjacent columns (``logits.buffers``)."""
    rows, columns = z.shape
    tiles, blocks = columns // TILE, triton.cdiv(columns, TILES * TILE)
    larger = torch.empty(rows, blocks, dtype=torch.int32, device=z.device)
    best = torch.empty(rows, tiles, dtype=torch.float32, device=z.device)
    m, s, inside = torch.empty(3, rows, blocks, dtype=torch.float32, device=z.device)
    if rows:
        with torch.cuda.device_of(z):
            _survey_kernel[rows, blocks](
                z, own, best, m, s, inside, larger,
                columns, tiles, blocks, z.stride(0), own.stride(0),
                LARGEST=largest, TILES=TILES, TILE=TILE, num_warps=8, enable_fp_fusion=True,
            )  # fmt: skip
    return larger, best, m, s, inside


_ARGUMENTS = {
    "z": "*fp32", "own": "*fp32", "best": "*fp32", "m": "*fp32", "s": "*fp32", "inside": "*fp32", "larger": "*i32",
    "columns": "i32", "tiles": "i32", "blocks": "i32", "z_row": "i32", "own_row": "i32",
}  # fmt: skip
SIGNATURES = {
    name: (_ARGUMENTS, {"LARGEST": largest, "TILES": TILES, "TILE": TILE}, {"num_warps": 8, "enable_fp_fusion": True})
    for name, largest in (("_survey_kernel", True), ("_survey_kernel:smallest", False))
}
