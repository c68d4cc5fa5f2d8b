"""Kernels whose size is that of the weights: masks, densities, gradient norms, updates."""

from __future__ import annotations

import torch
from torch import Tensor

from lens import kernels
from lens.kernels import Key, naive
from lens.scale.bench.work import Size, Workload, same


def mask_cases(size: Size, device, dtype) -> list[Workload]:
    shapes = size.sites()[::2]  # as many of each as the upper half of the layers has
    weights = [torch.randn(s, device=device, dtype=dtype) for s in shapes]
    scores = [torch.randn(s, device=device).requires_grad_() for s in shapes]
    upstream = [torch.randn(s, device=device, dtype=dtype) for s in shapes]
    ready: list[Tensor] = []
    count = sum(w.numel() for w in weights)
    item = weights[0].element_size()

    def forward(method, path=None):
        def run():
            with kernels.use(path):
                return [method(w, s, site) for site, (w, s) in enumerate(zip(weights, scores))]

        return run

    def both(method, path=None):
        def run():
            masked, arriving = forward(method, path)(), list(upstream)
            with kernels.use(path):
                while masked:  # as in training, a masked weight is given up once its gradient has come
                    torch.autograd.backward(masked.pop(), arriving.pop())
            for s in scores:  # or the next run would begin with them
                s.grad = None

        return run

    def backward():
        if not ready:
            ready.extend(forward(ours)())
        torch.autograd.grad(ready, scores, upstream, retain_graph=True)

    def ours(w, s, site):
        return kernels.mask(w, s, Key(seed=1, step=2, site=site))

    def formula(w, s, site):
        return w * (1 - naive.straight_through(naive.soft_mask(s, torch.rand_like(s)))).to(w.dtype)

    def published(w, s, site):
        return naive.published_mask(w, s).to(w.dtype)

    def check():
        w, s, g = weights[-1], scores[-1].detach().requires_grad_(), upstream[-1]
        with kernels.use("torch"):
            want = kernels.mask(w, s.detach(), Key(1, 2, 3))
        got = kernels.mask(w, s, Key(1, 2, 3))
        got.backward(g)
        exact = s.detach().double().requires_grad_()
        u = kernels.uniform(tuple(w.shape), Key(1, 2, 3), device).double()
        (w.double() * (1 - naive.soft_mask(exact, u))).backward(g.double())
        same("mask", got, want, 0)
        same("mask, gradient", s.grad, exact.grad, 1e-5)

    ways = {
        "lens": (ours, None),
        "chunked torch": (ours, "torch"),
        "naive": (formula, None),
        "torch.compile": (torch.compile(published), None),
        "as published": (published, None),
    }

    def case(part: str, moved: int, ways: dict) -> Workload:
        return Workload("mask", f"mask, {part}", f"{count / 1e6:.1f} M weights", count * moved, 0, ways, check)

    return [  # bytes a weight: W, l, out; W, l, G, ∂l
        case("forward and backward", 12 + 4 * item, {name: both(*way) for name, way in ways.items()}),
        case("forward", 4 + 2 * item, {name: forward(*way) for name, way in ways.items()}),
        case("backward", 8 + 2 * item, {"lens": backward}),
    ]


def density_case(size: Size, device, dtype) -> Workload:
    count = sum(a * b for a, b in size.sites()[::2])
    scores = torch.randn(count, device=device).requires_grad_()

    def way(method):
        return lambda: torch.autograd.grad(method(scores), scores)

    def plain(s):
        return s.sigmoid().mean()

    def check():
        exact = scores.detach().double().requires_grad_()
        plain(exact).backward()
        same("density", kernels.density(scores), plain(exact), 1e-6)
        same("density, gradient", way(kernels.density)()[0], exact.grad, 1e-5)

    ways = {"lens": way(kernels.density), "naive": way(plain), "torch.compile": way(torch.compile(plain))}
    work = f"{count / 1e6:.1f} M scores"
    return Workload("density", "density, forward and backward", work, 12 * count, 0, ways, check)


def norms_case(size: Size, device, dtype) -> Workload:
    shapes = size.sites()
    xs = [torch.randn(size.tokens, d_in, device=device, dtype=dtype) for d_in, _ in shapes]
    deltas = [torch.randn(size.tokens, d_out, device=device, dtype=dtype) for _, d_out in shapes]

    def dense():
        return torch.stack([naive.norm(x, delta) for x, delta in zip(xs, deltas)])

    def grams():
        return torch.stack([((x @ x.T) * (delta @ delta.T)).sum().sqrt() for x, delta in zip(xs, deltas)])

    def check():
        want = torch.stack([naive.norm(x.double(), delta.double()) for x, delta in zip(xs, deltas)])
        same("norms", kernels.norms(xs, deltas), want, 1e-5)

    compiled = torch.compile(naive.norm)
    ways = {
        "lens": lambda: kernels.norms(xs, deltas),
        "chunked torch": grams,
        "naive": dense,
        "torch.compile": lambda: torch.stack([compiled(x, delta) for x, delta in zip(xs, deltas)]),
    }
    read = sum(x.numel() + delta.numel() for x, delta in zip(xs, deltas)) * xs[0].element_size()
    flop = 2 * size.tokens**2 * sum(a + b for a, b in shapes)
    return Workload("norms", "gradient norms", f"{len(shapes)} sites, {size.tokens} tokens", read, flop, ways, check)


def update_case(size: Size, device, dtype) -> Workload:
    shapes = [(size.inner, size.width)] * size.layers
    weights = [torch.randn(s, device=device, dtype=dtype) for s in shapes]
    xs = [torch.randn(size.tokens, d_in, device=device, dtype=dtype) for d_in, _ in shapes]
    deltas = [torch.randn(size.tokens, d_out, device=device, dtype=dtype) for _, d_out in shapes]
    eta = 1e-3

    def written_out(update):
        def run():
            for weight, x, delta in zip(weights, xs, deltas):
                old = weight.clone()
                weight.copy_(update(weight, x, delta, eta))
                weight.copy_(old)

        return run

    def in_place():
        for weight, x, delta in zip(weights, xs, deltas):
            old = weight.clone()
            weight.addmm_(x.T, delta, alpha=eta)
            weight.copy_(old)

    def check():
        before = [weight.clone() for weight in weights]
        undo = kernels.update_(weights, xs, deltas, eta)
        want = naive.update(before[0].double(), xs[0].double(), deltas[0].double(), eta)
        same("update", weights[0], want, torch.finfo(dtype).eps)
        undo.undo()
        for weight, old in zip(weights, before):
            same("update, undone", weight, old, 0)

    ways = {
        "lens": lambda: kernels.update_(weights, xs, deltas, eta).undo(),
        "chunked torch": in_place,
        "naive": written_out(naive.update),
        "torch.compile": written_out(torch.compile(naive.update)),
    }
    count = sum(a * b for a, b in shapes)
    work, flop = f"{count / 1e6:.1f} M weights", 2 * size.tokens * count
    moved = 5 * count * weights[0].element_size()  # W and its copy out, W and its copy back
    return Workload("update", "low-rank update and undo", work, moved, flop, ways, check)
