"""All matrices at once: the bits and the gradient of the matrices one by one, in one launch whatever their number."""

from __future__ import annotations

import pytest
import torch

from lens.kernels import AllMasks, Key, mask
from lens.scale.bench.tensors import peak_tensor_bytes

KEY = Key(seed=2**33 + 17, step=4, site=9)
pytestmark = pytest.mark.operation("mask")


@pytest.fixture
def drawn(random):
    """``drawn(device, dtype)``: masks of matrices of several shapes with random scores, and a gradient of each."""

    def make(device, dtype=torch.float32, shapes=((5, 3), (33, 64), (16, 130), (1, 1), (40, 80))):
        masks = AllMasks([random(*shape, dtype=dtype, device=device) for shape in shapes])
        for view in masks.views:
            view.copy_(random(*view.shape, scale=2.0))
        return masks, [random(*shape, dtype=dtype, device=device) for shape in shapes]

    return make


@pytest.mark.parametrize("part", ["remaining", "subnetwork"])
@pytest.mark.parametrize("tau", [1.0, 0.7])
@pytest.mark.parametrize("shapes", [((5, 3), (33, 64), (16, 130), (1, 1)), ((32, 64), (48, 16)), ((64, 64),)])
def test_each_matrix_gets_the_bits_and_the_gradient_it_gets_alone(place, dtype, drawn, part, tau, shapes):
    masks, grads = drawn(place.device, dtype, shapes)
    with place():
        together = masks.draw(KEY, tau=tau, part=part)
        masks.back_(list(grads), KEY, tau=tau, part=part)
        for i, (weight, view, grad) in enumerate(zip(masks.weights, masks.views, grads)):
            scores = view.clone().requires_grad_()
            alone = mask(weight, scores, KEY._replace(site=KEY.site + i), tau=tau, part=part)
            alone.backward(grad)
            assert together[i].dtype == dtype and torch.equal(together[i], alone)
            assert torch.equal(view.grad, scores.grad)


def test_the_price_of_density_is_the_slope_of_its_sum(place, drawn, accurate):
    masks, grads = drawn(place.device)
    with place():
        masks.back_([torch.zeros_like(g) for g in grads], KEY, sparsity=3.0)
    total = masks.density()
    slopes = {}
    for dtype in (torch.float32, torch.float64):
        scores = masks.scores.to(dtype, copy=True).requires_grad_()
        (3.0 * scores.sigmoid().sum()).backward()
        slopes[dtype] = scores.grad
    got = torch.cat([view.grad.flatten() for view in masks.views])
    kept = masks.scores > -torch.inf
    accurate(got, slopes[torch.float32][kept], slopes[torch.float64][kept])
    assert float(total) == pytest.approx(float(masks.scores.double().sigmoid().sum()), rel=1e-6)


def test_gradients_of_two_draws_add_up(place, drawn):
    masks, grads = drawn(place.device)
    later, found = KEY._replace(step=5), []
    with place():
        for keys in ((KEY,), (later,), (KEY, later)):
            for view in masks.views:
                view.grad = None
            for key in keys:
                masks.back_(list(grads), key, sparsity=0.1)
            found.append([view.grad for view in masks.views])
    for first, second, both in zip(*found):
        assert torch.equal(both, first + second)
    assert not torch.equal(found[0][1], found[1][1])


def test_what_lies_between_the_matrices_is_in_no_mask(place, drawn):
    masks, grads = drawn(place.device, shapes=((5, 3), (7, 9)))
    with place():
        masks.back_(list(grads), KEY, sparsity=1.0)
    total = float(masks.density())
    assert len(masks.scores) == 64 + 64 and int((masks.scores > -torch.inf).sum()) == 5 * 3 + 7 * 9
    assert total == pytest.approx(sum(float(view.double().sigmoid().sum()) for view in masks.views), rel=1e-6)


def test_a_gradient_in_another_layout_is_read_as_it_is(place, drawn):
    masks, grads = drawn(place.device)
    found = []
    with place():
        for some in (grads, [g.T.contiguous().T for g in grads]):
            for view in masks.views:
                view.grad = None
            masks.back_(list(some), KEY)
            found.append([view.grad for view in masks.views])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("count", [1, 5, 60])
def test_a_draw_is_one_launch_and_the_way_back_is_four_whatever_the_number_of_matrices(
    place, random, monkeypatch, count
):
    from lens.kernels.gpu import density
    from lens.kernels.gpu import masks as gpu

    launches = []
    for kernel in (gpu._masks_kernel, density._sigmoid_sum_kernel):
        honest = kernel.run
        monkeypatch.setattr(kernel, "run", lambda *a, honest=honest, **k: launches.append(1) or honest(*a, **k))
    masks = AllMasks([random(4, 5, device=place.device) for _ in range(count)])
    masks.scores.fill_(0.5)
    with place():
        masks.draw(KEY)
        if place.path == "triton":
            masks.density()
        forward = len(launches)
        masks.back_([torch.ones_like(w) for w in masks.weights], KEY, sparsity=1.0)
    if place.path == "triton":
        assert forward == 2 and 1 <= len(launches) - forward <= min(count, 4)
    else:
        assert not launches
    assert all(view.grad.abs().max() > 0 for view in masks.views)


@pytest.mark.parametrize("shape", [(64, 64), (64, 192)])
def test_the_way_back_takes_no_more_room_than_the_passes_did(place, random, shape, monkeypatch):
    """In half precision W ∘ (1 − m) and its gradient are 4 bytes a weight, and so is the scores' gradient.

    Nothing is filled in: Triton's interpreter would count its own copies of what a kernel is given.
    """
    monkeypatch.setattr(AllMasks, "_fill", lambda *given: None)
    half = dict(dtype=torch.float16, device=place.device)
    masks = AllMasks([random(64, 64, **half), random(*shape, **half)] * 20)
    weights = sum(w.numel() for w in masks.weights)

    def step() -> None:
        leaves = [w.requires_grad_() for w in masks.draw(KEY)]
        grads = [torch.ones_like(leaf) for leaf in leaves]
        leaves.clear()
        masks.back_(grads, KEY)
        assert not grads
        for view in masks.views:
            view.grad = None

    with place():
        assert 4 * weights <= peak_tensor_bytes(step) < (4 + 0.25) * weights


def test_matrices_that_do_not_go_together_are_refused_in_a_sentence(refuses):
    for weights in ([], [torch.ones(3)], [torch.ones(2, 2), torch.ones(2, 2, dtype=torch.float64)]):
        with refuses(ValueError, "matrices of one dtype on one device"):
            AllMasks(weights)


def test_a_way_back_without_a_gradient_for_each_matrix_is_refused(refuses):
    masks, key = AllMasks([torch.ones(2, 3), torch.ones(4, 4)]), Key(seed=0)
    masks.scores.fill_(0.5)
    grads = masks.draw(key)
    masks.back_(grads, key)
    before = [view.grad.clone() for view in masks.views]
    for wrong in (grads, [torch.ones(2, 3)], [torch.ones(2, 3), torch.ones(4, 3)], [torch.ones(2, 3)] * 3):
        with refuses(ValueError, "takes a gradient for each of 2 matrices"):
            masks.back_(wrong, key)
    for wrong, words in (({"tau": -1.0}, "temperature"), ({"part": "rest"}, "no part 'rest'")):
        with refuses(ValueError, words):
            masks.draw(key, **wrong)
    assert all(map(torch.equal, before, (view.grad for view in masks.views)))
