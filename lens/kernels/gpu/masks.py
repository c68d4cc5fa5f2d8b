"""All masks of a model on a GPU, in one launch: the tiles of ``masking``, of every matrix, side by side.

    program     0     1     2     3     4     5     …
    owner       0     0     0     1     1     2     …     the matrix that the tile is in, made once
    table       a row a matrix: where its weights begin, its place in the flat scores, rows, columns, site, first tile

So a program finds its tile with two loads that all programs near it share.  ``grads`` are the addresses of ∂ℓ/∂(masked
W), which autograd makes anew at every step.  Bytes are those of ``masking``: 12 a weight forward, 16 backward, in which
the density's slope is read off the same e⁻ˡ and costs none.
"""

from itertools import accumulate

import torch
import triton
import triton.language as tl

from lens.kernels.gpu.masking import COLUMNS, OPTIONS, ROWS, entries
from lens.kernels.gpu.noise import exp_minus


@triton.jit(do_not_specialize=["seed", "step", "site", "first", "begin"])
def _masks_kernel(
    table, owner, grads,  # int64 [matrices, 6], int32 [tiles], int64 [matrices]
    example, out, scores,  # a pointer to weights, and two flat tensors
    first, begin,  # the tile of program 0, and where in the flat scores ``out`` begins
    seed, step, site, base, sign, tau, sparsity,
    ENTRY: tl.constexpr, TEMPERED: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = first + tl.program_id(0)
    matrix = tl.load(owner + program)
    row_of = table + matrix * 6
    pointer = tl.pointer_type(example.dtype.element_ty)  # what the addresses point to
    place, columns = tl.load(row_of + 1), tl.load(row_of + 3)
    target = place - begin
    weight, grad = tl.load(row_of).to(pointer), tl.load(grads + matrix).to(pointer)
    if WIDE:  # rows of every matrix begin at 16 bytes: loads and stores of four numbers
        place, target = tl.multiple_of(place, 16), tl.multiple_of(target, 16)
        columns = tl.multiple_of(columns, 16)
        weight, grad = tl.multiple_of(weight, 16), tl.multiple_of(grad, 16)
    tile = program - tl.load(row_of + 5).to(tl.int32)
    across = tl.cdiv(columns.to(tl.int32), COLUMNS)
    row = (tile // across) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    left = (tile % across) * COLUMNS
    quad = left // 4 + tl.arange(0, COLUMNS // 4)[None, :]  # [1, COLUMNS / 4]
    column = left + tl.arange(0, COLUMNS)[None, :]  # [1, COLUMNS]
    inside = (row < tl.load(row_of + 2)) & (column < columns)
    at = row.to(tl.int64) * columns + column

    w = tl.load(weight + at, inside).to(tl.float32)
    score = tl.load(scores + place + at, inside)
    value = base + sign * entries(
        score, quad, row, step, site + tl.load(row_of + 4).to(tl.uint32), seed, tau, ENTRY, TEMPERED
    )
    if ENTRY == "slope":
        e = exp_minus(score)
        value = w * (value * tl.load(grad + at, inside).to(tl.float32))
        value += sparsity * ((1.0 / (1.0 + e)) * (e / (1.0 + e)))
    else:
        value = w * value
    tl.store(out + target + at, value, inside)


class Launch:
    """The tables of ``lens.kernels.masks.AllMasks``, in the GPU's memory."""

    def __init__(self, masks):
        self.masks = masks
        tiles = [triton.cdiv(w.shape[0], ROWS) * triton.cdiv(w.shape[1], COLUMNS) for w in masks.weights]
        self.first = [0, *accumulate(tiles)]
        rows = [
            [w.data_ptr(), start, *w.shape, site, tile]
            for w, start, site, tile in zip(masks.weights, masks.starts, masks.sites, self.first)
        ]
        device = masks.scores.device
        self.table = torch.tensor(rows, dtype=torch.int64).to(device)
        self.owner = torch.arange(len(tiles), dtype=torch.int32).repeat_interleave(torch.tensor(tiles)).to(device)
        self.wide = all(w.shape[1] % 16 == 0 and w.data_ptr() % 16 == 0 for w in masks.weights)

    def fill(self, out, entry, grads, key, tau, base, sign, sparsity, some) -> None:
        """``AllMasks._fill`` of the matrices ``some`` in one launch."""
        first, tiles = self.first[some.start], self.first[some.stop] - self.first[some.start]
        if not tiles:
            return
        masks = self.masks
        held = masks.weights if grads is None else [g.contiguous() for g in grads]
        addresses = [0] * some.start + [g.data_ptr() for g in held]
        at = self.table if grads is None else torch.tensor(addresses).to(masks.scores.device)
        with torch.cuda.device_of(masks.scores):
            _masks_kernel[(tiles,)](
                self.table, self.owner, at, masks.weights[0], out[0], masks.scores, first, masks.starts[some.start],
                key.seed, key.step, key.site, float(base), sign / tau if entry == "slope" else float(sign), tau,
                float(sparsity), ENTRY=entry, TEMPERED=tau != 1 and entry != "hard",
                WIDE=self.wide and all(a % 16 == 0 for a in addresses), ROWS=ROWS, COLUMNS=COLUMNS,
                **OPTIONS,
            )  # fmt: skip


_ARGUMENTS = {
    "table": "*i64", "owner": "*i32", "grads": "*i64", "example": "*T", "out": "*fp32", "scores": "*fp32",
    "first": "i32", "begin": "i64", "seed": "u64", "step": "u32", "site": "u32",
    "base": "fp32", "sign": "fp32", "tau": "fp32", "sparsity": "fp32",
}  # fmt: skip
SIGNATURES = {
    f"_masks_kernel:{entry}": (
        _ARGUMENTS | {"out": "*T" if entry == "hard" else "*fp32"},
        {"ENTRY": entry, "TEMPERED": False, "WIDE": True, "ROWS": ROWS, "COLUMNS": COLUMNS},
        OPTIONS,
    )
    for entry in ("hard", "slope")
}
