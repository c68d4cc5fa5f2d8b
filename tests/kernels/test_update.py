"""W ← W + η xᵀδ in place: right to one rounding, written through views, and undone bit for bit."""

from __future__ import annotations

import pytest
import torch

from lens.kernels import naive, update
from lens.kernels.update import TOKENS, update_

VIEWS = {
    "whole": lambda new: new(19, 140),
    "transposed": lambda new: new(140, 19).T,
    "columns of a joint matrix": lambda new: new(19, 300)[:, 100:240],
    "rows of a transposed matrix": lambda new: new(300, 19).T[:, 7:147],
    "every other entry": lambda new: new(38, 280)[::2, ::2],
    "one row": lambda new: new(1, 140),
    "one column": lambda new: new(19, 5)[:, 2:3],
    "one entry": lambda new: new(1, 1),
}


def bits(t: torch.Tensor) -> torch.Tensor:
    return t.detach().clone().contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


@pytest.fixture
def site(random):
    """``site(place, dtype, "whole", n)``: a weight, its factors, and the memory the weight is a view of."""

    def build(place, dtype, view="whole", n=3):
        weight = VIEWS[view](lambda *shape: random(*shape, dtype=dtype, device=place.device))
        x, delta = (random(n, d, dtype=dtype, device=place.device) for d in weight.shape)
        return weight, x, delta, weight if weight._base is None else weight._base

    return build


@pytest.mark.operation("update")
@pytest.mark.parametrize("view", VIEWS)
def test_update_adds_the_gradient_and_undo_removes_it_bit_for_bit(place, dtype, site, accurate, view):
    weight, x, delta, memory = site(place, dtype, view)
    before, old, all_of_it = weight.clone(), bits(weight), bits(memory)
    with place():
        undo = update_([weight], [x], [delta], -0.3)
    plain = naive.update(before, x, delta, -0.3)
    accurate(weight, plain, naive.update(before.double(), x.double(), delta.double(), -0.3))
    undo.undo()
    assert torch.equal(bits(weight), old)
    assert torch.equal(bits(memory), all_of_it), "entries beside the view were written"


@pytest.mark.operation("update")
@pytest.mark.parametrize("n", [1, 8, TOKENS + 1])
def test_any_number_of_tokens(place, dtype, site, accurate, n):
    weight, x, delta, _ = site(place, dtype, n=n)
    before = weight.clone()
    with place():
        update_([weight], [x], [delta], 0.5)
    truth = naive.update(before.double(), x.double(), delta.double(), 0.5)
    accurate(weight, naive.update(before, x, delta, 0.5), truth)


@pytest.mark.operation("update")
@pytest.mark.parametrize("view", ["whole", "transposed"])
def test_half_precision_is_rounded_once(place, view):
    """Eight steps of a quarter of a rounding unit: added one at a time in float16 they would all be lost."""
    weight = VIEWS[view](lambda *shape: torch.ones(*shape, dtype=torch.float16, device=place.device))
    x, delta = (torch.ones(8, d, dtype=torch.float16, device=place.device) for d in weight.shape)
    with place():
        update_([weight], [x], [delta], 2.0**-12)
    assert torch.equal(weight, torch.full_like(weight, 1 + 2.0**-9))


@pytest.mark.operation("update")
def test_factors_may_have_another_dtype_than_the_weight(place, dtype, random, accurate):
    weight = random(9, 20, dtype=dtype, device=place.device)
    x, delta = random(2, 9, device=place.device), random(2, 20, dtype=torch.float16, device=place.device)
    want = naive.update(weight.double(), x.double(), delta.double(), 2.0)
    with place():
        update_([weight], [x], [delta], 2.0)
    accurate(weight, want.to(dtype), want)


