"""Noise inside a Triton kernel: four neighboring columns a Philox call, and e⁻ˡ rounded as in ``masking.py``."""

import triton
import triton.language as tl


@triton.jit
def odd_numbers(quad, row, step, site, seed):
    """2k + 1 in float32, [rows, 4 · quads], from quad numbers [1, quads] and row numbers [rows, 1].

    ``tl.philox`` gives one word for each of four neighbors in four tensors [rows, quads]; two rounds of interleaving
    put them side by side, which costs no instruction where a thread holds four neighboring columns.
    """
    zero = (quad * 0 + row * 0).to(tl.uint32)  # [rows, quads]
    column, row = zero + quad.to(tl.uint32), zero + row.to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, column, row, (zero + step).to(tl.uint32), (zero + site).to(tl.uint32))
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
    return ((words >> 9) * 2 + 1).to(tl.float32)


@triton.jit
def exp_minus(score):
    """e⁻ˡ for l cut to ±60; launch with ``enable_fp_fusion=False``, or the sums are rounded once instead of twice."""
    x = -tl.minimum(tl.maximum(score, -60.0), 60.0)
    n = tl.floor(x * 1.44269504 + 0.5)
    r = (x - n * 0.693359375) - n * -2.12194440e-4
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    power = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)  # 2ⁿ
    return ((p * r) * r + r + 1.0) * power
