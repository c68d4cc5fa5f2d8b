"""Where does a mask's noise come from?  Philox 4x32-10, a generator with no state: number = f(key, counter).

Ten rounds turn a counter of four 32-bit words into four random ones (Salmon et al., *Parallel random numbers: as easy
as 1, 2, 3*, 2011).  One round, with the constants M and W of that paper and hi, lo the halves of a 64-bit product:

    (c0, c1, c2, c3) ← (hi(M1·c2) ⊕ c1 ⊕ k0,  lo(M1·c2),  hi(M0·c0) ⊕ c3 ⊕ k1,  lo(M0·c0)),    k ← k + W

Every weight has an address: its site, the step, its row, its column.  The counter is (column // 4, row, step, site),
the key is the seed, and the four words serve four neighboring columns.  So the noise of a weight depends on its
address alone, not on the device, the tile or the thread that asks; and backward asks again instead of keeping it.

Uniform numbers are the odd multiples of 2⁻²⁴, u = (2k + 1)/2²⁴ with k the top 23 bits: never 0 or 1, symmetric about
½, and exact in float32 together with 1 − u.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF


class Key(NamedTuple):
    """The address of one matrix's noise: ``seed`` of the run (64 bits), ``step`` and ``site`` (32 bits each)."""

    seed: int
    step: int = 0
    site: int = 0

    def check(self) -> Key:
        """The key in Python's own numbers; ``ValueError`` where a part is no whole number of its width."""
        for name, value, bits in zip(self._fields, self, (64, 32, 32)):
            if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < 1 << bits:
                raise ValueError(
                    f"The {name} of a noise key is {value!r}: give a whole number from 0 to 2**{bits} - 1."
                )
        return Key(*map(int, self))


def philox(counter: tuple[Tensor | int, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four random 32-bit words, as int64, for a counter of four words (tensors that broadcast, or numbers) and a key.

    >>> [hex(word) for word in philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        (hi0, lo0), (hi1, lo1) = _product(M0, c0), _product(M1, c2)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return c0, c1, c2, c3


def _product(m: int, c: Tensor | int) -> tuple[Tensor | int, Tensor | int]:
    """High and low word of m·c; as a tensor the product wraps into the sign of an int64, and its 64 bits are right."""
    product = c * m
    return (product >> 32) & WORD, product & WORD


def words(rows: range, columns: int, key: Key, device: torch.device | str = "cpu") -> Tensor:
    """The random words of some rows of a matrix, int64 [len(rows), columns]; four int64 buffers of that size."""
    quad = torch.arange((columns + 3) // 4, device=device)  # [columns / 4]
    row = torch.arange(rows.start, rows.stop, device=device)[:, None]  # [rows, 1]
    seed = key.seed & WORD, key.seed >> 32
    four = philox((quad, row, key.step, key.site), seed)
    return torch.stack(four, dim=-1).flatten(1)[:, :columns]


def uniform(shape: tuple[int, int], key: Key, device: torch.device | str = "cpu") -> Tensor:
    """Uniform numbers in (0, 1), float32 [rows, columns], a function of the key and of each entry's place.

    >>> uniform((2, 3), Key(seed=1))[0, 0] == uniform((50, 70), Key(seed=1))[0, 0]
    tensor(True)
    """
    key = key.check()
    return odd(words(range(shape[0]), shape[1], key, device)) / 2.0**24


def odd(words: Tensor) -> Tensor:
    """2k + 1 in float32, k the top 23 bits of each word: u = odd/2²⁴ and 1 − u = (2²⁴ − odd)/2²⁴, both exact."""
    return ((words >> 9) * 2 + 1).float()
