"""KL(q ‖ p) of a chunk of logits on a GPU: two kernels, z overwritten by its own gradient.

A program has one row and a block of 4,096 columns, so that the few rows of a step still fill the card: 60 rows of
GPT-2's logits are 780 programs, of Gemma 2's 3,780, on some hundred multiprocessors.

    first     m = max z and s = Σ eᶻ⁻ᵐ of a block, of the reference's r as well
    second    of a row's blocks   M = max m,   log Σ eᶻ⁻ᴹ = log Σ s·eᵐ⁻ᴹ   (a few numbers, from the L2 cache),
              then of its own, with log p = (z − M) − log Σ eᶻ⁻ᴹ and log q the same of r (or − log V, for uniform q)

                  loss += Σ q (log q − log p),       z ← (p − q)(1 − (z/c)²)       the last factor under a soft cap c

cuBLAS then multiplies the buffer with E, and torch adds up the blocks' losses: no atomic addition.  Bytes a logit in
float32: z is read twice and written once, 12, and r read twice, 8.
"""

import math

import torch
import triton
import triton.language as tl

BLOCK = 4096
PAD = 64  # a row of the buffer is padded to a multiple of it
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}


@triton.jit
def _columns(z, column, columns, PAD: tl.constexpr):
    """A block of a row, −∞ beyond its end; the mask of the load covers whole pads, so that loads are 16 bytes wide."""
    x = tl.load(z + column, column // PAD * PAD < columns, other=0.0)
    return tl.where(column < columns, x, -float("inf"))


@triton.jit
def _mass_kernel(
    z, r, m, s,  # [rows, columns] twice, [2, rows, blocks] twice
    columns, z_row, r_row, BLOCK: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    row, block, which = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    column = block * BLOCK + tl.arange(0, BLOCK)
    if which == 0:
        x = _columns(z + row * z_row, column, columns, PAD)
    else:
        x = _columns(r + row * r_row, column, columns, PAD)
    top = tl.max(x, 0)
    shift = tl.where(top == -float("inf"), 0.0, top)  # −∞ − (−∞) would be NaN
    at = (which * tl.num_programs(0) + row) * tl.num_programs(1) + block
    tl.store(m + at, top)
    tl.store(s + at, tl.sum(tl.exp(x - shift), 0))


@triton.jit
def _normalizer(m, s, row, blocks, BLOCKS: tl.constexpr):
    """M = max z and log Σ eᶻ⁻ᴹ of a whole row; apart, since their sum would be rounded at the size of M."""
    block = tl.arange(0, BLOCKS)
    tops = tl.load(m + row * blocks + block, block < blocks, other=-float("inf"))
    sums = tl.load(s + row * blocks + block, block < blocks, other=0.0)
    top = tl.max(tops, 0)
    shift = tl.where(top == -float("inf"), 0.0, top)
    return top, tl.log(tl.sum(sums * tl.exp(tops - shift), 0))


@triton.jit
def _divergence_kernel(
    z, r, loss,  # [rows, columns], the reference's or z again, [rows, blocks]
    m, s, m_r, s_r,  # [rows, blocks] each
    columns, z_row, r_row, log_size, softcap,
    REFERENCE: tl.constexpr, GRADIENT: tl.constexpr, SOFTCAP: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    row, block, blocks = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    top, log_sum = _normalizer(m, s, row, blocks, BLOCKS)
    x = _columns(z + row * z_row, column, columns, PAD)
    log_p = x - top - log_sum
    if REFERENCE:
        top_r, log_sum_r = _normalizer(m_r, s_r, row, blocks, BLOCKS)
        log_q = _columns(r + row * r_row, column, columns, PAD) - top_r - log_sum_r
    else:
        log_q = tl.zeros([BLOCK], tl.float32) - log_size
    q = tl.exp(log_q)
    terms = tl.where(inside & (q != 0.0), q * (log_q - log_p), 0.0)  # 0 · log 0 is 0
    tl.store(loss + row * blocks + block, tl.sum(terms, 0))
    if GRADIENT:
        slope = tl.exp(log_p) - q
        if SOFTCAP:
            slope *= 1.0 - (x / softcap) * (x / softcap)
        tl.store(z + row * z_row + column, slope, column // PAD * PAD < columns)


def divergence_kernel(z, r, softcap: float | None, gradient: bool):
    """KL(q ‖ p), float32 [rows], of the logits ``z [rows, V]`` and the reference's ``r`` (None: uniform q).

    Both are views of rows padded to a multiple of 64 adjacent columns (``logits.buffers``).  z ← ∂/∂z if ``gradient``.
    """
    rows, columns = z.shape
    blocks, other, kinds = triton.cdiv(columns, BLOCK), z if r is None else r, 1 if r is None else 2
    loss = z.new_empty(rows, blocks)
    m, s = z.new_empty(2, kinds, rows, blocks)
    if not rows:
        return loss.sum(1)
    with torch.cuda.device_of(z):
        _mass_kernel[rows, blocks, kinds](
            z, other, m, s, columns, z.stride(0), other.stride(0), BLOCK=BLOCK, PAD=PAD, **OPTIONS
        )  # fmt: skip
        _divergence_kernel[rows, blocks](
            z, other, loss, m[0], s[0], m[-1], s[-1], columns, z.stride(0), other.stride(0), math.log(columns),
            1.0 if softcap is None else float(softcap), REFERENCE=r is not None, GRADIENT=gradient,
            SOFTCAP=softcap is not None, BLOCKS=triton.next_power_of_2(blocks), BLOCK=BLOCK, PAD=PAD, **OPTIONS,
        )  # fmt: skip
    return loss.sum(1)


_SIZES = {"BLOCK": BLOCK, "PAD": PAD}
_ARGUMENTS = {
    "z": "*fp32", "r": "*fp32", "loss": "*fp32", "m": "*fp32", "s": "*fp32", "m_r": "*fp32", "s_r": "*fp32",
    "columns": "i32", "z_row": "i32", "r_row": "i32", "log_size": "fp32", "softcap": "fp32",
}  # fmt: skip
SIGNATURES = {
    "_mass_kernel": (
        {name: _ARGUMENTS[name] for name in ("z", "r", "m", "s", "columns", "z_row", "r_row")}, _SIZES, OPTIONS
    )
} | {
    f"_divergence_kernel{variant}": (
        _ARGUMENTS,
        {"REFERENCE": reference, "GRADIENT": True, "SOFTCAP": softcap, "BLOCKS": 64} | _SIZES,
        OPTIONS,
    )
    for variant, reference, softcap in (("", False, False), (":reference", True, False), (":softcap", True, True))
}  # fmt: skip
