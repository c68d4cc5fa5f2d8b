"""KL(q ‖ p) of a chunk of logits on a GPU: one program a row, two readings, z overwritten by its own gradient.

First reading, an *online* log-sum-exp: m is the largest logit so far and s = Σ eᶻ⁻ᵐ over what has been read.  When a
block of 8,192 columns raises the maximum from m to m', the old sum is worth s·eᵐ⁻ᵐ' in the new measure:

    block 0        block 1              …
    m, s     ─►    m' = max(m, max z),  s' = s·eᵐ⁻ᵐ' + Σ eᶻ⁻ᵐ'     ─►   …   ─►   M, log Σ eᶻ⁻ᴹ

The same for the reference's r.  Second reading, when both normalizers are known, with
log p = (z − M) − log Σ eᶻ⁻ᴹ and log q the same of r (or − log V, for uniform q):

    loss += Σ q (log q − log p),       z ← (p − q)(1 − (z/c)²)       the last factor only under a soft cap c

cuBLAS then multiplies the buffer with E.  Bytes a logit in float32: z is read twice and written once, 12, and r read
twice, 8; the second reading finds a row of 200 kB in the L2 cache.  One program a row needs neither atomics nor a
second kernel; 512 threads with 16 columns each keep four 16-byte loads in flight, since a chunk has few rows.
"""

import math

import torch
import triton
import triton.language as tl

BLOCK = 8192
PAD = 64  # a row of the buffer is padded to a multiple of it


@triton.jit
def _normalizer(z, columns, BLOCK: tl.constexpr, PAD: tl.constexpr):
    """M = max z and log Σ eᶻ⁻ᴹ of one row, read a block at a time; apart, since the sum is rounded at the size of M."""
    m = tl.full((), -float("inf"), tl.float32)
    s = tl.full((), 0.0, tl.float32)
    for start in range(0, columns, BLOCK):
        x = _columns(z, start, columns, BLOCK, PAD)
        larger = tl.maximum(m, tl.max(x, 0))
        shift = tl.where(larger == -float("inf"), 0.0, larger)  # −∞ − (−∞) would be NaN
        s = s * tl.exp(m - shift) + tl.sum(tl.exp(x - shift), 0)
        m = larger
    return m, tl.log(s)


@triton.jit
def _columns(z, start, columns, BLOCK: tl.constexpr, PAD: tl.constexpr):
    """A block of a row, −∞ beyond its end; the mask of the load covers whole pads, so that loads are 16 bytes wide."""
    column = start + tl.arange(0, BLOCK)
    x = tl.load(z + column, column // PAD * PAD < columns, other=0.0)
    return tl.where(column < columns, x, -float("inf"))


@triton.jit
def _divergence_kernel(
    z, r, loss,  # [rows, columns], the reference's or z again, [rows]
    columns, z_row, r_row, log_size, softcap,
    REFERENCE: tl.constexpr, GRADIENT: tl.constexpr, SOFTCAP: tl.constexpr, BLOCK: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    z += row * z_row
    r += row * r_row
    m, log_s = _normalizer(z, columns, BLOCK, PAD)
    if REFERENCE:
        m_r, log_s_r = _normalizer(r, columns, BLOCK, PAD)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < columns
        x = _columns(z, start, columns, BLOCK, PAD)
        log_p = x - m - log_s
        if REFERENCE:
            log_q = _columns(r, start, columns, BLOCK, PAD) - m_r - log_s_r
        else:
            log_q = tl.zeros([BLOCK], tl.float32) - log_size
        q = tl.exp(log_q)
        total += tl.where(inside & (q != 0.0), q * (log_q - log_p), 0.0)  # 0 · log 0 is 0
        if GRADIENT:
            slope = tl.exp(log_p) - q
            if SOFTCAP:
                slope *= 1.0 - (x / softcap) * (x / softcap)
            tl.store(z + column, slope, column // PAD * PAD < columns)
    tl.store(loss + row, tl.sum(total, 0))


def divergence_kernel(z, r, softcap: float | None, gradient: bool):
    """KL(q ‖ p), float32 [rows], of the logits ``z [rows, V]`` and the reference's ``r`` (None: uniform q).

    Both are views of rows padded to a multiple of 64 adjacent columns (``logits.buffers``).  z ← ∂/∂z if ``gradient``.
    """
    rows, columns = z.shape
    loss = torch.empty(rows, dtype=torch.float32, device=z.device)
    other = z if r is None else r
    if rows:
        with torch.cuda.device_of(z):
            _divergence_kernel[rows,](
                z, other, loss,
                columns, z.stride(0), other.stride(0), math.log(columns), 1.0 if softcap is None else float(softcap),
                REFERENCE=r is not None, GRADIENT=gradient, SOFTCAP=softcap is not None, BLOCK=BLOCK, PAD=PAD,
                num_warps=16, enable_fp_fusion=True,
            )  # fmt: skip
    return loss


_ARGUMENTS = {
    "z": "*fp32", "r": "*fp32", "loss": "*fp32",
    "columns": "i32", "z_row": "i32", "r_row": "i32", "log_size": "fp32", "softcap": "fp32",
}  # fmt: skip
SIGNATURES = {
    f"_divergence_kernel{variant}": (
        _ARGUMENTS,
        {"REFERENCE": reference, "GRADIENT": True, "SOFTCAP": softcap, "BLOCK": BLOCK, "PAD": PAD},
        {"num_warps": 16, "enable_fp_fusion": True},
    )
    for variant, reference, softcap in (("", False, False), (":reference", True, False), (":softcap", True, True))
}
