"""Inner products of factored gradients on a CPU, for short prompts: every pair of tokens, two dot products.

    ⟨xᵀδ, yᵀε⟩ = Σ_ij (x_i·y_j)(δ_i·ε_j)

A site of eight tokens is so little work that torch spends most of its time on calls and copies.  So all sites go into
one call, as on a GPU: a table with a row a site, of four addresses and four sizes, and numba's compiled loop reads the
factors where they lie.  Each is read from memory once and stays in a cache for all its pairs.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import float32, float64, types
from numba.extending import intrinsic
from torch import Tensor


@intrinsic
def pointer(context, address):
    """The address of float32 numbers, given as an int64."""
    return types.CPointer(float32)(address), lambda context, builder, signature, args: builder.inttoptr(
        args[0], context.get_value_type(types.CPointer(float32))
    )


@numba.njit(fastmath={"reassoc", "contract", "nsz"}, cache=True)
def dot(a, b):
    """Σ a b, in as many partial sums as a vector register holds."""
    total = float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@numba.njit(nogil=True, cache=True)
def run(table, itself, out):
    """``table`` int64 [S, 8]: addresses of x, δ, y, ε; then n, m, d_in, d_out.  ``itself``: y is x and ε is δ."""
    for s in range(len(table)):
        n, m, d_in, d_out = table[s, 4], table[s, 5], table[s, 6], table[s, 7]
        x, delta = numba.carray(pointer(table[s, 0]), (n, d_in)), numba.carray(pointer(table[s, 1]), (n, d_out))
        y, epsilon = numba.carray(pointer(table[s, 2]), (m, d_in)), numba.carray(pointer(table[s, 3]), (m, d_out))
        total = float64(0)
        for i in range(n):
            for j in range(i + 1 if itself else m):
                pair = float64(dot(x[i], y[j])) * float64(dot(delta[i], epsilon[j]))
                total += 2 * pair if itself and j < i else pair
        out[s] = total


def inner_products(xs: list[Tensor], deltas: list[Tensor], ys: list[Tensor], epsilons: list[Tensor]) -> Tensor:
    """⟨xᵀδ, yᵀε⟩ of every site, float64 [S], of factors on the CPU in at most float32."""
    itself = ys is xs and epsilons is deltas
    left, right = _plain(xs), _plain(deltas)
    others = (left, right) if itself else (_plain(ys), _plain(epsilons))
    # The lists keep copies alive whose addresses stand in the table.
    addresses = ([t.data_ptr() for t in factors] for factors in (left, right, *others))
    sizes = ([t.shape[axis] for t in factors] for factors, axis in ((xs, 0), (ys, 0), (xs, 1), (deltas, 1)))
    out = np.empty(len(xs))
    run(np.array([*addresses, *sizes], dtype=np.int64).T, itself, out)
    return torch.from_numpy(out)


def _plain(factors: list[Tensor]) -> list[Tensor]:
    """As contiguous float32: the tensor itself, where it is that already."""
    return [t if t.dtype is torch.float32 and t.is_contiguous() else t.float().contiguous() for t in factors]
