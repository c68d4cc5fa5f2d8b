"""How big is a gradient that nobody wrote down?  Algebra on ``∂ℓ/∂W = xᵀδ`` through its two thin factors.

For a linear map ``z = x W + b`` over n tokens, x [n, d_in], δ = ∂ℓ/∂z [n, d_out], the weight gradient is the sum of n
outer products, so its rank is at most n (*Backward Lens*, Lemma 4.1).  Norm, rank and singular vectors all follow from
the factors in O(n (d_in + d_out)) memory, by ``lens.kernels.factors``; ``dense()`` builds the [d_in, d_out] matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from lens.kernels import factors
from lens.results.display import Grid, Shown, shaded


@dataclass(frozen=True, repr=False)
class FactoredGradient(Shown):
    """The gradient of one site, ``∂ℓ/∂W = xᵀδ``, kept as its factors.

    ``x`` [n, d_in]: the site's input at each token.  ``delta`` [n, d_out]: the vector-Jacobian product (VJP) arriving
    at its output.  Training subtracts this gradient: the update is ``-η xᵀδ``.

    >>> g = FactoredGradient(torch.eye(2, 3), torch.ones(2, 4))
    >>> g.rank(), tuple(g.dense().shape)
    (1, (3, 4))
    """

    x: Tensor
    delta: Tensor
    layer: int | None = None
    site: str | None = None

    def __post_init__(self):
        factors.check_factors("x", self.x, "delta", self.delta)

    def __repr__(self) -> str:
        where = "" if self.site is None else f"layer {self.layer} {self.site}, "
        n, (d_in, d_out) = len(self), self.shape
        return f"FactoredGradient({where}[{d_in}, {d_out}] of {n} tokens: x [{n}, {d_in}], delta [{n}, {d_out}])"

    def _grid(self) -> Grid:
        values = self.singular_values().tolist()
        share = sum(values[:1]) ** 2 / (sum(v * v for v in values) or 1.0)
        rows = [[str(i), cell] for i, (cell,) in enumerate(shaded([[value] for value in values], ".3g"))]
        note = (
            f"Rank {self.rank()}, length {float(self.norm()):.3g}; the first direction holds {share:.0%} of its square."
            if isfinite(share)
            else "It holds NaN or infinity."
        )
        return Grid(("", "singular value"), rows, note)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int]:
        """(d_in, d_out), the shape of the weight matrix and of ``dense()``."""
        return self.x.shape[1], self.delta.shape[1]

    def dense(self) -> Tensor:
        """xᵀδ as a matrix [d_in, d_out]."""
        return self.x.T @ self.delta

    def norm(self) -> Tensor:
        """Frobenius norm, a float64 scalar: ‖xᵀδ‖² = Σ (x xᵀ) ∘ (δ δᵀ), two n × n Gram matrices."""
        return factors.norms([self.x.double()], [self.delta.double()])[0]

    def singular_values(self) -> Tensor:
        """All min(n, d_in, d_out) possibly non-zero singular values, largest first, in float64."""
        return factors.singular_values(self.x, self.delta)

    def rank(self, tol: float | None = None) -> int:
        """Numerical rank: singular values above ``tol`` times the largest.

        The default ``tol`` is their number times the rounding error of float32, in which models add up what they
        multiply (of float64 for float64 factors): where exact arithmetic leaves a zero, such as the VJP of the first
        token's query, a forward and a backward pass leave so much.  Half-precision factors are taken as the exact
        numbers that they are: tokens that depend on each other but for the rounding to 8 or 11 bits are independent;
        ``tol=n * torch.finfo(g.x.dtype).eps`` calls them dependent, and with them what is only small.

        Raises ``ValueError`` where a factor holds NaN or infinity.
        """
        s = self.singular_values()
        if not len(s):
            return 0
        if s[0].isnan():
            raise ValueError("The gradient's x or delta holds NaN or infinity, so it has no rank: give finite numbers.")
        if tol is None:
            tol = len(s) * min(torch.finfo(dtype).eps for dtype in (self.x.dtype, torch.float32))
        return int((s > tol * s[0]).sum())

    def svd(self, k: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The k leading singular triplets U [d_in, k], S [k], V [d_out, k] in float64: xᵀδ ≈ U diag(S) Vᵀ.

        QR of xᵀ and of δᵀ, then the SVD of the small matrix R_x R_δᵀ between them.
        """
        return factors.singular(self.x, self.delta, k)
