"""How large is a gradient that nobody wrote down?  Norms, inner products and singular vectors of xᵀδ from x and δ.

The weight gradient of a linear map over n tokens is a sum of n outer products, xᵀδ = Σ_i x_iᵀδ_i, with x [n, d_in] and
δ [n, d_out].  One rule, ⟨aᵀb, cᵀd⟩ = (a·c)(b·d) for row vectors, turns everything about it into two small matrices of
dot products between tokens (Gram matrices):

    ⟨xᵀδ, yᵀε⟩ = Σ_ij (x_i·y_j)(δ_i·ε_j) = Σ (x yᵀ) ∘ (δ εᵀ),        ‖xᵀδ‖² = ⟨xᵀδ, xᵀδ⟩

GPT-2's FF2 at n = 8: 2 · 8² · (3072 + 768) operations and two 8 × 8 results, where the gradient takes
2 · 8 · 3072 · 768 operations and 9.4 MB.  With more tokens than the narrower side, n > min(d_in, d_out), the tables
turn: xᵀδ is then smaller than its wider factor, and is multiplied out.

A Gram matrix squares what it measures, so its small directions drown in rounding.  Singular vectors go another way:
thin QR of both factors, xᵀ = Q_x R_x and δᵀ = Q_δ R_δ, then the SVD of the small matrix R_x R_δᵀ between them.

Dot products are taken in float32, or in float64 for float64 factors; Gram matrices are combined, and triangular
factors computed, in float64.  All sites go into one launch on a GPU, and into one loop of numba's on a CPU while
prompts are short; torch stacks sites of equal shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lens.kernels.paths import choose

TOKENS = 64
"""Beyond so many tokens torch's matrix products overtake the compiled loop on a CPU."""

BATCH = 1 << 20
"""Numbers of one factor that the torch path stacks at a time: 4 MB, so they are still in cache when multiplied."""


@torch.no_grad()
def norms(xs: Sequence[Tensor], deltas: Sequence[Tensor]) -> Tensor:
    """‖xᵀδ‖ of every site, [S] float64: ``xs[s]`` [n_s, d_in_s] and ``deltas[s]`` [n_s, d_out_s], in one call.

    Sites may differ in every size and in dtype, and carry no gradient on.  ‖xᵀδ‖² = Σ (x xᵀ) ∘ (δ δᵀ), so where tokens
    cancel each other, the result is right to half the digits of ‖x‖‖δ‖.  Dot products of float32, float16 and bfloat16
    factors are float32: tokens longer than 1e19 overflow (the norm is inf or NaN), shorter than 1e-19 vanish.  Give
    float64 factors where that matters.  Raises ``ValueError`` where shapes, dtypes or devices do not fit.

    >>> norms([torch.eye(2, 3), torch.ones(4, 1)], [torch.ones(2, 8), torch.ones(4, 1)])
    tensor([4., 4.], dtype=torch.float64)
    """
    xs, deltas = _sites("x", xs, "delta", deltas)
    path = choose("norms", *xs, *deltas) if xs else "torch"
    if _gram(path, xs, deltas):
        return _compiled(path, xs, deltas, xs, deltas).clamp(min=0).sqrt()
    out = torch.empty(len(xs), dtype=torch.float64, device=xs[0].device if xs else None)
    for sites, x, delta in _batches(xs, deltas):
        if _many(x, delta):
            out[sites] = torch.linalg.vector_norm(x.mT @ delta, dim=(1, 2), dtype=torch.float64)
        else:
            out[sites] = _dot(x @ x.mT, delta @ delta.mT).clamp(min=0).sqrt()
    return out


