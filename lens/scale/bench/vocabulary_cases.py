"""Kernels whose size is that of the vocabulary: projection and divergences."""

from __future__ import annotations

import math
from unittest.mock import patch

import torch
from torch.utils.checkpoint import checkpoint

from lens import kernels
from lens.kernels import naive, paths, vocabulary
from lens.scale.bench.work import Size, Workload, Wrong, same


def project_case(size: Size, device, dtype) -> Workload:
    unembedding = 0.05 * torch.randn(size.vocabulary, size.width, device=device, dtype=dtype)
    vectors = torch.randn(size.vectors, size.width, device=device, dtype=dtype)
    tokens = torch.randint(size.vocabulary, (size.vectors,), device=device)
    k = 10

    def read(v, t):
        z = naive.logits(v, unembedding)
        return z.topk(k), naive.rank(z, t), z.logsumexp(-1)

    def chunked():
        step = max(1, kernels.CHUNK_BYTES[device.type] // (size.vocabulary * vectors.element_size()))
        return [read(v, t) for v, t in zip(vectors.split(step), tokens.split(step))]

    def one_by_one():
        for v, t in zip(vectors, tokens.tolist()):
            order = (unembedding @ v).sort(descending=True).indices
            order[:k], order.sort().values, (order == t).nonzero()

    def ours():
        return kernels.project(vectors, unembedding, k=k, tokens=tokens, log_normalizer=True)

    def check():
        z, got = naive.logits(vectors.double(), unembedding.double()), ours()
        tolerance = 4 * torch.finfo(dtype).eps
        same("project, logits", got["logits"], z.topk(k).values, tolerance)
        same("project, log-sum-exp", got["log_normalizer"], z.logsumexp(-1), tolerance)
        own = z.gather(1, tokens[:, None])
        slack = tolerance * z.abs().max()
        low, high = (z > own + slack).sum(1), (z > own - slack).sum(1)
        if not bool(((low <= got["ranks"]) & (got["ranks"] <= high)).all()):
            raise Wrong("'project' gives ranks that float64 rules out")

    def read_again():
        with patch.object(vocabulary, "SHORT", 0):
            ours()

    compiled = torch.compile(read)
    ways = {
        "lens": ours,
        "product alone": lambda: vectors @ unembedding.T,
        "chunked torch": chunked,
        "naive": lambda: read(vectors, tokens),
        "torch.compile": lambda: compiled(vectors, tokens),
        "as published": one_by_one,
    }
    if device.type == "cuda" and dtype in paths.HALF and size.width < vocabulary.SHORT:
        ways["product, then read"] = read_again
    flop = 2 * size.vectors * size.vocabulary * size.width
    work = f"{size.vectors} vectors, {size.vocabulary} words, top {k}, rank, log-sum-exp"
    moved = vectors.element_size() * (unembedding.numel() + vectors.numel())
    return Workload("project", "projection", work, moved, flop, ways, check, once=("as published",))


def kl_cases(size: Size, device, dtype) -> list[Workload]:
    unembedding = 0.05 * torch.randn(size.vocabulary, size.width, device=device, dtype=dtype)
    hidden = torch.randn(size.vectors, size.width, device=device, dtype=dtype).requires_grad_()
    reference = (hidden + torch.randn_like(hidden)).detach()
    step = max(1, kernels.CHUNK_BYTES[device.type] // (size.vocabulary * hidden.element_size()))

    def case(name, ours, formula, products):
        def gradient(method):
            return lambda: torch.autograd.grad(method(hidden, unembedding, reference), hidden)

        def plain(h, e, r):
            return formula(h, e, r).mean()

        def chunked(h, e, r):
            parts = zip(h.split(step), r.split(step))
            return sum(checkpoint(formula, a, e, b, use_reentrant=False).sum() for a, b in parts) / len(h)

        def check():
            h = hidden.detach().double().requires_grad_()
            want = plain(h, unembedding.double(), reference.double())
            want.backward()
            tolerance, terms = 64 * torch.finfo(dtype).eps, math.log(size.vocabulary)
            arguments = hidden, unembedding, reference
            same(name, ours(*arguments) + terms, want + terms, tolerance)  # a small difference of terms of that size
            same(f"{name}, gradient", gradient(ours)()[0], h.grad, tolerance, gradient(plain)()[0])

        ways = {"lens": ours, "chunked torch": chunked, "naive": plain, "torch.compile": torch.compile(plain)}
        flop = 2 * products * size.vectors * size.vocabulary * size.width
        moved = hidden.element_size() * (unembedding.numel() + 2 * hidden.numel())
        work, both = f"{size.vectors} positions, {size.vocabulary} words", {n: gradient(w) for n, w in ways.items()}
        return Workload("kl", f"{name}, forward and backward", work, moved, flop, both, check)

    return [
        case("KL(uniform ‖ p)", lambda h, e, r: kernels.kl_uniform(h, e), lambda h, e, r: naive.kl_uniform(h, e), 2),
        case("KL(reference ‖ p)", kernels.kl_reference, naive.kl_reference, 3),
    ]
