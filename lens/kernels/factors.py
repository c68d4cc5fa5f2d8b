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
factors computed, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lens.kernels.paths import choose

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
    if xs and choose("norms", *xs, *deltas) == "triton":
        return _gram(xs, deltas, xs, deltas).clamp(min=0).sqrt()
    out = torch.empty(len(xs), dtype=torch.float64, device=xs[0].device if xs else None)
    many, few = _by_size(xs, deltas)
    for site in many:
        out[site] = torch.linalg.vector_norm(_wide(xs[site].mT) @ _wide(deltas[site]), dtype=torch.float64)
    thin = [xs[site] for site in few] + [deltas[site] for site in few]
    out[few] = _dots(_products(thin, thin)).clamp(min=0).sqrt()
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
    if xs and choose("norms", *xs, *deltas, *ys, *epsilons) == "triton":
        return _gram(xs, deltas, ys, epsilons)
    out = torch.empty(len(xs), dtype=torch.float64, device=xs[0].device if xs else None)
    many, few = _by_size(xs, deltas, ys)
    for site in many:
        x, delta, y, epsilon = (_wide(factors[site]) for factors in (xs, deltas, ys, epsilons))
        if len(x) < len(y):
            x, delta, y, epsilon = y, epsilon, x, delta
        out[site] = ((y @ (x.mT @ delta)).double() * epsilon).sum()
    left = [xs[site] for site in few] + [deltas[site] for site in few]
    right = [ys[site] for site in few] + [epsilons[site] for site in few]
    out[few] = _dots(_products(left, right))
    return out


@torch.no_grad()
def token_norms(xs: Sequence[Tensor], deltas: Sequence[Tensor]) -> list[Tensor]:
    """‖x_iᵀδ_i‖ = ‖x_i‖‖δ_i‖ of every token's own outer product: a list of S tensors [n_s] in float64.

    Shapes and errors are those of ``norms``.  Two thin reductions: torch computes them on every device.

    >>> token_norms([torch.eye(2)], [torch.tensor([[3.0, 4.0], [0.0, 1.0]])])
    [tensor([5., 1.], dtype=torch.float64)]
    """
    xs, deltas = _sites("x", xs, "delta", deltas)
    length = torch.linalg.vector_norm
    return [length(_wide(x), dim=1).double() * length(_wide(delta), dim=1) for x, delta in zip(xs, deltas)]


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
    core = _core(x, delta)[2]
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


def _by_size(xs: list[Tensor], deltas: list[Tensor], ys: list[Tensor] | None = None) -> tuple[list[int], list[int]]:
    """Sites of many tokens, where xᵀδ is smaller than its wider factor, and sites of few."""
    many: list[int] = []
    few: list[int] = []
    for site, (x, delta, y) in enumerate(zip(xs, deltas, ys or xs)):
        (n, d_in), (_, d_out), (m, _) = x.shape, delta.shape, y.shape
        (many if max(n, m) > min(d_in, d_out) else few).append(site)
    return many, few


def _products(lefts: list[Tensor], rights: list[Tensor]) -> list[Tensor]:
    """a bᵀ [n, m] of each pair; pairs of equal shapes, of whatever sites, are multiplied in one batch."""
    groups: dict[tuple, list[int]] = {}
    for i, (a, b) in enumerate(zip(lefts, rights)):
        groups.setdefault((a.shape, b.shape), []).append(i)
    out = list(lefts)
    for members in groups.values():
        step = max(1, BATCH // max(1, lefts[members[0]].numel(), rights[members[0]].numel()))
        for start in range(0, len(members), step):
            part = members[start : start + step]
            a = _wide(torch.stack([lefts[i] for i in part]))
            b = a if rights is lefts else _wide(torch.stack([rights[i] for i in part]))
            for i, product in zip(part, (a @ b.mT).unbind()):
                out[i] = product
    return out


def _dots(tables: list[Tensor]) -> Tensor:
    """Σ K ∘ L of each site, [S] in float64, for K of every site and then L of every site."""
    count = len(tables) // 2
    out = [torch.empty(0, dtype=torch.float64)] * count
    groups: dict[tuple, list[int]] = {}
    for site in range(count):
        groups.setdefault(tables[site].shape, []).append(site)
    for sites in groups.values():
        k, other = (torch.stack([tables[offset + site] for site in sites]).double() for offset in (0, count))
        for site, total in zip(sites, (k * other).sum((1, 2)).unbind()):
            out[site] = total
    return torch.stack(out) if out else torch.empty(0, dtype=torch.float64)


def _wide(t: Tensor) -> Tensor:
    """Half precision as float32."""
    return t if t.dtype == torch.float64 else t.float()


def _gram(xs: list[Tensor], deltas: list[Tensor], ys: list[Tensor], epsilons: list[Tensor]) -> Tensor:
    from lens.kernels.gpu import factors as gpu

    lists = xs, deltas, ys, epsilons
    if len({t.dtype for factors in lists for t in factors}) > 1:  # one launch reads one type of number
        lists = tuple([t.float() for t in factors] for factors in lists)
    return gpu.gram_kernel(*lists)


def _core(x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q_x, Q_δ and R_x R_δᵀ, in float64."""
    check_factors("x", x, "delta", delta)
    q_x, r_x = torch.linalg.qr(x.double().T)
    q_delta, r_delta = torch.linalg.qr(delta.double().T)
    return q_x, q_delta, r_x @ r_delta.T