@torch.no_grad()
def inner(xs: Sequence[Tensor], deltas: Sequence[Tensor], ys: Sequence[Tensor], epsilons: Sequence[Tensor]) -> Tensor:
    """⟨xᵀδ, yᵀε⟩ of every site, [S] float64: two gradients of one weight, over n and over m tokens.

    ``xs[s]`` [n, d_in], ``deltas[s]`` [n, d_out], ``ys[s]`` [m, d_in], ``epsilons[s]`` [m, d_out]; n and m may differ.
    ⟨xᵀδ, yᵀε⟩ = Σ (x yᵀ) ∘ (δ εᵀ).  Precision, range and errors are those of ``norms``.

    >>> inner([torch.eye(2)], [torch.eye(2)], [torch.ones(3, 2)], [torch.ones(3, 2)])
    tensor([6.], dtype=torch.float64)
    """
    xs, deltas = _sites("x", xs, "delta", deltas)
    ys, epsilons = _sites("y", ys, "epsilon", epsilons)
    if len(xs) != len(ys):
        raise ValueError(f"An inner product needs two gradients a site, and there are {len(xs)} and {len(ys)} of them.")
    for x, delta, y, epsilon in zip(xs, deltas, ys, epsilons):
        if x.shape[1] != y.shape[1] or delta.shape[1] != epsilon.shape[1]:
            raise ValueError(
                "An inner product needs two gradients of one weight, and got "
                f"{[x.shape[1], delta.shape[1]]} and {[y.shape[1], epsilon.shape[1]]}."
            )
    one_device(*xs, *ys)
    path = choose("norms", *xs, *deltas, *ys, *epsilons) if xs else "torch"
    if _gram(path, xs, deltas) and _gram(path, ys, epsilons):
        return _compiled(path, xs, deltas, ys, epsilons)
    out = torch.empty(len(xs), dtype=torch.float64, device=xs[0].device if xs else None)
    for sites, x, delta, y, epsilon in _batches(xs, deltas, ys, epsilons):
        if x.shape[1] < y.shape[1]:
            x, delta, y, epsilon = y, epsilon, x, delta
        if _many(x, delta):
            out[sites] = _dot(y @ (x.mT @ delta), epsilon)
        else:
            out[sites] = _dot(x @ y.mT, delta @ epsilon.mT)
    return out


@torch.no_grad()
def token_norms(xs: Sequence[Tensor], deltas: Sequence[Tensor]) -> list[Tensor]:
    """‖x_iᵀδ_i‖ = ‖x_i‖‖δ_i‖ of every token's own outer product: a list of S tensors [n_s] in float64.

    Shapes and errors are those of ``norms``.  Two thin reductions: torch computes them on every device.

    >>> token_norms([torch.eye(2)], [torch.tensor([[3.0, 4.0], [0.0, 1.0]])])
    [tensor([5., 1.], dtype=torch.float64)]
    """
    xs, deltas = _sites("x", xs, "delta", deltas)
    out = {}
    for sites, x, delta in _batches(xs, deltas):
        lengths = (torch.linalg.vector_norm(t, dim=-1, dtype=torch.float64) for t in (x, delta))  # [sites, n]
        out.update(zip(sites, math.prod(lengths).unbind()))
    return [out[site] for site in range(len(xs))]


