"""KL divergences over the vocabulary, both paths: values, gradients and memory against the naive formulas."""

from __future__ import annotations

import math

import pytest
import torch

from lens.kernels import logits, naive
from lens.kernels.divergence import kl_reference, kl_uniform

pytestmark = pytest.mark.operation("kl")

SIZES = [(16, 8192 + 70, 40), (16, 500, 64), (16, 64, 33), (1, 1, 1)]  # N, V, d; a Triton program reads 8192 at a time
REDUCTIONS = ["mean", "sum", "none"]


def losses(hidden, unembedding, reference=None, bias=None, softcap=None):
    """Either divergence as it reads, from all logits; q is a constant."""
    log_p = naive.logits(hidden, unembedding, None, bias, softcap).log_softmax(-1)
    if reference is None:
        return -math.log(log_p.shape[1]) - log_p.mean(-1)
    with torch.no_grad():
        log_q = naive.logits(reference, unembedding, None, bias, softcap).log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def ours(hidden, unembedding, reference=None, **kwargs):
    if reference is None:
        return kl_uniform(hidden, unembedding, **kwargs)
    return kl_reference(hidden, unembedding, reference, **kwargs)


def slopes(loss, weights, *inputs):
    """The losses' values and the gradients of Σ weights · loss with respect to ``inputs``."""
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    value = loss(*inputs)
    return value.detach(), torch.autograd.grad((weights.to(value.dtype) * value).sum(), inputs)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("against", ["uniform", "reference"])
