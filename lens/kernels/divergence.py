"""How far is a prediction from another?  KL(q ‖ p) over the vocabulary and its gradient, a chunk of logits at a time.

With z = h Eᵀ + b (and a soft cap, if any), p = softmax(z), and q either uniform or the softmax of a reference's z:

    KL(q ‖ p) = Σ q (log q − log p),     log p = z − log Σ eᶻ
    ∂/∂z = p − q,     ∂/∂h = (p − q) E,     ∂/∂E = (p − q)ᵀ h,     ∂/∂b = Σ_rows (p − q)

For uniform q the first line is log Σ eᶻ − mean(z) − log V.  A soft cap multiplies ∂/∂z by 1 − (z/c)², z the capped one.

Autograd would keep z, log p and p of all rows for the way back: [N, V] three times.  But a row's loss depends on its
own h alone, so ∂/∂h is known in the forward pass but for one factor, the gradient that will arrive at that row's loss.
So a chunk of logits is made, its losses are taken, z is overwritten by p − q, multiplied by E, and the buffer is free
for the next chunk; what waits for the backward pass is [N, d].  Only where E or b learns is z made a second time,
because (p − q)ᵀ h sums over rows and needs that factor first.

The reference's logits need a second buffer: p − q wants both z at the same place, and both normalizers before it.  The
two share the budget of one chunk, half the rows in each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from lens.kernels.logits import BLOCK, back, blocks, buffers, check, down, mass, statistics, together
from lens.kernels.paths import choose


def kl_uniform(
    hidden: Tensor,
    unembedding: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(uniform ‖ p) = log Σ eᶻ − mean(z) − log V in nats, z = h Eᵀ: how far a prediction is from knowing nothing.

    ``hidden`` [N, d] are final hidden states, which ln_f has seen; ``unembedding`` is E [V, d], ``bias`` [V],
    ``softcap`` the c of c·tanh(z/c).  ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` (a loss for each row).
    The result is float32, or float64 of float64; differentiable in hidden, unembedding and bias, once.  No rows: the
    mean is NaN and the sum 0, as everywhere in torch.  A NaN or +∞ among a row's logits makes its loss NaN, a −∞ makes
    it +∞.

    Raises ``ValueError`` for shapes, dtypes or devices that do not fit together, or another reduction.

    >>> kl_uniform(torch.zeros(3, 2), torch.randn(5, 2)).abs().item() < 1e-6
    True
    """
    return _divergence(hidden, unembedding, bias, softcap, None, reduction)


