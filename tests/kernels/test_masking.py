"""The mask: the same bits on every path, the formula's values, and the straight-through gradient's."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from lens import kernels
from lens.kernels import naive
from lens.kernels.masking import exp_minus, mask, sample
from lens.kernels.noise import Key, uniform

KEY = Key(seed=2**33 + 17, step=4, site=9)
SHAPES = [(1, 1), (5, 3), (33, 67), (2, 129), (40, 64), (0, 5), (5, 0)]
pytestmark = pytest.mark.operation("mask")


def reference(weight, scores, tau, part, hard, dtype):
    """The masked weight with autograd's own gradient, from the formula, in ``dtype``."""
    w, scored = weight.to(dtype), scores.detach().to(dtype).requires_grad_()
    soft = naive.soft_mask(scored, uniform(tuple(weight.shape), KEY, weight.device).to(dtype), tau)
    m = naive.straight_through(soft) if hard else soft
    return w * (1 - m if part == "remaining" else m), scored


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", ["remaining", "subnetwork"])
@pytest.mark.parametrize("tau, hard", [(1.0, True), (0.7, True), (1.0, False), (2.5, False)])
def test_value_and_gradient_are_the_formulas(place, dtype, random, accurate, shape, part, tau, hard):
    weight, upstream = (
        random(*shape, dtype=dtype, device=place.device),
        random(*shape, dtype=dtype, device=place.device),
    )
    scores = random(*shape, device=place.device, scale=2.0).requires_grad_()
    with place():
        got = mask(weight, scores, KEY, tau=tau, part=part, hard=hard)
        got.backward(upstream)
    assert got.dtype == dtype and scores.grad.dtype == torch.float32
    exact, in64 = reference(weight, scores, tau, part, hard, torch.float64)
    exact.backward(upstream.double())
    plain, in32 = reference(weight, scores, tau, part, hard, torch.float32)
    plain.backward(upstream.float())
    accurate(got, plain.to(dtype), exact)
    accurate(scores.grad, in32.grad, in64.grad)
    if hard:
        assert torch.equal(got, (exact.to(dtype)))


def test_the_bits_are_those_of_the_torch_path(place, random):
    scores = random(45, 1030 if kernels.paths.interpreting() else 4100, scale=4.0)
    scores[0, :6] = torch.tensor([math.inf, -math.inf, 70.0, -70.0, 16.6, -16.6])
    with kernels.use("torch"):
        want = sample(scores, KEY)
    with place():
        assert torch.equal(sample(scores.to(place.device), KEY).cpu(), want)


def test_the_bits_do_not_depend_on_neighbors_or_storage(place, random):
    scores = random(37, 83, device=place.device)
    with place():
        whole = sample(scores, KEY)
        assert torch.equal(sample(scores[:, :50], KEY), whole[:, :50])  # a slice: strided
        assert torch.equal(sample(scores[:9], KEY), whole[:9])
        assert torch.equal(sample(scores.T.contiguous().T, KEY), whole)  # as nn.Linear stores it
        joint = torch.zeros(37, 100, device=place.device)
        joint[:, 10:93] = scores
        assert torch.equal(sample(joint[:, 10:93], KEY), whole)


def test_the_bits_do_not_depend_on_how_the_work_is_cut(place, random, monkeypatch):
    scores = random(37, 150, device=place.device)
    with place():
        want = sample(scores, KEY)
        if place.path == "triton":
            from lens.kernels.gpu import masking as cut

            sizes = [dict(ROWS=1, COLUMNS=16), dict(ROWS=8, COLUMNS=256)]
        elif place.path == "numba":
            from lens.kernels import masking_cpu as cut

            sizes = [dict(SHARE=1), dict(SHARE=1000)]
        else:
            from lens.kernels import masking as cut

            sizes = [dict(CHUNK=1), dict(CHUNK=700)]
        for size in sizes:
            for name, value in size.items():
                monkeypatch.setattr(cut, name, value)
            assert torch.equal(sample(scores, KEY), want), size


def test_strided_weights_scores_and_gradients_give_what_contiguous_ones_do(place, dtype, random):
    weight, upstream, scores = (random(67, 35, dtype=dtype, device=place.device).T for _ in range(3))
    results = []
    for w, g, scored in ((weight, upstream, scores), (weight.contiguous(), upstream.contiguous(), scores.contiguous())):
        scored = scored.detach().requires_grad_()
        with place():
            out = mask(w, scored, KEY)
            out.backward(g)
        results.append((out, scored.grad))
    (out, slope), (want, want_slope) = results
    assert torch.equal(out, want)
    assert torch.allclose(slope.float(), want_slope.float(), rtol=1e-5 if dtype == torch.float32 else 1e-2)


def test_a_mask_is_one_with_probability_sigmoid_of_its_score(place):
    rows = 20 if kernels.paths.interpreting() else 400
    for score in (-3.0, -0.2, 0.0, 1.5):
        scores = torch.full((rows, 512), score, device=place.device)
        p = 1 / (1 + math.exp(-score))
        with place():
            share = float(sample(scores, KEY).double().mean())
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / scores.numel())


