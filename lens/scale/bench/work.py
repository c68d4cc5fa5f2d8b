"""What is timed?  Work of GPT-2 small's size, done in several ways, with a check that comes before the clock.

A case names the ways (``lens``, ``naive`` torch, ``torch.compile``, ``chunked torch``, the formula ``as
published``), the bytes that any of them must move and the operations that any must do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Size:
    """GPT-2 small, a prompt of 8 tokens and the vectors of 10 layers × 24 tokens to read."""

    layers: int = 12
    width: int = 768
    inner: int = 3072
    vocabulary: int = 50257
    tokens: int = 8
    vectors: int = 240

    def sites(self) -> list[tuple[int, int]]:
        """[d_in, d_out] of q, k, v, out, FF1 and FF2 in every layer."""
        d, m = self.width, self.inner
        return [(d, d)] * 4 * self.layers + [(d, m)] * self.layers + [(m, d)] * self.layers


@dataclass(frozen=True)
class Workload:
    """One operation on one size of work; ``moved`` bytes and ``flop`` operations are the floor of any method.

    ``kernel``: its row of ``lens.kernels.paths.TABLE``.  ``once``: ways too slow to be timed more than once.
    """

    kernel: str
    operation: str
    work: str
    moved: int
    flop: int
    ways: dict[str, Callable[[], object]]
    check: Callable[[], None] = field(repr=False)
    once: tuple[str, ...] = ()


class Wrong(Exception):
    """A kernel's result is not the reference's."""


def same(what: str, got: Tensor, want: Tensor, tolerance: float, plain: Tensor | None = None) -> None:
    """``Wrong`` where the largest difference, relative to the largest entry wanted, is above ``tolerance``.

    With ``plain``, what plain torch makes of it in the same dtype, twice its error is allowed too.
    """
    want = want.detach().double()

    def error(found: Tensor) -> float:
        return float((found.detach().double() - want).abs().max() / want.abs().max())

    allowed = tolerance + (0 if plain is None else 2 * error(plain))
    if not error(got) <= allowed:
        raise Wrong(f"{what!r} is off by {error(got):.2g} where {allowed:.2g} is allowed")
