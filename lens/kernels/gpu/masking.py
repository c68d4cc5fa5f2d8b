"""The mask on a GPU: one pass over W and l, noise drawn in registers.

    s = σ((l + logit u)/τ),  m = 1[s > ½],  out = W ∘ (base + sign · {m, s or s(1 − s)/τ}) ∘ G

A program treats a tile of 32 rows and 64 columns:

    columns     0 … 3   4 … 7   …   60 … 63
    row 0       quad 0  quad 1  …   quad 15      one Philox call a quad, four words, one for each column
    row 1       quad 0  …
      ⋮

Both sides of the tile are long enough for whole 128-byte lines, so W may also be the transpose that ``nn.Linear``
stores.  With a = 2k + 1 and u = a/2²⁴, the odds of m = 1 are a : (2²⁴ − a)·e⁻ˡ, and everything follows from them:

    m = 1[a > b],    s = a/(a + b),    s(1 − s) = a/(a + b) · b/(a + b)        with b = (2²⁴ − a)·e⁻ˡ

so no logarithm is needed at τ = 1.  Bytes: 12 a weight forward in float32 (W, l, out), 16 backward (W, l, G, ∂l).  The
arithmetic is meant to hide behind them.
"""

import torch
import triton
import triton.language as tl

from lens.kernels.gpu.noise import exp_minus, odd_numbers

ROWS, COLUMNS = 32, 64
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
"""Without fusion every sum is rounded on its own, as on a CPU."""


@triton.jit
def entries(score, quad, row, step, site, seed, tau, ENTRY: tl.constexpr, TEMPERED: tl.constexpr):
    """m (hard), s (soft) or s(1 − s) (slope) of a tile of scores; a NaN stays one."""
    a = odd_numbers(quad, row, step, site, seed)
    b = (16777216.0 - a) * exp_minus(score)
    if TEMPERED:
        b = a * tl.exp(tl.minimum(tl.log(b / a) / tau, 60.0))
    if ENTRY == "hard":
        value = tl.where(a > b, 1.0, 0.0)
    elif ENTRY == "soft":
        value = a / (a + b)
    else:
        value = (a / (a + b)) * (b / (a + b))
    return tl.where(score == score, value, score)


@triton.jit(do_not_specialize=["seed", "step", "site"])  # one compilation for every step
def _mask_kernel(
    out, weight, grad, scores,  # [rows, columns] each; grad only where ENTRY is "slope"
    out_row, out_column, weight_row, weight_column, grad_row, grad_column, scores_row, scores_column,  # strides
    rows, columns, seed, step, site, base, sign, tau,
    ENTRY: tl.constexpr, TEMPERED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(columns, COLUMNS)
    row = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    first = (tl.program_id(0) % tiles) * COLUMNS
    quad = first // 4 + tl.arange(0, COLUMNS // 4)[None, :]  # [1, COLUMNS / 4]
    column = first + tl.arange(0, COLUMNS)[None, :]  # [1, COLUMNS]
    inside = (row < rows) & (column < columns)
    r, c = row.to(tl.int64), column.to(tl.int64)

    w = tl.load(weight + r * weight_row + c * weight_column, inside).to(tl.float32)
    score = tl.load(scores + r * scores_row + c * scores_column, inside).to(tl.float32)
    value = base + sign * entries(score, quad, row, step, site, seed, tau, ENTRY, TEMPERED)
    if ENTRY == "slope":
        value = value * tl.load(grad + r * grad_row + c * grad_column, inside).to(tl.float32)
    tl.store(out + r * out_row + c * out_column, w * value, inside)


def fill(out, entry, weight, grad, scores, key, tau, base, sign) -> None:
    """out ← weight ∘ (base + sign · entry) ∘ grad, all [rows, columns]; rows and columns may be strided."""
    rows, columns = out.shape
    g = weight if grad is None else grad
    grid = (triton.cdiv(rows, ROWS) * triton.cdiv(columns, COLUMNS),)
    with torch.cuda.device_of(out):
        _mask_kernel[grid](
            out, weight, g, scores,
            *out.stride(), *weight.stride(), *g.stride(), *scores.stride(),
            rows, columns, key.seed, key.step, key.site, float(base), sign / tau if entry == "slope" else float(sign),
            tau, ENTRY=entry, TEMPERED=tau != 1 and entry != "hard", ROWS=ROWS, COLUMNS=COLUMNS, **OPTIONS,
        )  # fmt: skip


_ARGUMENTS = {
    "out": "*T", "weight": "*T", "grad": "*T", "scores": "*fp32",
    "out_row": "i32", "out_column": 1, "weight_row": "i32", "weight_column": 1,
    "grad_row": "i32", "grad_column": 1, "scores_row": "i32", "scores_column": 1,
    "rows": "i32", "columns": "i32", "seed": "u64", "step": "u32", "site": "u32",
    "base": "fp32", "sign": "fp32", "tau": "fp32",
}  # fmt: skip
SIGNATURES = {
    f"_mask_kernel:{entry}": (
        _ARGUMENTS,
        {"ENTRY": entry, "TEMPERED": False, "ROWS": ROWS, "COLUMNS": COLUMNS},
        OPTIONS,
    )
    for entry in ("hard", "soft", "slope")
}
