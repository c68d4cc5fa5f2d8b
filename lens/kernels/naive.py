"""What should a kernel compute?  Each operation as its formula reads, in plain torch, whatever it costs.

These are the references of the tests (in float64), the baselines of the benchmark, and the first version in the
chapter *Writing the kernels*.  They hold every intermediate: the dense gradient, all logits, all noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def gradient(x: Tensor, delta: Tensor) -> Tensor:
    """∂ℓ/∂W = xᵀδ [d_in, d_out] for x [n, d_in] and δ [n, d_out]."""
    return x.T @ delta


def norm(x: Tensor, delta: Tensor) -> Tensor:
    """‖xᵀδ‖, from the dense gradient."""
    return gradient(x, delta).norm()


def inner(x: Tensor, delta: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
    """⟨xᵀδ, yᵀε⟩, from two dense gradients."""
    return (gradient(x, delta) * gradient(y, epsilon)).sum()


def update(weight: Tensor, x: Tensor, delta: Tensor, eta: float) -> Tensor:
    """W + η xᵀδ, from the dense gradient."""
    return weight + eta * gradient(x, delta)


def logits(
    vectors: Tensor,
    unembedding: Tensor,
    norm: Callable[[Tensor], Tensor] | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """norm(v) Eᵀ + b, all [N, V] of them, with Gemma's soft cap c·tanh(z/c) if any."""
    z = (vectors if norm is None else norm(vectors)) @ unembedding.T
    z = z if bias is None else z + bias
    return z if softcap is None else softcap * torch.tanh(z / softcap)


def entropy(z: Tensor) -> Tensor:
    """−Σ p log p of p = softmax(z), in nats."""
    return -(z.softmax(-1) * z.log_softmax(-1)).sum(-1)


def rank(z: Tensor, tokens: Tensor) -> Tensor:
    """How many logits of a row are strictly larger than the given token's."""
    return (z > z.gather(-1, tokens[:, None])).sum(-1)


def soft_mask(scores: Tensor, u: Tensor, tau: float = 1.0) -> Tensor:
    """s = σ((l + logit u)/τ): one uniform number per score, since the difference of two Gumbels is logistic."""
    return torch.sigmoid((scores + torch.log(u) - torch.log1p(-u)) / tau)


def straight_through(soft: Tensor) -> Tensor:
    """1[s > ½] on the way up, s on the way down."""
    return soft + ((soft > 0.5).to(soft.dtype) - soft).detach()


def published_mask(weight: Tensor, scores: Tensor, tau: float = 1.0, eps: float = 1e-10) -> Tensor:
    """W ∘ (1 − m) as the paper writes it: s = σ((l − log(log U₁ / log U₂))/τ), with torch's own noise."""
    u1, u2 = torch.empty_like(scores).uniform_(eps, 1 - eps), torch.empty_like(scores).uniform_(eps, 1 - eps)
    soft = torch.sigmoid((scores - torch.log(torch.log(u1) / torch.log(u2))) / tau)
    return weight * (1 - straight_through(soft))


def kl_uniform(hidden: Tensor, unembedding: Tensor) -> Tensor:
    """KL(uniform ‖ p) = logsumexp(z) − mean(z) − log V of each row, with z = h Eᵀ."""
    z = hidden @ unembedding.T
    return z.logsumexp(-1) - z.mean(-1) - math.log(z.shape[-1])


def kl_reference(hidden: Tensor, unembedding: Tensor, reference: Tensor) -> Tensor:
    """KL(q ‖ p) of each row, with p = softmax(h Eᵀ) and q = softmax(h_ref Eᵀ)."""
    log_q = (reference @ unembedding.T).log_softmax(-1)
    log_p = (hidden @ unembedding.T).log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)
