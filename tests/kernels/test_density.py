"""Mean σ(l) and its gradient, against float64."""

from __future__ import annotations

import math

import pytest
import torch

from lens.kernels.expected_density import density

pytestmark = pytest.mark.operation("density")


@pytest.mark.parametrize("shape", [(1,), (7, 11), (3, 2, 5000), (13, 700)])
def test_mean_and_gradient_are_the_formulas(place, dtype, random, accurate, shape):
    scores = random(*shape, dtype=dtype, device=place.device, scale=3.0).requires_grad_()
    with place():
        got = density(scores)
        (5 * got).backward()
    exact = scores.detach().double().requires_grad_()
    plain = scores.detach().clone().requires_grad_()
    for scored in (exact, plain):
        (5 * scored.sigmoid().mean()).backward()
    accurate(got, plain.detach().sigmoid().mean(), exact.detach().sigmoid().mean())
    accurate(scores.grad, plain.grad, exact.grad)


def test_strided_infinite_and_missing_scores(place):
    scores = torch.zeros(6, 10, device=place.device)
    scores[:, 1::2] = math.inf
    with place():
        assert float(density(scores)) == float(density(scores.T)) == 0.75
        assert float(density(scores[:, ::2])) == 0.5 and float(density(scores[:, 1::2])) == 1
        assert math.isnan(density(torch.full((3,), math.nan, device=place.device)))


def test_gradcheck(random):
    assert torch.autograd.gradcheck(density, random(4, 5, dtype=torch.float64).requires_grad_())


def test_no_scores_are_refused(refuses):
    with refuses(ValueError, "no scores"):
        density(torch.zeros(0, 3))
