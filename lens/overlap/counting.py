"""How many weights have which membership?  All 2ⁿ patterns of n packed masks, in one pass over their bytes.

    counts[s] = #{w : w ∈ mask i  ⇔  bit i of s is set},     s = 0 … 2ⁿ − 1

Every overlap of the masks is a sum of these: the intersection of masks 0 and 2 sums over the s that have bits 0 and 2.

Sparse masks leave most weights in none of them.  So the loop takes 64 weights at a time, as one word of each mask, and
visits only the ones of the words' union; what it did not visit is in no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from torch import Tensor

MOST = 16
"""Masks that can be counted together: a table of 65,536 patterns."""


def patterns(masks: Sequence[Tensor], weights: int) -> np.ndarray:
    """The counts of all patterns, int64 [2ⁿ], of n packed masks (``Bits.bytes``, uint8) over so many ``weights``.

    >>> import torch
    >>> one, other = torch.tensor([0b0111], dtype=torch.uint8), torch.tensor([0b0101], dtype=torch.uint8)
    >>> patterns([one, other], weights=6).tolist()
    [3, 1, 0, 2]
    """
    words = np.zeros((len(masks), -(-len(masks[0]) // 8)), np.uint64)  # aligned, and whole words, whatever masks are
    for row, mask in zip(words, masks):
        row.view(np.uint8)[: len(mask)] = mask.cpu().numpy()
    counts = np.zeros(1 << len(masks), np.int64)
    _loop()(words, counts)
    counts[0] = weights - counts[1:].sum()
    return counts


@cache
def _loop():
    """The loop, compiled when it is first needed: importing lens need not wait for numba."""
    import numba

    @numba.njit(cache=True)
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
