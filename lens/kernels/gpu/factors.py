"""Inner products of factored gradients on a GPU: all sites in one launch, two Gram tiles a program.

    ⟨xᵀδ, yᵀε⟩ = Σ_ij (x yᵀ)_ij (δ εᵀ)_ij

Program (site, I, J) owns a tile of token pairs, i in I and j in J.  It walks along d_in and then along d_out, one block
of features at a time, adding to two tiles that never leave its registers:

              y, transposed                        ε, transposed
             ┌── J ──┐                            ┌── J ──┐
    x  ┌ D ┐ │ D     │        →  d_in      δ ┌ D ┐ │ D    │        →  d_out
    I  └───┘ └───────┘   K += x_I y_Jᵀ     I └───┘ └──────┘   L += δ_I ε_Jᵀ

    partial[site, I, J] = Σ_(i, j) K_ij L_ij

and the partials are added by torch: no atomic addition, so the same bits in every run.  K and L are float32 (tensor
cores multiply float16 and bfloat16 exactly into them); their product is taken in float64, where it cannot overflow.

The sites are matrices of many sizes at many addresses, so the kernel is handed a table of addresses, strides and sizes,
a row a site, and a program reads its own row.  Prompts are short: with up to 16 tokens one program does a whole site,
and 16 × 16, the smallest tile that tl.dot takes, is the right one.  Longer prompts get tiles of 32 or 64, so that a
factor is read n/64 times and not n/16.  A step along the features is 1024/BLOCK of them wide: two blocks of 4 kB in
float32, small enough for the next ones to be on their way.  Bytes, for up to 64 tokens: each factor once,
4 n (d_in + d_out) a site in float32; the gradient would take 4 d_in d_out.
"""

from itertools import chain

import torch
import triton
import triton.language as tl

WARPS = {16: 4, 32: 4, 64: 8}
"""Warps of a program by the side of its tile, BLOCK: as few as keep both tiles and the addresses in registers."""


@triton.jit
def _gram_tile(
    a, b, rows, columns, n, m, d, a_token, b_token, a_feature, b_feature,
    BLOCK: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """a_I b_Jᵀ, [BLOCK, BLOCK] in float32, over all d features."""
    tile = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(0, d, D):
        features = start + tl.arange(0, D)
        f = features.to(tl.int64)
        there = features // 16 * 16 < d if WIDE else features < d  # d is a multiple of 16 where loads are wide
        left = tl.load(
            a + rows[:, None] * a_token + f[None, :] * a_feature, (rows < n)[:, None] & there[None, :], other=0.0
        )  # [BLOCK, D]
        right = tl.load(
            b + columns[None, :] * b_token + f[:, None] * b_feature, (columns < m)[None, :] & there[:, None], other=0.0
        )  # [D, BLOCK]
        tile = tl.dot(left, right, tile, input_precision="ieee")
    return tile


@triton.jit
def _gram_kernel(table, example, partials, BLOCK: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr):
    site, i, j = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = table + site * 16
    pointer = tl.pointer_type(example.dtype.element_ty)  # what the addresses point to
    x, delta = tl.load(row).to(pointer), tl.load(row + 1).to(pointer)
    y, epsilon = tl.load(row + 2).to(pointer), tl.load(row + 3).to(pointer)
    x_token, delta_token = tl.load(row + 4), tl.load(row + 5)
    y_token, epsilon_token = tl.load(row + 6), tl.load(row + 7)
    x_feature, delta_feature = tl.load(row + 8), tl.load(row + 9)
    y_feature, epsilon_feature = tl.load(row + 10), tl.load(row + 11)
    if WIDE:  # every token begins at 16 bytes and its features lie side by side: loads of 16 bytes
        x, delta = tl.multiple_of(x, 16), tl.multiple_of(delta, 16)
        y, epsilon = tl.multiple_of(y, 16), tl.multiple_of(epsilon, 16)
        x_token, delta_token = tl.multiple_of(x_token, 16), tl.multiple_of(delta_token, 16)
        y_token, epsilon_token = tl.multiple_of(y_token, 16), tl.multiple_of(epsilon_token, 16)
        x_feature, delta_feature, y_feature, epsilon_feature = 1, 1, 1, 1
    n, m = tl.load(row + 12), tl.load(row + 13)
    rows = i.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    columns = j.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)

    # The grid fits the longest prompt: a program past the end of its own site walks along nothing and writes zero.
    alive = (i * BLOCK < n) & (j * BLOCK < m)
    d_in = tl.where(alive, tl.load(row + 14), 0).to(tl.int32)
    d_out = tl.where(alive, tl.load(row + 15), 0).to(tl.int32)
    gram_in = _gram_tile(
        x, y, rows, columns, n, m, d_in, x_token, y_token, x_feature, y_feature, BLOCK, D, WIDE
    )  # fmt: skip
    gram_out = _gram_tile(
        delta, epsilon, rows, columns, n, m, d_out,
        delta_token, epsilon_token, delta_feature, epsilon_feature, BLOCK, D, WIDE,
    )  # fmt: skip
    inside = (rows < n)[:, None] & (columns < m)[None, :]  # infinity times the padding's zero would be NaN
    product = tl.where(inside, gram_in.to(tl.float64) * gram_out.to(tl.float64), 0.0)
    at = (site.to(tl.int64) * tl.num_programs(1) + i) * tl.num_programs(2) + j
    tl.store(partials + at, tl.sum(product))


def gram_kernel(xs, deltas, ys, epsilons):
    """⟨xᵀδ, yᵀε⟩ of every site, [S] float64: lists of S ≥ 1 matrices of one dtype on one device, any strides."""
    sites = list(zip(xs, deltas, ys, epsilons))
    table = torch.tensor([_row(*factors) for factors in sites], dtype=torch.int64).to(xs[0].device)  # [S, 16]
    n, m = max(len(x) for x in xs), max(len(y) for y in ys)
    block = next((side for side in WARPS if max(n, m) <= side), 64)
    tiles = (max(1, triton.cdiv(tokens, block)) for tokens in (n, m))
    partials = torch.empty(len(sites), *tiles, dtype=torch.float64, device=table.device)
    with torch.cuda.device_of(table):
        _gram_kernel[partials.shape](
            table, xs[0], partials, BLOCK=block, D=1024 // block, WIDE=all(map(_wide, chain(xs, deltas, ys, epsilons))),
            num_warps=WARPS[block], enable_fp_fusion=True,
        )  # fmt: skip
    return partials.sum((1, 2))


def _wide(factor) -> bool:
    """Does every token begin at 16 bytes, with whole vectors of features side by side?"""
    side_by_side = factor.stride(1) == 1 and factor.shape[1] % 16 == 0 == factor.stride(0) % 16
    return side_by_side and factor.data_ptr() % 16 == 0


def _row(*factors):
    """A site's 16 entries of the table: 4 addresses, 4 strides between tokens, 4 between features, 4 sizes."""
    x, delta, y, _ = factors
    return [
        *(t.data_ptr() for t in factors),
        *(t.stride(0) for t in factors),
        *(t.stride(1) for t in factors),
        len(x), len(y), x.shape[1], delta.shape[1],
    ]  # fmt: skip


SIGNATURES = {
    f"_gram_kernel:{block}{'' if wide else ':narrow'}": (
        {"table": "*i64", "example": "*T", "partials": "*fp64"},
        {"BLOCK": block, "D": 1024 // block, "WIDE": wide},
        {"num_warps": WARPS[block], "enable_fp_fusion": True},
    )
    for block in WARPS
    for wide in (True, False)
}
