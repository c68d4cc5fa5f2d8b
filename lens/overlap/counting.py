"""How many weights have which membership?  All 2ⁿ patterns of n packed masks, in one pass over their bytes.

    counts[s] = #{w : w ∈ mask i  ⇔  bit i of s is set},     s = 0 … 2ⁿ − 1

Every overlap of the masks is a sum of these: the intersection of masks 0 and 2 sums over the s that have bits 0 and 2.

Sparse masks leave most weights in none of them.  So the loop takes 64 weights at a time, as one word of each mask, and
visits only the ones of the words' union; what it did not visit is in no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

MOST = 16
"""Masks that can be counted together: a table of 65,536 patterns."""

BYTES = 1 << 17
"""Bytes of each mask in one task of a thread; no more than this is copied."""


def patterns(masks: Sequence[Tensor], weights: int) -> np.ndarray:
    """The counts of all patterns, int64 [2ⁿ], of n packed masks (``Bits.bytes``, uint8) over so many ``weights``.

    >>> import torch
    >>> one, other = torch.tensor([0b0111], dtype=torch.uint8), torch.tensor([0b0101], dtype=torch.uint8)
    >>> patterns([one, other], weights=6).tolist()
    [3, 1, 0, 2]
    """
    count = _loop()
    packed = [mask.cpu().numpy() for mask in masks]

    def share(start: int) -> np.ndarray:
        size = min(BYTES, len(packed[0]) - start)
        words = np.zeros((len(packed), -(-size // 8)), np.uint64)  # aligned, and whole words, whatever the masks are
        for row, mask in zip(words, packed):
            row.view(np.uint8)[:size] = mask[start : start + size]
        found = np.zeros(1 << len(packed), np.int64)
        count(words, found)
        return found

    starts = range(0, len(packed[0]), BYTES)
    if len(starts) > 1 and torch.get_num_threads() > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            counts = sum(pool.map(share, starts))
    else:
        counts = sum(map(share, starts), np.zeros(1 << len(packed), np.int64))
    counts[0] = weights - counts[1:].sum()
    return counts


@cache
def _loop():
    """The loop, compiled when it is first needed: importing lens need not wait for numba."""
    import numba

    @numba.njit(nogil=True, cache=True)
    def count(words, found):
        masks, length = words.shape
        here = np.empty(masks, np.uint64)
        one = np.uint64(1)
        for j in range(length):
            union = np.uint64(0)
            for i in range(masks):
                here[i] = words[i, j]
                union |= here[i]
            while union:
                lowest = union & (~union + one)
                union ^= lowest
                pattern = 0
                for i in range(masks):
                    pattern |= ((here[i] & lowest) != 0) << i
                found[pattern] += 1

    return count
