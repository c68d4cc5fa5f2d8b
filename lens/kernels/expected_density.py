"""How much of the model does a mask take?  The expected density mean σ(l), and its gradient, one read of l each.

    density = (1/N) Σ σ(l)        ∂ density/∂l = σ(l)(1 − σ(l))/N

Autograd would keep σ(l), as large as l itself; here backward computes it again, 4 bytes read and 4 written a score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lens.kernels.paths import choose

CHUNK = 1 << 20
"""Scores that the torch path treats at a time."""


def density(scores: Tensor) -> Tensor:
    """Mean of σ(l) over all ``scores`` (any shape, at least one entry): a float32 scalar (float64 for float64 scores).

    Sums of a million scores each are added in float64.  Raises ``ValueError`` for no scores at all.

    >>> density(torch.zeros(3, 5))
    tensor(0.5000)
    """
    if not scores.numel():
        raise ValueError("There are no scores to average: give a tensor with at least one entry.")
    return _Density.apply(scores)


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        ctx.save_for_backward(scores)
        flat = scores.detach().reshape(-1).contiguous()
        if scores.is_meta:  # shapes without numbers
            total = flat.new_empty(())
        elif choose("density", scores) == "triton":
            from lens.kernels.gpu import density as gpu

            total = gpu.sigmoid_sum_kernel(flat)
        else:
            wide = torch.promote_types(flat.dtype, torch.float32)
            total = sum(chunk.to(wide).sigmoid().sum().double() for chunk in flat.split(CHUNK))
        return (total / len(flat)).to(torch.promote_types(scores.dtype, torch.float32))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (scores,) = ctx.saved_tensors
        flat = scores.reshape(-1).contiguous()
        out = torch.empty_like(flat)
        scale = grad / len(flat)  # stays on its device: no synchronization
        if scores.is_meta:
            return out.reshape(scores.shape)
        if choose("density", scores) == "triton":
            from lens.kernels.gpu import density as gpu

            gpu.sigmoid_slope_kernel(out, flat, scale)
        else:
            wide = torch.promote_types(flat.dtype, torch.float32)
            for target, chunk in zip(out.split(CHUNK), flat.split(CHUNK)):
                s = target if target.dtype == wide else torch.empty_like(target, dtype=wide)
                torch.sigmoid(chunk.to(wide), out=s)
                torch.ops.aten.sigmoid_backward.grad_input(scale.to(wide), s, grad_input=s)
                if s is not target:
                    target.copy_(s)
        return out.reshape(scores.shape)
