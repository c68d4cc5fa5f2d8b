"""Which weights take part?  A random binary mask of one weight matrix, with a gradient for its scores.

Every weight has a score l.  With one uniform number u its mask is

    s = σ((l + logit u)/τ)        soft, between 0 and 1
    m = 1[s > ½]                  hard: what forward uses; backward pretends that it was s (straight-through)

so m = 1 with probability σ(l), for every temperature τ.  m = 1 marks the subnetwork; the *remaining* model keeps
W ∘ (1 − m).  For an incoming gradient G = ∂ℓ/∂(masked W):

    ∂ℓ/∂l = ∓ G ∘ W ∘ s(1 − s)/τ        (− for the remaining weights, + for the subnetwork)

Only W, l and the result touch memory, 12 bytes a weight in float32: the noise is drawn where it is used and drawn again
in backward (``noise.py``).

**The same bits everywhere.**  With u = a/2²⁴ the decision s > ½ reads a > (2²⁴ − a)·e⁻ˡ.  No library's exponential
is used for it, since two of them differ in the last bit: ``exp_minus`` is a fixed sequence of float32 additions and
multiplications, each rounded on its own, the same in torch, numba and Triton.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lens.kernels import naive
from lens.kernels.noise import Key, odd, words
from lens.kernels.paths import choose

CHUNK = 1 << 18
"""Weights that the torch path treats at a time."""

PARTS = {"remaining": (1, -1), "subnetwork": (0, 1)}
"""What is kept: base + sign · m."""


def mask(
    weight: Tensor, scores: Tensor, key: Key | None, *, tau: float = 1.0, part: str = "remaining", hard: bool = True
) -> Tensor:
    """W ∘ (1 − m), or W ∘ m for ``part="subnetwork"``, with m drawn from ``scores`` under ``key``.

    ``weight`` [rows, columns]; ``scores`` l of the same shape, or [rows, 1] to keep or remove whole rows (neurons:
    one score for all weights that leave it).  ``key``: seed, step and site; None draws nothing and uses m = 1[l > 0],
    s = σ(l/τ).  ``hard=False`` uses s itself in place of m.  The result has weight's dtype; scores and weight receive
    gradients where they require them.

    Raises ``ValueError`` where the shapes do not fit, τ is not positive, or the key or part is not one.

    >>> w, l = torch.ones(2, 3), torch.full((2, 3), 100.0)
    >>> mask(w, l, Key(seed=0)).sum(), mask(w, l, Key(seed=0), part="subnetwork").sum()
    (tensor(0.), tensor(6.))
    """
    if weight.ndim != 2 or scores.shape not in (weight.shape, (len(weight), 1)):
        raise ValueError(
            f"The weight is {list(weight.shape)} and the scores are {list(scores.shape)}: give a matrix and one score "
            "for each of its entries, or for each row [rows, 1]."
        )
    check_choice(tau, part)
    if key is None:
        soft = torch.sigmoid(scores / tau)
        base, sign = PARTS[part]
        m = soft + ((scores > 0).to(soft) - soft).detach() if hard else soft
        return (weight * (base + sign * m)).to(weight.dtype)
    if not isinstance(key, Key):
        raise ValueError(f"The key is {key!r}: give a Key of seed, step and site, or None.")
    key = key.check()
    if scores.shape != weight.shape:  # neurons: the mask of one column, spread over the row
        return weight * mask(torch.ones_like(scores), scores, key, tau=tau, part=part, hard=hard).to(weight.dtype)
    return _Mask.apply(weight, scores, key, float(tau), *PARTS[part], hard)


def check_choice(tau: float, part: str) -> None:
    """``ValueError`` where the part or the temperature is none."""
    if part not in PARTS:
        raise ValueError(f"There is no part {part!r}: choose one of {', '.join(PARTS)}.")
    if not tau > 0:
        raise ValueError(f"The temperature τ is {tau}: give a positive number.")


def sample(scores: Tensor, key: Key | None = None) -> Tensor:
    """m itself, bool [rows, columns]: drawn under ``key``, or 1[l > 0] without one.

    >>> bool(sample(torch.tensor([[9.0]]), Key(seed=3)))
    True
    """
    with torch.no_grad():
        return mask(torch.ones_like(scores), scores, key, part="subnetwork") == 1


class _Mask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, scores, key, tau, base, sign, hard):
        ctx.save_for_backward(weight, scores)
        ctx.rest = key, tau, base, sign, hard
        return _entries("hard" if hard else "soft", weight, None, scores, key, tau, base, sign)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        weight, scores = ctx.saved_tensors
        key, tau, base, sign, hard = ctx.rest
        d_weight = d_scores = None
        if ctx.needs_input_grad[0]:  # ∂ℓ/∂W = G ∘ (1 − m): the same mask, of G
            d_weight = _entries("hard" if hard else "soft", grad, None, scores, key, tau, base, sign).to(weight.dtype)
        if ctx.needs_input_grad[1]:
            d_scores = _entries("slope", weight, grad, scores, key, tau, 0, sign)
        return d_weight, d_scores, None, None, None, None, None


def _entries(entry: str, weight, grad, scores, key: Key, tau: float, base: int, sign: int) -> Tensor:
    """weight ∘ (base + sign · entry) ∘ grad for the entries m (hard), s (soft) or s(1 − s)/τ (slope)."""
    out = torch.empty(weight.shape, dtype=(weight if grad is None else scores).dtype, device=weight.device)
    fill_entries(out, entry, weight, grad, scores, key, tau, base, sign)
    return out


def fill_entries(out, entry: str, weight, grad, scores, key: Key, tau: float, base: int, sign: int) -> None:
    """``_entries`` into ``out`` [rows, columns]."""
    if not out.numel() or out.is_meta:  # shapes without numbers
        return
    path = choose("mask", weight, scores)
    if path == "numba":
        from lens.kernels.masking_cpu import fill
    elif path == "triton":
        from lens.kernels.gpu.masking import fill
    else:
        fill = _fill
    fill(out, entry, weight, grad, scores, key, tau, base, sign)


def _fill(out, entry, weight, grad, scores, key, tau, base, sign) -> None:
    rows, columns = out.shape
    step = max(1, CHUNK // columns)
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        w, score = weight[block], scores[block]
        wide = torch.promote_types(torch.promote_types(w.dtype, score.dtype), torch.float32)
        a = odd(words(range(block.start, block.stop), columns, key, out.device))
        if entry == "hard":
            value = (a > (2.0**24 - a) * exp_minus(score)).to(wide)
            value = torch.where(score.isnan(), score.to(wide), value)
        else:
            value = naive.soft_mask(score.to(wide), a.to(wide) / 2.0**24, tau)
            value = value * (1 - value) / tau if entry == "slope" else value
        value = w.to(wide) * (base + sign * value)
        out[block] = value if grad is None else value * grad[block].to(wide)


def exp_minus(scores: Tensor) -> Tensor:
    """e⁻ˡ in float32, with l cut to ±60, by a fixed sequence of roundings: 2ⁿ · polynomial(r), −l = n log 2 + r."""
    x = -scores.float().clamp(-60, 60)
    n = torch.floor(x * 1.44269504 + 0.5)
    r = (x - n * 0.693359375) - n * -2.12194440e-4
    p = torch.full_like(r, 1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + c
    return ((p * r) * r + r + 1) * ((n.int() + 127) << 23).view(torch.float32)
