"""How is a weight edited in place, and put back exactly?  W ← W + η xᵀδ for a list of sites, with its undo.

    W_rc ← round(W_rc + η Σ_i x_ir δ_ic)

computed in float32 at least and rounded once, to W's dtype; the [d_in, d_out] gradient is added as it is formed.

Floating-point addition forgets: where η xᵀδ is large beside W, no arithmetic brings the last bits of W back.  So the
old values are kept, as much memory again as the weights that change, and ``undo`` copies them, last site first: two
sites may be the same weight, or overlapping slices of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from lens.kernels.factors import check_factors, one_device
from lens.kernels.paths import choose

TOKENS = 64
"""Beyond so many tokens the Triton kernel, whose work per weight grows with them, leaves it to a matrix product."""

BATCH = 1 << 20
"""Half-precision weights that the torch path widens to float32 at a time: 4 MB."""


class Undo:
    """What ``update_`` returns: ``undo()`` puts every weight back bit for bit, as does the end of a ``with`` block.

    It writes the values from before the update: whatever else has been done to these weights since is lost too.  A
    second ``undo()`` does nothing.
    """

    def __init__(self):
        self._kept: list[tuple[Tensor, Tensor]] = []

    def keep(self, weight: Tensor, old: Tensor) -> None:
        """Remember what ``weight`` held."""
        self._kept.append((weight, old))

    @torch.no_grad()
    def undo(self) -> None:
        """Restore the weights, last site first."""
        while self._kept:
            weight, old = self._kept[-1]
            weight.copy_(old)
            self._kept.pop()

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_) -> None:
        self.undo()


@torch.no_grad()
def update_(weights: Sequence[Tensor], xs: Sequence[Tensor], deltas: Sequence[Tensor], eta: float) -> Undo:
    """``weights[s] += eta * xs[s].T @ deltas[s]`` in place for every site; the result undoes it, bit for bit.

    ``weights[s]`` [d_in, d_out] may be a view (``linear.weight.T``, some columns of a joint matrix) and is written
    through it, as by an optimizer's step: autograd does not follow, and notices if an older graph needed the old value.
    ``xs[s]`` [n, d_in] and ``deltas[s]`` [n, d_out] of any floating dtype.  Training subtracts: eta = −learning rate.
    Raises ``ValueError`` where sizes, dtypes or devices do not fit, before any weight is touched; whatever goes wrong
    later, even an interrupt, finds the weights restored.

    >>> weight = torch.zeros(2, 3)
    >>> with update_([weight], [torch.ones(1, 2)], [torch.ones(1, 3)], eta=0.5):
    ...     print(weight.sum())
    tensor(3.)
    >>> weight.sum()
    tensor(0.)
    """
    weights, xs, deltas, eta = list(weights), list(xs), list(deltas), float(eta)
    if not len(weights) == len(xs) == len(deltas):
        raise ValueError(
            f"Each site has one weight, one x and one delta, and there are {len(weights)}, {len(xs)} and {len(deltas)}."
        )
    for site in zip(weights, xs, deltas):
        _check(*site)
    paths = [choose("update", *site) for site in zip(weights, xs, deltas)]
    written = {weight.untyped_storage().data_ptr() for weight in weights}
    xs, deltas = ([_apart(t, written) for t in factors] for factors in (xs, deltas))
    undo = Undo()
    try:
        for weight, x, delta, path in zip(weights, xs, deltas, paths):
            if weight.numel() and len(x):
                _update(weight.detach(), x, delta, eta, path, undo)
    except BaseException:
        undo.undo()
        raise
    return undo


def _update(weight: Tensor, x: Tensor, delta: Tensor, eta: float, path: str, undo: Undo) -> None:
    if weight.stride(0) < weight.stride(1):  # xᵀδ and δᵀx are each other's transposes: let rows be what is contiguous
        weight, x, delta = weight.T, delta, x
    if path == "triton" and len(x) <= TOKENS:
        from lens.kernels.gpu import update as gpu

        undo.keep(weight, gpu.update_kernel(weight, x, delta, eta))
        torch.autograd.graph.increment_version(weight)  # torch did not see the kernel write
        return
    undo.keep(weight, weight.clone())
    wide = reduce(torch.promote_types, (weight.dtype, x.dtype, delta.dtype), torch.float32)
    x, delta = x.to(wide), delta.to(wide)
    if weight.dtype == wide:
        weight.addmm_(x.T, delta, alpha=eta)
        return
    step = max(1, BATCH // weight.shape[1])
    for rows, x_rows in zip(weight.split(step), x.split(step, dim=1)):
        rows.copy_(torch.addmm(rows.to(wide), x_rows.T, delta, alpha=eta))


def _check(weight: Tensor, x: Tensor, delta: Tensor) -> None:
    check_factors("x", x, "delta", delta)
    if weight.shape != (x.shape[1], delta.shape[1]):
        raise ValueError(
            f"An update by x {list(x.shape)} and delta {list(delta.shape)} needs a weight [d_in, d_out] = "
            f"{[x.shape[1], delta.shape[1]]}, and got {list(weight.shape)} (of an nn.Linear, give weight.T)."
        )
    if not weight.is_floating_point():
        raise ValueError(f"The weight is {weight.dtype}, and only floating-point weights can be updated.")
    one_device(weight, x, delta)
    (near, count), (far, others) = sorted(zip(weight.stride(), weight.shape))
    if weight.numel() > 1 and ((count > 1 and near < 1) or (others > 1 and far <= near * (count - 1))):
        raise ValueError(
            f"The weight {list(weight.shape)} has strides {list(weight.stride())}, so some of its entries share "
            "memory: update the tensor it was expanded from."
        )
    if weight.is_inference() and not torch.is_inference_mode_enabled():
        raise ValueError(
            "The weight was made in torch.inference_mode and can only be updated there, or as a clone of it."
        )


def _apart(factor: Tensor, written: set[int]) -> Tensor:
    """The factor, or a copy where it lies in a weight's memory: writing the weight would change it."""
    return factor.clone() if factor.untyped_storage().data_ptr() in written else factor