def kl_reference(
    hidden: Tensor,
    unembedding: Tensor,
    reference: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(q ‖ p) = Σ q (log q − log p) in nats, q of ``reference``, p of ``hidden``: what a change did to a prediction.

    ``reference`` [N, d] are the final hidden states of the unmodified model.  q is a constant: no gradient goes through
    it, to E neither.  Everything else is as in ``kl_uniform``.

    Raises ``ValueError`` as ``kl_uniform`` does, and where ``reference`` requires grad or has another shape than
    ``hidden``.

    >>> E, h = torch.randn(5, 2), torch.randn(3, 2)
    >>> kl_reference(h, E, h.clone(), reduction="none").abs().max().item() < 1e-6
    True
    """
    if reference.requires_grad:
        raise ValueError("The reference is a constant and requires grad here: pass reference.detach().")
    if reference.shape != hidden.shape:
        raise ValueError(
            f"The reference must be shaped like the hidden states, {list(hidden.shape)}, not {list(reference.shape)}."
        )
    check(reference, unembedding, bias, "reference states")
    return _divergence(hidden, unembedding, bias, softcap, reference, reduction)


def _divergence(hidden, unembedding, bias, softcap, reference, reduction) -> Tensor:
    check(hidden, unembedding, bias, "hidden states")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"There is no reduction {reduction!r}: choose mean, sum or none.")
    losses = _Divergence.apply(hidden, unembedding, bias, softcap, reference, torch.is_grad_enabled())
    return losses if reduction == "none" else getattr(losses, reduction)()


class _Divergence(torch.autograd.Function):
    """The loss of each row, [N].  The reductions are torch's, so the gradient arrives here as one number a row."""

    @staticmethod
    def forward(ctx, hidden, unembedding, bias, softcap, reference, training):
        ctx.softcap, ctx.path = softcap, choose("kl", hidden, unembedding)
        ctx.second = training and any(ctx.needs_input_grad[1:3])  # does E or b learn?
        slope = hidden.new_empty(hidden.shape) if training and ctx.needs_input_grad[0] else None
        losses = hidden.new_empty(len(hidden), dtype=statistics(hidden.dtype))
        for rows, loss, z in _chunks(ctx.path, hidden, unembedding, bias, softcap, reference, slope is not None):
            losses[rows] = loss
            if slope is not None:
                slope[rows] = back(z, unembedding)  # ∂loss/∂h, [rows, d]
        ctx.save_for_backward(slope, *((hidden, unembedding, bias, reference) if ctx.second else ()))
        return losses

    @staticmethod
    def backward(ctx, arriving):  # [N]
        if torch.is_grad_enabled():
            raise RuntimeError(
                "A KL divergence over the vocabulary is differentiable once: leave out create_graph=True, or take "
                "lens.kernels.naive's."
            )
        slope, *inputs = ctx.saved_tensors
        found = [None] * 6
        if ctx.needs_input_grad[0]:
            found[0] = (arriving[:, None] * slope).to(slope.dtype)
        if ctx.second:
            hidden, unembedding, bias, reference = inputs
            if ctx.needs_input_grad[1]:
                found[1] = torch.zeros_like(unembedding)
            if ctx.needs_input_grad[2]:
                found[2] = torch.zeros_like(bias)
            for rows, _, z in _chunks(ctx.path, hidden, unembedding, bias, ctx.softcap, reference, True):
                if found[1] is not None:
                    down(z, arriving[rows, None] * hidden[rows], found[1])
                if found[2] is not None:
                    found[2] += z.T @ arriving[rows].to(z.dtype)
        return tuple(found)


def _chunks(path, hidden, unembedding, bias, softcap, reference, gradient) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(which rows, their losses, a buffer [rows, V] that holds ∂loss/∂z where ``gradient``), chunk after chunk."""
    losses = _losses_triton if path == "triton" else _losses_torch
    held = buffers(len(hidden), unembedding, 1 if reference is None else 2)
    for start in range(0, len(hidden), len(held[0])):
        rows = slice(start, start + len(held[0]))
        z = [buffer[: len(hidden[rows])] for buffer in held]  # hidden's and, where there is one, the reference's
        fillings = [
            blocks(states[rows], unembedding, bias, softcap, out) for states, out in zip((hidden, reference), z)
        ]
        yield rows, losses(z, fillings, softcap, gradient), z[0]


def _losses_torch(logits: list[Tensor], fillings: list[Iterator[Tensor]], softcap, gradient: bool) -> Tensor:
    """Σ q (log q − log p) of each row of ``logits``: z and, where q is not uniform, r; z ← ∂/∂z where ``gradient``."""
    if logits[0].is_meta:  # shapes without numbers: all products are made, and one block stands for every other
        for _ in chain(*fillings):
            pass
        logits = [part[:, :BLOCK] for part in logits]
        fillings = [iter([part]) for part in logits]
    z, *r = logits
    normalizer, *normalizer_r = (_normalizer(filling) for filling in fillings)
    losses = torch.zeros_like(normalizer[0][:, 0])
    log_q, q = -math.log(z.shape[1]), 1 / z.shape[1]
    for block, *block_r in zip(*(part.split(BLOCK, 1) for part in logits)):
        log_p = _log_softmax(block, *normalizer)
        if r:
            log_q = _log_softmax(block_r[0], *normalizer_r[0])
            q = log_q.exp()
        terms = q * (log_q - log_p)
        losses += (terms.masked_fill_(q == 0, 0) if r else terms).sum(1)  # 0 · log 0 is 0
        if gradient:
            slope = log_p.exp_().sub_(q)
            block.copy_(slope if softcap is None else slope * (1 - (block / softcap) ** 2))
    return losses


def _normalizer(filling: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """M and log Σ eᶻ⁻ᴹ, [rows, 1] each; a block adds its share of the sum while it is in the cache."""
    m, s = zip(*(mass(block)[:2] for block in filling))
    top, weight = together(torch.stack(m, 1), torch.stack(s, 1))
    return top, weight.sum(1, keepdim=True).log()


def _log_softmax(block: Tensor, top: Tensor, log_sum: Tensor) -> Tensor:
    """z − M is exact where it matters, near the top, and so it comes first."""
    return (block - top).sub_(log_sum)


def _losses_triton(logits: list[Tensor], fillings: list[Iterator[Tensor]], softcap, gradient: bool) -> Tensor:
    from lens.kernels.gpu import divergence as gpu

    for filling in fillings:
        for _ in filling:  # the whole product: a GPU's blocks are as wide as the vocabulary
            pass
    z, *r = logits
    return gpu.divergence_kernel(z, r[0] if r else None, softcap, gradient)
