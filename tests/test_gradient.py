"""FactoredGradient: norm, rank and singular vectors of xᵀδ from its factors, against the dense matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lens
from lens import FactoredGradient
from lens.data.text import heldout

EPS = torch.finfo(torch.float64).eps


def factors(n: int, d_in: int, d_out: int, rank: int | None = None, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d_in, generator=generator, dtype=torch.float64)
    delta = torch.randn(n, d_out, generator=generator, dtype=torch.float64)
    if rank is not None:  # the rows of x from a space of that dimension
        x = torch.randn(n, rank, generator=generator, dtype=torch.float64) @ x[:rank]
    return x, delta


SHAPES = [(1, 7, 5), (4, 7, 5), (5, 5, 5), (6, 7, 5), (20, 7, 5), (3, 40, 11), (2, 1, 9), (30, 64, 48)]


@pytest.mark.parametrize("n, d_in, d_out", SHAPES)
def test_norm_and_singular_values_are_the_dense_matrixs(error, n, d_in, d_out):
    x, delta = factors(n, d_in, d_out)
    g, dense = FactoredGradient(x, delta), (x.T @ delta).numpy()
    want = np.linalg.svd(dense, compute_uv=False)[: min(n, d_in, d_out)]
    assert error(g.dense(), dense) <= 8 * EPS
    assert error(g.norm(), np.linalg.norm(dense)) <= 32 * EPS
    assert error(g.singular_values(), want) <= 64 * EPS
    assert g.rank() == np.linalg.matrix_rank(dense) == min(n, d_in, d_out)
    assert g.shape == dense.shape and len(g) == n


@pytest.mark.parametrize("n, d_in, d_out", SHAPES)
def test_svd_rebuilds_the_gradient_from_orthonormal_vectors(error, n, d_in, d_out):
    g = FactoredGradient(*factors(n, d_in, d_out))
    u, s, v = g.svd()
    r = min(n, d_in, d_out)
    assert u.shape == (d_in, r) and s.shape == (r,) and v.shape == (d_out, r)
    assert error(u * s @ v.T, g.dense()) <= 64 * EPS
    for basis in (u, v):
        assert error(basis.T @ basis, torch.eye(r)) <= 64 * EPS
    assert bool((s[:-1] >= s[1:]).all())


def test_the_k_leading_triplets_are_the_best_rank_k_approximation(error):
    g = FactoredGradient(*factors(9, 30, 20))
    u, s, v = g.svd(k=4)
    everything = np.linalg.svd(g.dense().numpy(), compute_uv=False)
    assert u.shape == (30, 4) and v.shape == (20, 4)
    assert error(torch.linalg.norm(g.dense() - u * s @ v.T), np.linalg.norm(everything[4:])) <= 64 * EPS
    assert error(g.dense() @ v, u * s) <= 64 * EPS


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_rank_counts_the_independent_tokens(rank):
    x, delta = factors(12, 40, 30, rank=rank)
    g = FactoredGradient(x, delta)
    assert g.rank() == np.linalg.matrix_rank((x.T @ delta).numpy(), tol=None) == rank


def test_a_token_that_repeats_adds_nothing_to_the_rank():
    x, delta = factors(4, 20, 30)
    again = FactoredGradient(torch.cat([x, x[:1]]), torch.cat([delta, delta[1:2]]))
    assert again.rank() == 4


def test_a_tokens_whose_vjp_is_zero_adds_nothing_to_the_rank():
    x, delta = factors(6, 20, 30)
    delta[:-1] = 0
    assert FactoredGradient(x, delta).rank() == 1


def test_the_zero_gradient_has_rank_norm_and_singular_values_zero():
    g = FactoredGradient(torch.zeros(3, 8), torch.ones(3, 5))
    assert g.rank() == 0 and g.norm() == 0 and g.singular_values().abs().max() == 0
    u, s, v = g.svd()
    assert torch.isfinite(u).all() and torch.isfinite(v).all() and s.max() == 0


def test_tokens_that_cancel_leave_nothing():
    """Two tokens with one input and opposite VJPs: the sum is zero although no factor is."""
    x, delta = factors(1, 20, 30)
    g = FactoredGradient(x.repeat(2, 1), torch.cat([delta, -delta]))
    assert g.norm() <= EPS**0.5 * x.norm() * delta.norm()  # a Gram matrix sees half the digits, no fewer
    assert g.singular_values()[0] <= 16 * EPS * x.norm() * delta.norm()  # the triangular factors see them all


def test_small_singular_values_survive_where_a_gram_matrix_would_lose_them(error):
    """Scales 1 … 1e-10: squaring them, as a Gram matrix does, drowns the small ones in rounding; QR does not."""
    generator = torch.Generator().manual_seed(3)
    u, _ = torch.linalg.qr(torch.randn(40, 6, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(30, 6, generator=generator, dtype=torch.float64))
    s = torch.logspace(0, -10, 6, dtype=torch.float64)
    g = FactoredGradient((u * s.sqrt()).T.contiguous(), (v * s.sqrt()).T.contiguous())
    got = g.singular_values()
    assert float(((got - s) / s).abs().max()) <= 1e-5
    assert g.rank() == 6 and g.rank(tol=1e-5) == 3
    x, delta = g.x, g.delta
    gram = torch.linalg.eigvals((x @ x.T) @ (delta @ delta.T)).real.clamp(min=0).sqrt().sort(descending=True).values
    assert float(((gram - s) / s).abs().max()) > 100 * float(((got - s) / s).abs().max())
    assert error(g.norm(), torch.linalg.norm(s)) <= 16 * EPS


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_rank_does_not_depend_on_the_scale_of_the_loss(scale):
    x, delta = (t.float() for t in factors(5, 40, 30))
    assert FactoredGradient(x, delta * scale).rank() == 5
    assert FactoredGradient(x, delta * scale).norm() == pytest.approx(
        scale * float(FactoredGradient(x, delta).norm()), rel=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_results_are_float64_whatever_the_factors_are(error, dtype):
    x, delta = (t.to(dtype) for t in factors(4, 20, 30))
    g, exact = FactoredGradient(x, delta), FactoredGradient(x.double(), delta.double())
    assert g.norm().dtype == g.singular_values().dtype == g.svd()[0].dtype == torch.float64
    assert error(g.norm(), exact.norm()) == 0 and g.rank() == 4


def test_factors_of_different_lengths_are_refused_with_both_shapes(refuses):
    with refuses(ValueError, r"\[3, 4\] and \[2, 4\]"):
        FactoredGradient(torch.ones(3, 4), torch.ones(2, 4))
    with refuses(ValueError, r"\[4\]"):
        FactoredGradient(torch.ones(4), torch.ones(1, 4))


def test_a_gradient_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        FactoredGradient(*factors(2, 3, 4)).x = torch.zeros(2, 3)


def test_norms_of_many_tokens_need_no_large_gram_matrix(record):
    g = FactoredGradient(*factors(3000, 8, 6))
    with record() as sizes:
        g.norm(), g.rank()
    assert max(sizes) <= 3000 * 8


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_rank_is_the_number_of_tokens_everywhere_but_in_the_last_layer(tiny, kind):
    """Nothing after the last attention moves information between positions: its MLP hears of the last token only.

    So do that attention's queries and output; its values hear of every token, but only through the last token's four
    heads.  In every layer a softmax over one key is constant, so the first token's query is never told anything; and
    adding one vector to all keys changes no softmax, so without rotation the keys' δ sum to zero: n − 1 both times.
    """
    lm = tiny(kind, **({"sliding_window": 64} if kind == "gemma2" else {}))  # a window hides tokens, whose δ is zero
    trace = lens.capture(lm, [5, 9, 100, 33, 77, 12], [44])
    rank = {(layer, site): trace.gradient(layer, site).rank() for layer in range(3) for site in lm.sites}
    mlp = [site for site in lm.sites if site.startswith("ff")]
    assert [rank[layer, site] for layer in (0, 1) for site in [*mlp, "attn_v", "attn_out"]] == [6] * 2 * (len(mlp) + 2)
    assert [rank[layer, "attn_q"] for layer in (0, 1)] == [5, 5]
    assert [rank[layer, "attn_k"] for layer in (0, 1)] == ([5, 5] if kind == "gpt2" else [6, 6])
    assert [rank[2, site] for site in [*mlp, "attn_q", "attn_out"]] == [1] * (len(mlp) + 2)
    assert rank[2, "attn_v"] == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [15, 169])
def test_rank_in_half_precision_is_that_of_the_exact_numbers_which_the_factors_are(dtype, n):
    """Against the SVD of the dense product in float64; and every claim about n − 1 and the last layer holds there."""
    lm = lens.load("mini", device="cpu", dtype=dtype)
    prompt = [token for text in heldout() for token in lm.encode(text)][:n]
    trace = lens.capture(lm, prompt, "Rome")
    for layer in range(7):
        for site in ("ff1", "ff2", "attn_q"):
            g = trace.gradient(layer, site)
            s = np.linalg.svd((g.x.double().T @ g.delta.double()).numpy(), compute_uv=False)
            assert g.rank() == (s > n * 2**-23 * s[0]).sum() > 0
            assert g.rank() == FactoredGradient(g.x.float(), g.delta.float()).rank()
            if n == 15:
                assert g.rank() == (14 if site == "attn_q" else 15)
    assert trace.gradient(-1, "ff2").rank() == 1


def test_half_precision_tokens_that_depend_but_for_their_rounding_are_dependent_only_where_that_is_asked():
    x, delta = (t.bfloat16() for t in factors(8, 40, 30))
    x[6], x[7] = x[0] + x[1], x[2]  # a sum that is rounded, and a token again
    g = FactoredGradient(x, delta)
    assert g.rank() == 7 and g.rank(tol=len(g) * torch.finfo(torch.bfloat16).eps) == 6


def test_the_rank_of_many_tokens_is_not_0_where_the_gradient_is_not():
    x, delta = (t.bfloat16() for t in factors(2000, 4, 3))
    assert FactoredGradient(x, delta).rank() == 3


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_no_number_has_no_rank_and_says_so(refuses, bad):
    x, delta = factors(3, 5, 4)
    x[1, 2] = bad
    g = FactoredGradient(x, delta)
    with refuses(ValueError, "NaN or infinity, so it has no rank"):
        g.rank()
    assert "It holds NaN or infinity." in g._repr_html_()