@pytest.mark.operation("update")
def test_factors_may_be_strided(place, dtype, random):
    x, delta = random(19, 6, dtype=dtype, device=place.device), random(6, 40, dtype=dtype, device=place.device)
    one, two = (torch.zeros(19, 20, dtype=dtype, device=place.device) for _ in range(2))
    with place():
        update_([one], [x.T[::2]], [delta[::2, ::2]], 1.0)
        update_([two], [x.T[::2].contiguous()], [delta[::2, ::2].contiguous()], 1.0)
    torch.testing.assert_close(one, two, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.operation("update")
def test_undo_restores_nan_infinity_and_negative_zero(place, dtype, site):
    weight, x, delta, _ = site(place, dtype)
    weight[0, :3] = torch.tensor([torch.nan, torch.inf, -0.0])
    old = bits(weight)
    with place():
        undo = update_([weight], [x], [delta], 1e30)
    assert bool(weight[0, 0].isnan()) and not torch.equal(bits(weight), old)
    undo.undo()
    assert torch.equal(bits(weight), old)


@pytest.mark.operation("update")
def test_nan_goes_through_to_its_own_row(place, dtype, site):
    weight, x, delta, _ = site(place, dtype)
    x[1, 4] = torch.nan
    with place():
        update_([weight], [x], [delta], 1.0)
    assert bool(weight[4].isnan().all()) and int(weight.isnan().sum()) == weight.shape[1]


@pytest.mark.operation("update")
def test_sites_that_overlap_add_up_and_undo_exactly(place, dtype, random):
    """The whole matrix twice, with its query, key and value columns in between."""
    joint = random(8, 24, dtype=dtype, device=place.device)
    weights = [joint, *(joint[:, i : i + 8] for i in (0, 8, 16)), joint]
    xs = [random(2, 8, dtype=dtype, device=place.device) for _ in weights]
    deltas = [random(2, w.shape[1], dtype=dtype, device=place.device) for w in weights]
    old, one_by_one = bits(joint), joint.clone()
    slices = [one_by_one, *(one_by_one[:, i : i + 8] for i in (0, 8, 16)), one_by_one]
    with place():
        undo = update_(weights, xs, deltas, 0.7)
        for w, x, delta in zip(slices, xs, deltas):
            update_([w], [x], [delta], 0.7)
    assert torch.equal(joint, one_by_one)
    undo.undo()
    assert torch.equal(bits(joint), old)


@pytest.mark.operation("update")
def test_a_factor_that_lies_in_a_weight_is_read_as_it_was_before(place, random):
    weight = random(4, 4, device=place.device)
    want = weight + weight[:2].T @ weight[1:3]
    with place():
        update_([weight], [weight[:2]], [weight[1:3]], 1.0)
    torch.testing.assert_close(weight, want)


@pytest.mark.operation("update")
def test_sites_without_tokens_or_entries_are_left_alone(place, dtype, random):
    weights = [random(3, 4, dtype=dtype, device=place.device), random(0, 4, dtype=dtype, device=place.device)]
    xs = [random(n, d, dtype=dtype, device=place.device) for n, d in ((0, 3), (2, 0))]
    deltas = [random(n, 4, dtype=dtype, device=place.device) for n in (0, 2)]
    old = bits(weights[0])
    with place():
        update_(weights, xs, deltas, 1.0).undo()
        update_([], [], [], 1.0).undo()
    assert torch.equal(bits(weights[0]), old)


@pytest.mark.operation("update")
def test_a_with_block_undoes_also_after_an_exception_and_undo_happens_once(place, dtype, site):
    weight, x, delta, _ = site(place, dtype)
    old = bits(weight)
    with place(), pytest.raises(KeyError), update_([weight], [x], [delta], 1.0) as undo:
        assert not torch.equal(bits(weight), old)
        raise KeyError
    assert torch.equal(bits(weight), old)
    weight.zero_()
    undo.undo()
    assert not weight.any()


@pytest.mark.operation("update")
def test_an_interrupted_update_finds_all_weights_restored(place, dtype, site, monkeypatch):
    sites = [site(place, dtype, view)[:3] for view in ("whole", "transposed", "one row")]
    old = [bits(weight) for weight, *_ in sites]
    done = []

    def interrupted(weight, *rest, inner=update._update):
        if len(done) == 2:
            raise KeyboardInterrupt
        inner(weight, *rest)
        done.append(weight)

    monkeypatch.setattr(update, "_update", interrupted)
    with place(), pytest.raises(KeyboardInterrupt):
        update_(*zip(*sites), 1.0)
    assert len(done) == 2 and all(torch.equal(bits(weight), b) for (weight, *_), b in zip(sites, old))


@pytest.mark.operation("update")
def test_autograd_sees_an_update_as_it_sees_an_optimizers_step(place, random):
    linear = torch.nn.Linear(5, 4, bias=False).to(place.device)
    view, x, delta = linear.weight.T, random(2, 5, device=place.device), random(2, 4, device=place.device)
    loss = linear(random(3, 5, device=place.device).requires_grad_()).sum()
    version = linear.weight._version
    with place():
        undo = update_([view], [x], [delta], 1.0)
    assert linear.weight._version > version and linear.weight.is_leaf and linear.weight.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    undo.undo()
    linear(random(3, 5, device=place.device)).sum().backward()
    assert linear.weight.grad is not None


def test_a_bad_site_is_refused_before_any_weight_is_touched(refuses):
    good, x, delta = torch.ones(3, 4), torch.ones(2, 3), torch.ones(2, 4)
    with torch.inference_mode():
        made_there = torch.ones(3, 4)
    bad = [
        (torch.ones(4, 3), x, delta, r"\[3, 4\], and got \[4, 3\]"),
        (good.clone(), x[:1], delta, "same n tokens"),
        (good.long(), x, delta, "int64"),
        (good.clone(), x.int(), delta, "int32"),
        (good.to("meta"), x, delta, "cpu, meta"),
        (torch.ones(3, 1).expand(3, 4), x, delta, "share memory"),
        (torch.ones(6).as_strided((3, 4), (1, 1)), x, delta, "share memory"),
        (made_there, x, delta, "inference_mode"),
    ]
    for weight, x_bad, delta_bad, words in bad:
        with refuses(ValueError, words):
            update_([good, weight], [x, x_bad], [delta, delta_bad], 1.0)
    with refuses(ValueError, "there are 2, 1 and 1"):
        update_([good, good], [x], [delta], 1.0)
    assert good._version == 0 and torch.equal(good, torch.ones(3, 4))


def test_a_weight_from_inference_mode_can_be_updated_there():
    with torch.inference_mode():
        weight = torch.zeros(3, 4)
        update_([weight], [torch.ones(2, 3)], [torch.ones(2, 4)], 0.5).undo()
        assert not weight.any()


def test_half_precision_weights_are_widened_a_piece_at_a_time(random, record, monkeypatch):
    monkeypatch.setattr(update, "BATCH", 100)
    weight, x, delta = random(64, 40, dtype=torch.bfloat16), random(2, 64), random(2, 40)
    want = (weight.float() + x.T @ delta).bfloat16()
    with record() as sizes:
        update_([weight], [x], [delta], 1.0)
    assert torch.equal(weight, want)
    assert sorted(sizes)[-1] == weight.numel() and sorted(sizes)[-2] <= 200  # the old values, and one piece
