"""Mean σ(l) on a GPU: a reduction in two stages, and its gradient.

    stage 1, program i:    partial[i] = Σ σ(l[j]) over its 4,096 scores        4 bytes read a score
    stage 2, torch:        Σ partial, in float64                               N/4096 numbers

No atomic additions, whose order, and therefore whose rounding, changes from run to run.
"""

import torch
import triton
import triton.language as tl

BLOCK = 4096
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


@triton.jit
def _sigmoid_sum_kernel(scores, partial, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    score = tl.load(scores + at, at < n, other=-float("inf")).to(tl.float32)  # σ(−∞) = 0
    tl.store(partial + tl.program_id(0), tl.sum(1.0 / (1.0 + tl.exp(-score))))


@triton.jit
def _sigmoid_slope_kernel(out, scores, scale, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    score = tl.load(scores + at, at < n).to(tl.float32)
    s = 1.0 / (1.0 + tl.exp(-score))
    tl.store(out + at, tl.load(scale).to(tl.float32) * s * (1.0 - s), at < n)


def sigmoid_sum_kernel(flat):
    """Σ σ(l) of a contiguous vector, a float64 scalar."""
    partial = torch.empty(triton.cdiv(len(flat), BLOCK), dtype=torch.float32, device=flat.device)
    with torch.cuda.device_of(flat):
        _sigmoid_sum_kernel[partial.shape](flat, partial, len(flat), BLOCK=BLOCK, **OPTIONS)
    return partial.sum(dtype=torch.float64)


def sigmoid_slope_kernel(out, flat, scale) -> None:
    """out ← scale · σ(l)(1 − σ(l)), contiguous vectors; ``scale`` is a scalar tensor."""
    grid = (triton.cdiv(len(flat), BLOCK),)
    with torch.cuda.device_of(flat):
        _sigmoid_slope_kernel[grid](out, flat, scale, len(flat), BLOCK=BLOCK, **OPTIONS)


_SUM = {"scores": "*T", "partial": "*fp32", "n": "i64"}
_SLOPE = {"out": "*T", "scores": "*T", "scale": "*fp32", "n": "i64"}
SIGNATURES = {
    "_sigmoid_sum_kernel": (_SUM, {"BLOCK": BLOCK}, OPTIONS),
    "_sigmoid_slope_kernel": (_SLOPE, {"BLOCK": BLOCK}, OPTIONS),
}
