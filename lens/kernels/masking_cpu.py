"""The mask on a CPU: numba compiles these loops to vector instructions, and threads share the rows.

The arithmetic is that of ``masking.py``, number by number, in float32 and without fused multiply-adds, so that the
masks agree bit for bit.  A row is taken in pieces of 1,024 columns: first the random words of a piece into a buffer
that stays in the first-level cache, then the mask of the piece.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numba import float32, int32, uint32, uint64
from numba.extending import intrinsic

from lens.kernels import noise
from lens.kernels.noise import Key

QUADS = 256
"""Philox calls, of four words each, whose results are held at a time."""

SHARE = 1 << 18
"""Weights in one task of a thread."""

M0, M1 = uint64(noise.M0), uint64(noise.M1)
W0, W1 = uint32(noise.W0), uint32(noise.W1)


@intrinsic
def from_bits(context, bits):
    """The float32 whose bits are those of an int32."""
    return float32(int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(float32)
    )


@numba.njit(inline="always")
def philox(c0, c1, c2, c3, k0, k1):
    for _ in range(10):
        p0, p1 = M0 * uint64(c0), M1 * uint64(c2)
        c0, c1, c2, c3 = (
            uint32(p1 >> uint64(32)) ^ c1 ^ k0,
            uint32(p1),
            uint32(p0 >> uint64(32)) ^ c3 ^ k1,
            uint32(p0),
        )
        k0, k1 = uint32(k0 + W0), uint32(k1 + W1)
    return c0, c1, c2, c3


@numba.njit(inline="always")
def exp_minus(score):
    x = -min(max(score, float32(-60)), float32(60))
    n = np.floor(x * float32(1.44269504) + float32(0.5))
    r = (x - n * float32(0.693359375)) - n * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * r + float32(1.3981999507e-3)
    p = p * r + float32(8.3334519073e-3)
    p = p * r + float32(4.1665795894e-2)
    p = p * r + float32(1.6666665459e-1)
    p = p * r + float32(5.0000001201e-1)
    return ((p * r) * r + r + float32(1)) * from_bits(int32((int32(n) + int32(127)) << int32(23)))


@numba.njit(nogil=True, error_model="numpy", cache=True)
def run(out, weight, grad, scores, hard, tau, base, sign, first_row, step, site, k0, k1):
    """out = weight · (base + sign · entry): m (``hard``) or s.  With a ``grad`` the entry is the slope s(1 − s) · grad.

    ``hard``, ``tau`` and ``grad`` are None where they are not wanted; numba compiles a loop for each choice, and keeps
    it on the disk.  The odds of m = 1 are odd : against.  A temperature raises them to the power 1/τ; without one the
    loop is faster, since numba's logarithm is not a vector instruction.
    """
    words = np.empty((QUADS, 4), np.uint32)
    flat = words.reshape(-1)
    rows, columns = weight.shape
    quads = (columns + 3) // 4
    for row in range(rows):
        for start in range(0, quads, QUADS):
            held = min(QUADS, quads - start)
            for q in range(held):
                c = philox(uint32(start + q), uint32(first_row + row), step, site, k0, k1)
                words[q, 0], words[q, 1], words[q, 2], words[q, 3] = c
            first, last = 4 * start, min(4 * (start + held), columns)
            # Views of one dimension: a sum of indices might be negative, and numba then reads one number at a time.
            w, score, target = weight[row, first:last], scores[row, first:last], out[row, first:last]
            g = w if grad is None else grad[row, first:last]
            for j in range(last - first):
                odd = float32(2) * float32(int32(flat[j] >> uint32(9))) + float32(1)
                against = (float32(16777216) - odd) * exp_minus(score[j])
                if tau is not None:
                    against = odd * np.exp(min(np.log(against / odd) / tau, float32(60)))
                if hard is not None:
                    value = float32(1) if odd > against else float32(0)
                elif grad is None:
                    value = odd / (odd + against)
                else:
                    value = (odd / (odd + against)) * (against / (odd + against))
                value = base + sign * (value if score[j] == score[j] else score[j])
                if grad is not None:
                    value = g[j] * value
                target[j] = w[j] * value


def fill(out, entry: str, weight, grad, scores, key: Key, tau: float, base: int, sign: int) -> None:
    """out ← weight ∘ (base + sign · entry) ∘ grad, all [rows, columns], on as many threads as torch uses."""
    rows, columns = out.shape
    step = max(1, SHARE // max(columns, 1))
    hard = True if entry == "hard" else None
    power = None if hard or tau == 1 else np.float32(tau)
    numbers = hard, power, np.float32(base), np.float32(sign / tau if entry == "slope" else sign)
    where = np.uint32(key.step), np.uint32(key.site), np.uint32(key.seed & noise.WORD), np.uint32(key.seed >> 32)

    def share(start: int) -> None:
        block = slice(start, start + step)
        target = out[block]
        buffer = target.float().contiguous()  # the rows themselves, where they are plain float32
        w, scored = (t[block].detach().float().contiguous().numpy() for t in (weight, scores))
        g = None if grad is None else grad[block].float().contiguous().numpy()
        run(buffer.numpy(), w, g, scored, *numbers, start, *where)
        if buffer.data_ptr() != target.data_ptr():
            target.copy_(buffer)

    threads = torch.get_num_threads()
    if threads == 1 or rows <= step:  # a thread of its own would only have to be waited for
        for start in range(0, rows, step):
            share(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(0, rows, step)))
