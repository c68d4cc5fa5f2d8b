"""How alike are two subnetworks?  Hard masks at one bit a weight, compared by and, or, xor and a count.

Eight weights share a byte, the first in its lowest bit; bits past the end are 0.  The masks of GPT-2 small's upper
half, 42.5 million weights, take 5 MB instead of 170.  A byte's ones are counted in three steps that work on all bytes
at once, adding neighboring bits, then pairs, then fours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 1 << 20
"""Bytes treated at a time."""


@dataclass(frozen=True, eq=False)
class Bits:
    """A set of weights, packed: ``bytes`` uint8 [⌈N/8⌉] for a mask of ``shape`` with N entries.

    ``a & b``, ``a | b``, ``a ^ b`` and ``~a`` are again sets; ``a.count()`` is how many weights are in it.

    >>> a, b = pack(torch.tensor([1, 1, 0, 0]) == 1), pack(torch.tensor([0, 1, 1, 0]) == 1)
    >>> (a & b).count(), (a | b).count(), iou(a, b)
    (1, 3, 0.3333333333333333)
    """

    bytes: Tensor
    shape: tuple[int, ...]

    def __and__(self, other: Bits) -> Bits:
        return Bits(self.bytes & self._of_one_shape(other), self.shape)

    def __or__(self, other: Bits) -> Bits:
        return Bits(self.bytes | self._of_one_shape(other), self.shape)

    def __xor__(self, other: Bits) -> Bits:
        return Bits(self.bytes ^ self._of_one_shape(other), self.shape)

    def __invert__(self) -> Bits:
        flipped = ~self.bytes
        if prod(self.shape) % 8:
            flipped[-1] &= (1 << prod(self.shape) % 8) - 1
        return Bits(flipped, self.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bits) and self.shape == other.shape and torch.equal(self.bytes, other.bytes)

    __hash__ = None  # equal by content, and the content can be large

    def count(self) -> int:
        """How many weights are in the set (population count)."""
        total = 0
        for b in self.bytes.split(CHUNK):
            b = b - ((b >> 1) & 0x55)
            b = (b & 0x33) + ((b >> 2) & 0x33)
            total += ((b + (b >> 4)) & 0x0F).sum(dtype=torch.int64)
        return int(total)

    def density(self) -> float:
        """The share of weights in the set; 0 for a mask of no weights."""
        return self.count() / max(prod(self.shape), 1)

    def unpack(self) -> Tensor:
        """The mask as a bool tensor of its shape."""
        bits = (self.bytes[:, None] >> torch.arange(8, dtype=torch.uint8, device=self.bytes.device)) & 1
        return bits.flatten()[: prod(self.shape)].bool().reshape(self.shape)

    def _of_one_shape(self, other: Bits) -> Tensor:
        if self.shape != other.shape:
            raise ValueError(
                f"Masks of {list(self.shape)} and {list(other.shape)} weights cannot be compared: give two masks of "
                "the same weights."
            )
        return other.bytes


def pack(mask: Tensor) -> Bits:
    """A bool mask of any shape at one bit a weight.

    >>> pack(torch.tensor([True, False, True])).bytes
    tensor([5], dtype=torch.uint8)
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"A mask is bool and this tensor is {mask.dtype}: compare it first, as in scores > 0.")
    place = 1 << torch.arange(8, dtype=torch.uint8, device=mask.device)
    eights = (pad(part, (0, -len(part) % 8)).view(-1, 8) for part in mask.flatten().split(8 * CHUNK))
    packed = torch.cat([(each * place).sum(1, dtype=torch.uint8) for each in eights])
    return Bits(packed, tuple(mask.shape))


def iou(a: Bits, b: Bits) -> float:
    """Intersection over union of two sets, ``|a ∩ b| / |a ∪ b|``; two empty sets are alike, 1."""
    union = (a | b).count()
    return (a & b).count() / union if union else 1.0
