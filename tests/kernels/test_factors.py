"""Norms, inner products and singular vectors of xᵀδ from its factors, against the dense gradient in float64."""

from __future__ import annotations

import pytest
import torch

from lens.kernels import naive
from lens.kernels.factors import inner, norms, singular, singular_values, token_norms

SHAPES = [(1, 1, 1), (5, 7, 9), (16, 33, 130), (17, 40, 18), (33, 36, 41), (70, 72, 75), (70, 9, 30)]  # n, d_in, d_out


def exact(function, *factors):
    return function(*(t.double() for t in factors))


@pytest.mark.operation("norms")
def test_norms_of_many_sites_at_once_are_the_dense_norms(place, dtype, random, accurate):
    xs = [random(n, d_in, dtype=dtype, device=place.device) for n, d_in, _ in SHAPES]
    deltas = [random(n, d_out, dtype=dtype, device=place.device) for n, _, d_out in SHAPES]
    with place():
        got = norms(xs, deltas)
    assert got.shape == (len(SHAPES),) and got.dtype == torch.float64
    for value, x, delta in zip(got, xs, deltas):
        accurate(value, naive.norm(x, delta), exact(naive.norm, x, delta))


@pytest.mark.operation("norms")
@pytest.mark.parametrize("n, m", [(1, 1), (3, 8), (20, 4), (40, 2)])
def test_inner_products_are_those_of_the_dense_gradients(place, dtype, random, accurate, n, m):
    """The last case has more tokens than features, on one side only."""
    widths = [(30, 35), (33, 47), (30, 35)]

    def draw(tokens, side):
        return [random(tokens, width[side], dtype=dtype, device=place.device) for width in widths]

    lists = draw(n, 0), draw(n, 1), draw(m, 0), draw(m, 1)
    with place():
        got, turned = inner(*lists), inner(lists[2], lists[3], lists[0], lists[1])
    plain = torch.stack([naive.inner(*site) for site in zip(*lists)])
    truth = torch.stack([exact(naive.inner, *site) for site in zip(*lists)])
    accurate(got, plain, truth)
    accurate(turned, plain, truth)


@pytest.mark.operation("norms")
def test_token_norms_are_the_norms_of_single_tokens(place, dtype, random, accurate):
    xs = [random(n, 12, dtype=dtype, device=place.device) for n in (3, 1, 3)]
    deltas = [random(n, 7, dtype=dtype, device=place.device) for n in (3, 1, 3)]
    with place():
        got = token_norms(xs, deltas)
        alone = [norms(x[:, None], delta[:, None]) for x, delta in zip(xs, deltas)]
    for value, one, x, delta in zip(got, alone, xs, deltas):
        assert value.shape == (len(x),) and value.dtype == torch.float64
        truth = x.double().norm(dim=1) * delta.double().norm(dim=1)
        plain = x.norm(dim=1) * delta.norm(dim=1)
        accurate(value, plain, truth)
        accurate(one, plain, truth)


@pytest.mark.operation("norms")
def test_strided_and_transposed_factors_are_read_as_they_lie(place, dtype, random):
    x, delta = random(14, 40, dtype=dtype, device=place.device), random(20, 7, dtype=dtype, device=place.device)
    views = [x[::2, 1::3], x[3:10, 5:25], x.T[:7, :].contiguous()], [delta.T, delta[:7, :5], delta.T[:, 2:9]]
    with place():
        got, copies = norms(*views), norms(*([t.contiguous() for t in views_] for views_ in views))
        crossed = inner(*views, *views)
    torch.testing.assert_close(got, copies, rtol=1e-6, atol=0)
    torch.testing.assert_close(crossed.sqrt(), copies, rtol=1e-6, atol=0)


@pytest.mark.operation("norms")
def test_sites_without_tokens_or_features_have_norm_zero(place, dtype):
    def zeros(*shape):
        return torch.ones(*shape, dtype=dtype, device=place.device)

    with place():
        got = norms([zeros(0, 4), zeros(3, 0), zeros(2, 4)], [zeros(0, 5), zeros(3, 5), zeros(2, 4)])
        assert got.tolist() == [0, 0, 8]
        assert inner([zeros(0, 4)], [zeros(0, 5)], [zeros(2, 4)], [zeros(2, 5)]).tolist() == [0]
        assert [t.tolist() for t in token_norms([zeros(0, 4)], [zeros(0, 5)])] == [[]]
        assert norms([], []).shape == inner([], [], [], []).shape == (0,) and token_norms([], []) == []


@pytest.mark.operation("norms")
@pytest.mark.parametrize("n", [3, 9])
def test_nan_stays_in_its_own_site(place, dtype, random, n):
    xs = [random(n, 6, dtype=dtype, device=place.device) for _ in range(3)]
    deltas = [random(n, 8, dtype=dtype, device=place.device) for _ in range(3)]
    xs[1][0, 2] = torch.nan
    with place():
        for got in (norms(xs, deltas), inner(xs, deltas, xs, deltas)):
            assert got.isnan().tolist() == [False, True, False]
        assert token_norms(xs, deltas)[1].isnan().tolist() == [True] + [False] * (n - 1)