def singular(x: Tensor, delta: Tensor, k: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The k leading singular triplets U [d_in, k], S [k], V [d_out, k] in float64: xᵀδ ≈ U diag(S) Vᵀ.

    x [n, d_in], δ [n, d_out]; by default all min(n, d_in, d_out) of them.  A factor with NaN or infinity gives NaN.
    Raises ``ValueError`` for a negative k and for shapes that do not fit.

    >>> u, s, v = singular(torch.ones(3, 2), torch.ones(3, 5), k=1)
    >>> u.shape, v.shape, round(float(s[0]) ** 2, 6)
    (torch.Size([2, 1]), torch.Size([5, 1]), 90.0)
    """
    if k is not None and k < 0:
        raise ValueError(f"k is {k}: ask for at least 0 singular triplets.")
    q_x, q_delta, core = _core(x, delta)
    if not bool(core.isfinite().all()):
        r, u, v = min(core.shape), *(torch.full_like(q, torch.nan) for q in (q_x, q_delta))
        return u[:, :r][:, :k], u.new_full((r,), torch.nan)[:k], v[:, :r][:, :k]
    u, s, vh = torch.linalg.svd(core, full_matrices=False)
    return q_x @ u[:, :k], s[:k], q_delta @ vh[:k].T


def singular_values(x: Tensor, delta: Tensor) -> Tensor:
    """All min(n, d_in, d_out) possibly non-zero singular values of xᵀδ, largest first, in float64; see ``singular``.

    >>> singular_values(torch.eye(2), torch.diag(torch.tensor([1.0, 2.0])))
    tensor([2., 1.], dtype=torch.float64)
    """
    core = _core(x, delta, "r")[2]
    if not bool(core.isfinite().all()):
        return core.new_full((min(core.shape),), torch.nan)
    return torch.linalg.svdvals(core)


def check_factors(name: str, x: Tensor, other: str, delta: Tensor) -> None:
    """``ValueError`` where x [n, d_in] and delta [n, d_out] do not belong to the same n tokens."""
    if x.ndim != 2 or delta.ndim != 2 or x.shape[0] != delta.shape[0]:
        raise ValueError(
            f"A site needs {name} [n, d_in] and {other} [n, d_out] over the same n tokens, and got {list(x.shape)} and "
            f"{list(delta.shape)}."
        )
    for factor, dtype in ((name, x.dtype), (other, delta.dtype)):
        if not dtype.is_floating_point:
            raise ValueError(f"Factors of a gradient are floating-point numbers, and {factor} is {dtype}.")


def one_device(*tensors: Tensor) -> None:
    """``ValueError`` where tensors of one call lie on different devices."""
    devices = {t.device for t in tensors}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise ValueError(f"The sites of one call must lie on one device, and these lie on {names}.")


def _sites(name: str, xs: Sequence[Tensor], other: str, deltas: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    xs, deltas = list(xs), list(deltas)
    if len(xs) != len(deltas):
        raise ValueError(f"Each site has one {name} and one {other}, and there are {len(xs)} and {len(deltas)}.")
    for x, delta in zip(xs, deltas):
        check_factors(name, x, other, delta)
    one_device(*xs, *deltas)
    return xs, deltas


def _batches(*lists: list[Tensor]) -> Iterator[tuple]:
    """Sites of equal shapes together: (their indices, one stacked float32 or float64 tensor [sites, n, d] a list)."""
    groups: dict[tuple, list[int]] = {}
    for site, factors in enumerate(zip(*lists)):
        groups.setdefault(tuple(t.shape for t in factors), []).append(site)
    for shapes, sites in groups.items():
        step = max(1, BATCH // max(1, *(math.prod(shape) for shape in shapes)))
        for i in range(0, len(sites), step):
            part = sites[i : i + step]
            stacks = [torch.stack([factors[site] for site in part]) for factors in lists]
            wide = torch.float64 if any(t.dtype == torch.float64 for t in stacks) else torch.float32
            yield part, *(t.to(wide) for t in stacks)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ a ∘ b of each site, [sites] in float64, for a and b [sites, ·, ·]."""
    return (a.double() * b).sum((1, 2))


def _many(x: Tensor, delta: Tensor) -> bool:
    """Is xᵀδ, for x [sites, n, d_in], smaller than its wider factor?"""
    return x.shape[1] > min(x.shape[2], delta.shape[2])


def _gram(path: str, xs: list[Tensor], deltas: list[Tensor]) -> bool:
    """Does ``path`` have a kernel of its own, and are these few enough tokens for it?

    On a CPU: so few that calls, not arithmetic, would take torch's time.  On a GPU: no more than a gradient's narrower
    side, beyond which the gradient itself is smaller and is multiplied out.
    """
    if path == "numba":
        return all(len(x) <= TOKENS for x in xs)
    return path == "triton" and all(len(x) <= min(x.shape[1], delta.shape[1]) for x, delta in zip(xs, deltas))


def _compiled(path: str, *lists: list[Tensor]) -> Tensor:
    """⟨xᵀδ, yᵀε⟩ of every site, in one call to numba or one launch of Triton."""
    if path == "numba":
        from lens.kernels.factors_cpu import inner_products

        return inner_products(*lists)
    from lens.kernels.gpu.factors import gram_kernel

    if len({t.dtype for factors in lists for t in factors}) > 1:  # one launch reads one type of number
        lists = tuple([t.float() for t in factors] for factors in lists)
    return gram_kernel(*lists)


def _core(x: Tensor, delta: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor, Tensor]:
    """Q_x, Q_δ and R_x R_δᵀ, in float64; in the mode "r" without the two Q, which are empty."""
    check_factors("x", x, "delta", delta)
    q_x, r_x = torch.linalg.qr(x.double().T, mode)
    q_delta, r_delta = torch.linalg.qr(delta.double().T, mode)
    return q_x, q_delta, r_x @ r_delta.T