def test_nan_gives_nan_and_an_infinite_score_saturates(place, dtype):
    weight = torch.ones(3, 8, dtype=dtype, device=place.device)
    weight[0, 0] = math.nan
    scores = torch.zeros(3, 8, device=place.device)
    scores[1, 1], scores[2, 0], scores[2, 1] = math.nan, math.inf, -math.inf
    scores.requires_grad_()
    with place():
        out = mask(weight, scores, KEY)
        soft = mask(weight, scores, KEY, hard=False, tau=0.5)
        out.backward(torch.ones_like(out))
    out, soft = out.detach(), soft.detach()
    for value in (out, soft, scores.grad):
        nan = value.isnan().cpu()
        assert bool(nan[1, 1]) and bool(nan[0, 0]) and int(nan.sum()) == 2
    assert float(out[2, 0]) == 0 and float(out[2, 1]) == 1
    assert float(soft[2, 0].float().abs()) < 1e-6 and float((soft[2, 1].float() - 1).abs()) < 1e-6
    assert float(scores.grad[2, :2].abs().max()) < 1e-15


def test_the_weight_receives_the_same_masks_gradient(place, random):
    weight, scores, upstream = (random(19, 21, device=place.device) for _ in range(3))
    weight.requires_grad_()
    with place():
        out = mask(weight, scores, KEY)
        out.backward(upstream)
        kept = mask(torch.ones_like(scores), scores, KEY)
    assert torch.equal(weight.grad, upstream * kept)


def test_a_neuron_mask_keeps_or_removes_whole_rows_and_sums_their_gradients(place, random, accurate):
    weight, upstream = random(30, 17, device=place.device), random(30, 17, device=place.device)
    scores = random(30, 1, device=place.device).requires_grad_()
    with place():
        out = mask(weight, scores, KEY)
        out.backward(upstream)
        kept = ~sample(scores, KEY)
    assert torch.equal(out, weight * kept) and 0 < int(kept.sum()) < 30

    def slope(dtype):
        s = naive.soft_mask(scores.detach().to(dtype), uniform((30, 1), KEY, place.device).to(dtype))
        return -(upstream.to(dtype) * weight.to(dtype)).sum(1, keepdim=True) * s * (1 - s)

    accurate(scores.grad, slope(torch.float32), slope(torch.float64))


@pytest.mark.parametrize("tau", [1.0, 0.6])
@pytest.mark.parametrize("part", ["remaining", "subnetwork"])
def test_the_soft_mask_passes_gradcheck_with_fixed_noise(random, tau, part):
    weight = random(5, 7, dtype=torch.float64).requires_grad_()
    scores = random(5, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w, scored: mask(w, scored, KEY, tau=tau, part=part, hard=False), (weight, scores)
    )


def test_without_a_key_the_mask_is_the_sign_of_the_score(random):
    weight, scores = random(6, 9), random(6, 9).requires_grad_()
    out = mask(weight, scores, None)
    assert torch.equal(out, weight * (scores <= 0)) and torch.equal(sample(scores), scores > 0)
    out.backward(torch.ones_like(out))
    s = scores.detach().sigmoid()
    assert torch.allclose(scores.grad, -weight * s * (1 - s))


def test_exp_minus_is_accurate_and_rounds_the_same_wherever_it_runs():
    x = torch.linspace(-59, 59, 20001)
    assert float((exp_minus(x).double() / (-x.double()).exp() - 1).abs().max()) < 1.2e-7
    # From the same steps in NumPy, one rounding at a time: a compiler that fuses a multiply-add changes the last bits.
    some = exp_minus(torch.tensor([0.1, -1.7, 13.37, -42.0, 59.9]))
    assert [f"{v:08x}" for v in some.view(torch.int32).tolist()] == BITS


BITS = ["3f67a36d", "40af2a94", "35d18d6c", "5dc1192b", "143fae61"]


def test_bad_arguments_are_refused_in_a_sentence(refuses):
    w = torch.ones(4, 6)
    with refuses(ValueError, r"\[4, 6\].*\[6, 4\]"):
        mask(w, torch.ones(6, 4), KEY)
    with refuses(ValueError, "matrix"):
        mask(torch.ones(4), torch.ones(4), KEY)
    with refuses(ValueError, "part 'rest'"):
        mask(w, w, KEY, part="rest")
    for tau in (0, -1, math.nan):
        with refuses(ValueError, "temperature"):
            mask(w, w, KEY, tau=tau)
    with refuses(ValueError, "noise key"):
        mask(w, w, Key(seed=-3))
    with refuses(ValueError, r"key is \(0, 0, 0\): give a Key"):
        mask(w, w, (0, 0, 0))


def test_a_loop_that_one_process_has_compiled_another_reads_from_the_disk():
    code = (
        "import torch; from lens.kernels.masking import Key, sample; sample(torch.ones(2, 2), Key(0));"
        "from lens.kernels.masking_cpu import run; print(len(run.stats.cache_misses))"
    )
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert said[1].stdout == "0\n", said[1].stderr