@pytest.mark.operation("norms")
def test_an_infinite_token_gives_an_infinite_norm(place, dtype):
    """The padding of a tile is zero, and infinity times zero must not reach the sum."""
    x, delta = torch.tensor([[torch.inf, 1.0]]), torch.tensor([[2.0, 1.0, 1.0]])
    x, delta = (t.to(dtype).to(place.device) for t in (x, delta))
    with place():
        assert norms([x, x[:, 1:]], [delta, delta]).tolist() == [torch.inf, pytest.approx(6**0.5)]


@pytest.mark.operation("norms")
def test_the_largest_half_precision_numbers_do_not_overflow(place, dtype):
    big = min(torch.finfo(dtype).max, 1e18)
    x, delta = (torch.full((2, d), big, dtype=dtype, device=place.device) for d in (40, 50))
    with place():
        assert float(norms([x], [delta])) == pytest.approx(2 * 2000**0.5 * float(x[0, 0]) ** 2, rel=1e-5)


@pytest.mark.operation("norms")
def test_sites_of_different_dtypes_go_together(place, random):
    x = random(4, 6, device=place.device)
    xs, deltas = [x, x.half(), x.half()], [x, x, x.half()]
    with place():
        got = norms(xs, deltas)
        alone = [float(norms([a], [b])) for a, b in zip(xs, deltas)]
    assert got.tolist() == pytest.approx(alone, rel=1e-6)


@pytest.mark.operation("norms")
def test_the_same_factors_give_the_same_bits(place, random):
    xs, deltas = ([random(70, 80, device=place.device) for _ in range(2)] for _ in range(2))
    with place():
        assert torch.equal(norms(xs, deltas), norms(xs, deltas))


def test_float64_factors_are_never_rounded(random):
    x, delta = random(4, 9, dtype=torch.float64), random(4, 7, dtype=torch.float64)
    want = (x.T @ delta).norm()
    assert abs(float(norms([x.float(), x], [delta.float(), delta])[1] - want)) <= 1e-14 * want
    assert abs(float(inner([x], [delta], [x], [delta]) - want**2)) <= 1e-14 * want**2


def test_results_carry_no_gradient(random):
    x = random(3, 4).requires_grad_()
    assert not norms([x], [x]).requires_grad and not token_norms([x], [x])[0].requires_grad


def test_no_gradient_is_formed(random, record):
    xs, deltas = [random(3, 200) for _ in range(4)], [random(3, 300) for _ in range(4)]
    with record() as sizes:
        norms(xs, deltas), inner(xs, deltas, xs, deltas), singular(xs[0], deltas[0], 2)
    assert max(sizes) <= 4 * 3 * 300


@pytest.mark.parametrize("n, d_in, d_out", [(1, 7, 5), (4, 7, 5), (20, 7, 5), (3, 40, 11), (2, 1, 9), (0, 3, 4)])
def test_singular_triplets_rebuild_the_gradient(random, n, d_in, d_out):
    x, delta = random(n, d_in), random(n, d_out)
    u, s, v = singular(x, delta)
    r = min(n, d_in, d_out)
    assert (u.shape, s.shape, v.shape) == ((d_in, r), (r,), (d_out, r)) and s.dtype == torch.float64
    torch.testing.assert_close(u * s @ v.T, exact(naive.gradient, x, delta), rtol=0, atol=1e-12)
    torch.testing.assert_close(singular_values(x, delta), s, rtol=1e-12, atol=1e-12)
    k = min(2, r)
    assert [t.shape[-1] for t in singular(x, delta, k=2)] == [k, k, k]


def test_singular_vectors_of_nan_are_nan(random):
    x, delta = random(3, 6), random(3, 4)
    x[0, 0] = torch.nan
    u, s, v = singular(x, delta, k=2)
    assert (u.shape, s.shape, v.shape) == ((6, 2), (2,), (4, 2))
    assert all(bool(t.isnan().all()) for t in (u, s, v, singular_values(x, delta)))


def test_factors_that_do_not_fit_are_refused(refuses):
    one = torch.ones(3, 4)
    for function in (norms, token_norms):
        with refuses(ValueError, "there are 2 and 1"):
            function([one, one], [one])
        with refuses(ValueError, r"\[3, 4\] and \[2, 4\]"):
            function([one], [one[:2]])
        with refuses(ValueError, r"\[4\]"):
            function(one, one)
        with refuses(ValueError, "int64"):
            function([one.long()], [one])
        with refuses(ValueError, "cpu, meta"):
            function([one], [one.to("meta")])
    with refuses(ValueError, "there are 1 and 2 of them"):
        inner([one], [one], [one, one], [one, one])
    with refuses(ValueError, r"\[4, 4\].*\[4, 3\]"):
        inner([one], [one], [one], [one[:, :3]])
    with refuses(ValueError, "same n tokens"):
        singular(one, one[:2])
    with refuses(ValueError, "k is -1"):
        singular(one, one, k=-1)
