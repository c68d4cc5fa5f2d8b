"""The low-rank update on a GPU: W is read once, and its old and its new value are written in the same pass.

    old_rc = W_rc,        W_rc ← W_rc + η Σ_i x_ir δ_ic

Program (R, C) owns a tile of W.  For each token it loads a short piece of x and one of δ, and adds their outer product
to a tile in registers; W waits until the tile is done:

                 δ_i  [ ─── C ─── ]
         x_i   ┌───────────────────┐
          │    │                   │     tile += x_i[R] ⊗ δ_i[C],   one multiply-add a weight and token
          R    │      tile         │
          │    │                   │     then  old ← W,  W ← W + η tile
               └───────────────────┘

Bytes: 12 a weight in float32 (W read, old and W written); a copy of W first and an update after it would move 16.  x
and δ come from cache: a tile of 16 × 128 shares 144 of their numbers, per token, among its 2,048 weights.  C is the
side whose entries are neighbors in memory, so every warp reads and writes whole lines.  2,048 weights in 128 threads
are 16 registers each, as many again for the tile, and enough are left for other programs, to hide the wait.  By
count, the bytes take longer than the arithmetic up to about 64 tokens; beyond, a matrix product on tensor cores should
be the better tool.  There is none here, so the kernel is also compiled for a T4.
"""

import torch
import triton
import triton.language as tl

ROWS, COLUMNS = 16, 128


@triton.jit
def _update_kernel(
    weight, old, x, delta, eta,  # [rows, columns], the same and contiguous, [tokens, rows], [tokens, columns]
    rows, columns, tokens, weight_row, weight_column, x_token, x_row, delta_token, delta_column,  # sizes, strides
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(columns, COLUMNS)
    row = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    r, c = row.to(tl.int64), column.to(tl.int64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]

    at = weight + r[:, None] * weight_row + c[None, :] * weight_column
    before = tl.load(at, inside)  # asked for first: it arrives while the tile is added up
    tile = tl.zeros([ROWS, COLUMNS], tl.float32)
    x += r * x_row  # [ROWS] addresses, moved from token to token
    delta += c * delta_column  # [COLUMNS]
    for _ in range(tokens):
        x_i = tl.load(x, row < rows, other=0.0).to(tl.float32)
        delta_i = tl.load(delta, column < columns, other=0.0).to(tl.float32)
        tile += x_i[:, None] * delta_i[None, :]
        x += x_token
        delta += delta_token
    after = before.to(tl.float32) + eta * tile
    tl.store(old + r[:, None] * columns + c[None, :], before, inside)
    tl.store(at, after.to(before.dtype), inside)  # the one rounding


def update_kernel(weight, x, delta, eta):
    """weight += η xᵀδ in place, for weight [d_in, d_out] of any strides; returns its old value, contiguous."""
    rows, columns = weight.shape
    old = torch.empty(rows, columns, dtype=weight.dtype, device=weight.device)
    grid = (triton.cdiv(rows, ROWS) * triton.cdiv(columns, COLUMNS),)
    with torch.cuda.device_of(weight):
        _update_kernel[grid](
            weight, old, x, delta, eta, rows, columns, len(x), *weight.stride(), *x.stride(), *delta.stride(),
            ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return old


SIGNATURES = {
    "_update_kernel": (
        {
            "weight": "*T", "old": "*T", "x": "*T", "delta": "*T", "eta": "fp32",
            "rows": "i32", "columns": "i32", "tokens": "i32", "weight_row": "i32", "weight_column": 1,
            "x_token": "i32", "x_row": 1, "delta_token": "i32", "delta_column": 1,
        },
        {"ROWS": ROWS, "COLUMNS": COLUMNS},
        {"num_warps": 4, "enable_fp_fusion": True},
    ),
}  # fmt: skip