def test_losses_and_gradients_are_those_of_the_formula(place, dtype, random, accurate, size, against):
    n, v, d = size
    # Logits of about ±2: an error of rounding is then an average, not the luck of one word.
    h, e, b, r = (random(*s, dtype=dtype, device=place.device, scale=0.6) for s in ((n, d), (v, d), (v,), (n, d)))
    r = r if against == "reference" else None
    weights = random(n, device=place.device)
    for softcap in (None, 2.0):

        def of(loss, weights, h, e, b, r):
            return slopes(lambda h, e, b: loss(h, e, r, bias=b, softcap=softcap), weights, h, e, b)

        with place():
            got = of(lambda *a, **k: ours(*a, **k, reduction="none"), weights, h, e, b, r)
        plain = of(losses, weights, h, e, b, r)
        exact = of(losses, weights.double(), *(None if t is None else t.double() for t in (h, e, b, r)))
        accurate(got[0], plain[0], exact[0])
        assert got[0].dtype == torch.float32
        for mine, theirs, true in zip(got[1], plain[1], exact[1]):
            assert mine.dtype == dtype and bool(mine.isfinite().all())
            # The rule of ``accurate`` for the mean square: the largest error of one half-precision product is luck.
            assert (mine.double() - true).norm() <= 2 * (theirs.double() - true).norm() + 1e-6 * true.norm()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gradient_of_hidden_alone_is_the_same(place, dtype, random, size):
    """It is found in the forward pass, and E and its bias are never asked for."""
    n, v, d = size
    h, e, r = (random(*s, dtype=dtype, device=place.device) for s in ((n, d), (v, d), (n, d)))
    for reference in (None, r):
        with place():
            alone = slopes(lambda h: ours(h, e, reference), torch.ones(()), h)
            both = slopes(lambda h, e: ours(h, e, reference), torch.ones(()), h, e)
        assert torch.equal(alone[0], both[0]) and torch.equal(alone[1][0], both[1][0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_reduction_scales_each_rows_gradient(place, random, reduction):
    h, e, r = (random(*s, device=place.device) for s in ((4, 5), (70, 5), (4, 5)))
    weights = random(4, device=place.device) if reduction == "none" else torch.ones((), device=place.device)
    share = {"mean": torch.full((4,), 0.25), "sum": torch.ones(4), "none": weights.cpu()}[reduction].to(h.device)
    for reference in (None, r):
        with place():
            value, (got,) = slopes(lambda h: ours(h, e, reference, reduction=reduction), weights, h)
            rows, (unit,) = slopes(lambda h: ours(h, e, reference, reduction="none"), torch.ones(4).to(h), h)
        assert value.shape == ((4,) if reduction == "none" else ())
        torch.testing.assert_close((weights * value).sum(), (share * rows).sum())
        torch.testing.assert_close(got, share[:, None] * unit)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_in_any_of_the_inputs(random, monkeypatch, reduction, softcap):
    monkeypatch.setitem(logits.CHUNK_BYTES, "cpu", 4 * 64 * 8)  # two rows of each kind in a chunk
    for learns in range(1, 8):
        h, e, b = (random(*s, dtype=torch.float64) for s in ((5, 3), (50, 3), (50,)))
        for i, t in enumerate((h, e, b)):
            t.requires_grad_(bool(learns >> i & 1))
        assert torch.autograd.gradcheck(
            lambda h, e, b: kl_uniform(h, e, bias=b, softcap=softcap, reduction=reduction), (h, e, b)
        )
        if learns == 1:  # E and b move q too, which is a constant, so finite differences know another slope
            r = random(5, 3, dtype=torch.float64)
            assert torch.autograd.gradcheck(
                lambda h: kl_reference(h, e, r, bias=b, softcap=softcap, reduction=reduction), (h,)
            )


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_float64_gradients_are_autograds_to_rounding(random, error, monkeypatch, softcap):
    monkeypatch.setitem(logits.CHUNK_BYTES, "cpu", 4 * 832 * 8)
    h, e, b, r = (random(*s, dtype=torch.float64) for s in ((5, 3), (800, 3), (800,), (5, 3)))
    weights = random(5, dtype=torch.float64)
    for q in (None, r):
        got = slopes(lambda h, e, b: ours(h, e, q, bias=b, softcap=softcap, reduction="none"), weights, h, e, b)
        want = slopes(lambda h, e, b: losses(h, e, q, bias=b, softcap=softcap), weights, h, e, b)
        for mine, true in zip((got[0], *got[1]), (want[0], *want[1])):
            assert mine.dtype == torch.float64 and error(mine, true) < 1e-12


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_chunks_do_not_change_the_answer(place, random, monkeypatch, error, rows):
    h, e, b, r = (random(*s, device=place.device) for s in ((7, 8), (500, 8), (500,), (7, 8)))
    weights = random(7, device=place.device)

    def answers():
        for q in (None, r):
            loss, found = slopes(lambda h, e, b: ours(h, e, q, bias=b, reduction="none"), weights, h, e, b)
            yield from (loss, *found)

    with place():
        want = list(answers())
        monkeypatch.setitem(logits.CHUNK_BYTES, place.device, rows * 512 * 4)
        monkeypatch.setattr(logits, "ROWS", 1)
        for got, true in zip(answers(), want):
            assert error(got.cpu(), true.cpu()) < 2e-6


@pytest.mark.parametrize("against", ["uniform", "reference"])
def test_forward_and_backward_hold_no_more_than_a_chunk_of_logits(place, random, monkeypatch, record, against):
    h, e, r = (random(*s, device=place.device) for s in ((60, 2), (1000, 2), (60, 2)))
    h.requires_grad_(), e.requires_grad_()
    monkeypatch.setitem(logits.CHUNK_BYTES, place.device, 4 * 1024 * 4)
    monkeypatch.setattr(logits, "ROWS", 1)
    with place(), record() as sizes:
        ours(h, e, r if against == "reference" else None).backward()
    assert max(sizes) <= 4 * 1024


def test_uniform_is_0_where_all_logits_are_equal_and_reference_is_0_at_the_reference(place, random):
    e, h = random(700, 4, device=place.device), random(3, 4, device=place.device)
    with place():
        value, (flat,) = slopes(lambda h: kl_uniform(h, e, reduction="none"), torch.ones(()), torch.zeros_like(h))
        assert value.abs().max() < 1e-6
        value, (same,) = slopes(lambda x: kl_reference(x, e, h, reduction="none"), torch.ones(()), h)
        assert value.abs().max() < 1e-6 and same.abs().max() < 1e-6
    torch.testing.assert_close(flat, torch.zeros_like(h), atol=1e-6, rtol=0)


def test_the_closed_form_of_the_uniform_divergence(place, random):
    e, h = random(700, 4, device=place.device), random(3, 4, device=place.device)
    with place():
        got = kl_uniform(h, e, reduction="none")
    torch.testing.assert_close(got, naive.kl_uniform(h, e), atol=1e-6, rtol=1e-6)


def test_strided_inputs_are_read(place, dtype, random):
    h, e, r = (random(*s, dtype=dtype, device=place.device) for s in ((8, 6), (8, 600), (8, 6)))
    args = h.T[::2, ::2], e.T[:, ::2], r.T[::2, ::2]
    with place():
        for n in (2, 3):
            got = slopes(lambda h: ours(h, *args[1:n]), torch.ones(()), args[0])
            want = slopes(lambda h: ours(h, *(t.contiguous() for t in args[1:n])), torch.ones(()), args[0].contiguous())
            torch.testing.assert_close(got, want)


def test_no_rows_have_a_mean_of_nan_and_a_sum_of_0_and_an_empty_gradient(place, random):
    h, e = random(0, 4, device=place.device), random(700, 4, device=place.device)
    with place():
        for reference in (None, h.clone()):
            assert ours(h, e, reference).isnan() and ours(h, e, reference, reduction="sum") == 0
            assert ours(h, e, reference, reduction="none").shape == (0,)
            found = slopes(lambda h, e: ours(h, e, reference), torch.ones(()), h, e)[1]
            assert found[0].shape == (0, 4) and not found[1].any()


def test_nan_in_a_row_is_nan_in_its_loss_and_gradient_and_in_no_other(place, dtype, random):
    h, e, r = (random(*s, dtype=dtype, device=place.device) for s in ((3, 4), (600, 4), (3, 4)))
    h[1, 2] = torch.nan
    for reference, row in ((None, [1]), (r, [1]), (_with_nan(r), [1, 2])):
        with place():
            value, (slope,) = slopes(lambda h: ours(h, e, reference, reduction="none"), torch.ones(()), h)
        nan = torch.tensor([i in row for i in range(3)], device=h.device)
        assert torch.equal(value.isnan(), nan)
        assert torch.equal(slope.isnan(), nan[:, None].expand(3, 4))


def _with_nan(r):
    r = r.clone()
    r[2, 0] = torch.nan
    return r


def test_a_word_that_cannot_be_said_costs_infinity_or_nothing(place, random):
    """−∞ logits: KL(uniform ‖ p) is ∞; KL(q ‖ p) leaves out words that q cannot say either, and no gradient is NaN."""
    h, e, r = (random(*s, device=place.device) for s in ((2, 4), (9000, 4), (2, 4)))
    bias = torch.zeros(9000, device=place.device)
    bias[:8200] = -torch.inf  # all of a program's first reading
    with place():
        value, (slope,) = slopes(lambda h: kl_uniform(h, e, bias=bias), torch.ones(()), h)
        assert value == torch.inf and bool(slope.isfinite().all())
        value, (slope,) = slopes(lambda h: kl_reference(h, e, r, bias=bias, reduction="none"), torch.ones(()), h)
        want, (true,) = slopes(lambda h: losses(h, e[8200:], r), torch.ones(()), h)
        torch.testing.assert_close((value, slope), (want, true), atol=1e-5, rtol=1e-5)
        bias[8200] = torch.inf
        assert kl_uniform(h, e, bias=bias).isnan() and kl_reference(h, e, r, bias=bias).isnan()


def test_nothing_is_recorded_where_no_gradient_is_wanted(place, random):
    h, e = random(3, 4, device=place.device).requires_grad_(), random(70, 4, device=place.device)
    with place():
        with torch.no_grad():
            assert not kl_uniform(h, e).requires_grad
        assert not kl_uniform(h.detach(), e).requires_grad
        torch.testing.assert_close(kl_uniform(h.detach(), e), kl_uniform(h, e).detach())


def test_a_bad_call_is_refused_in_one_sentence(random, refuses):
    h, e = random(2, 4), random(20, 4)
    with refuses(ValueError, r"hidden states.*\[2, 3\], \[20, 4\]"):
        kl_uniform(h[:, :3], e)
    with refuses(ValueError, "share dtype"):
        kl_uniform(h.half(), e)
    with refuses(ValueError, "share dtype"):
        kl_reference(h, e, h.half())
    with refuses(ValueError, r"a bias \[4\]"):
        kl_uniform(h, e, bias=h[0])
    with refuses(ValueError, "'average'.*mean, sum or none"):
        kl_uniform(h, e, reduction="average")
    with refuses(ValueError, "requires grad.*detach"):
        kl_reference(h, e, h.clone().requires_grad_())
    with refuses(ValueError, r"\[2, 4\], not \[1, 4\]"):
        kl_reference(h, e, h[:1])


def test_a_second_derivative_is_refused(random, refuses):
    h, e = random(2, 4).requires_grad_(), random(20, 4)
    with refuses(RuntimeError, "differentiable once"):
        torch.autograd.grad(kl_uniform(h, e), h, create_graph=True)
