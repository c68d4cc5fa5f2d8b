"""The losses and their gradient are those of a formulation written out in full, in every family and variant."""

from __future__ import annotations

import weakref

import pytest
import torch

import lens
from lens.kernels import AllMasks, Key
from lens.mask.examples import Order, of_prompts, of_texts
from lens.mask.objective import Objective
from lens.mask.places import places
from lens.mask.scores import Scores
from lens.mask.training import train
from lens.model.families import FAMILIES

IN_FLOAT32 = 2e-5
"""Norms and shares of a row compute in float32 where the model is in float64."""


@pytest.fixture
def prepared(sets, short):
    """``prepared(lm, **settings)``: configuration, random scores, objective, three sets of examples."""

    def make(lm, sites=None, **settings):
        config = short(sites=sites, **settings)
        masked = places(lm, config.layers, sites)
        first = min(place.layer for place in masked)
        scores = Scores(masked, config.granularity, config.start, config.seed, config.tau)
        generator = torch.Generator().manual_seed(5)
        for values in scores.values:
            values.add_(torch.randn(values.shape, generator=generator))
        three = (
            of_prompts(lm, sets.target, first, after=config.position == "after"),
            of_prompts(lm, sets.control, first),
            of_texts(lm, sets.text, first, config.tokens),
        )
        return config, scores, Objective(lm, config, first), three

    return make


@pytest.fixture
def compared(prepared, written_out, sets, error):
    """``compared(lm, **settings)``: losses and gradients agree with those written out."""

    def compare(lm, step=4, **settings):
        config, scores, objective, three = prepared(lm, **settings)
        got = objective.backward(scores, step, *three)
        texts = [ids for t in sets.text if len(ids := lm.tokenizer(t)["input_ids"][: config.tokens]) > 1]
        want, gradients = written_out(lm, config, scores, step, sets.target, sets.control, texts)
        for name, value in got.items():
            assert float(value) == pytest.approx(want[name], rel=IN_FLOAT32), name
        for place, values, gradient in zip(scores.places, scores.values, gradients):
            assert gradient.abs().max() > 0, place.path
            assert error(values.grad, gradient) < IN_FLOAT32, place.path
        return set(got)

    return compare


@pytest.mark.parametrize("samples", ["shared", "independent"])
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_gradient_is_that_of_the_losses_written_out(tiny, compared, kind, granularity, samples):
    compared(tiny(kind), granularity=granularity, samples=samples, tau=0.8)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("samples", ["shared", "independent"])
def test_so_it_is_for_ablations_and_for_part_of_a_joint_matrix(tiny, compared, kind, granularity, samples):
    lm, settings = tiny(kind), dict(sites=("attn_q", "attn_v", "ff2"), granularity=granularity, samples=samples)
    names = compared(lm, express=0.7, maintain_kg=0, **settings)
    assert names == {"suppress", "maintain_lm", "express", "density"}
    assert compared(lm, position="after", maintain_kg=0, **settings) == {"suppress", "maintain_lm", "density"}


@pytest.mark.parametrize("settings", [dict(layers=(0,)), dict(layers=(-1,)), dict(layers=(0, 2), sites=("ff1",))])
def test_any_layers_can_be_masked(tiny, compared, settings):
    compared(tiny("gpt_neox"), **settings)


def test_a_loss_of_weight_zero_costs_no_pass_and_adds_nothing(tiny, prepared):
    lm = tiny("gpt2")
    calls = []
    for weights, passes in (
        ({}, 2),  # target with control, and text
        (dict(samples="independent"), 3),
        (dict(maintain_kg=0), 2),
        (dict(suppress=0, maintain_kg=0), 1),
        (dict(maintain_lm=0), 1),
        (dict(express=1.0), 3),
        (dict(suppress=0, maintain_kg=0, maintain_lm=0), 0),
    ):
        config, scores, objective, three = prepared(lm, **weights)
        objective.backward(scores, 0, *three)  # the first time, each length of text is looked at
        calls.clear()
        hook = lm.layers[-1].register_forward_hook(lambda *_: calls.append(1))
        found = objective.backward(scores, 0, *three)
        hook.remove()
        assert len(calls) == passes, weights
        wanted = {n for n in ("suppress", "maintain_kg", "maintain_lm", "express") if getattr(config, n)}
        assert set(found) == {"density"} | wanted


@pytest.mark.parametrize("kind", FAMILIES)
def test_prompts_that_share_a_pass_have_the_losses_of_separate_passes(tiny, prepared, kind):
    lm = tiny(kind)
    _, scores, objective, (target, control, _) = prepared(lm)
    control = control.rows(torch.tensor([0, 1, 3]))
    assert target.hidden.shape[1] != control.hidden.shape[1]  # one of them is padded
    with torch.no_grad():
        weights = scores.named(scores.sample(1))
        together = objective.losses([("suppress", target), ("maintain_kg", control)], weights)
        alone = objective.losses([("suppress", target)], weights)
        alone |= objective.losses([("maintain_kg", control)], weights)
        singly = [control.rows(torch.tensor([n])) for n in range(len(control))]
        each = [float(objective.losses([("maintain_kg", row)], weights)["maintain_kg"]) for row in singly]
    for name, loss in together.items():
        assert float(loss) == pytest.approx(float(alone[name]), rel=1e-6), name
    assert float(alone["maintain_kg"]) == pytest.approx(sum(each) / len(each), rel=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_what_is_not_masked_in_a_joint_matrix_stays(tiny, prepared, kind, granularity):
    lm = tiny(kind)
    _, scores, objective, three = prepared(lm, sites=("attn_q",), granularity=granularity)
    objective.backward(scores, 0, *three)
    torch.optim.Adam(scores.values, lr=0.3).step()
    width = lm.width
    if kind == "gpt2":
        q = torch.arange(width)
    else:  # q₁ k₁ v₁ | q₂ k₂ v₂ | …
        q = torch.cat([torch.arange(6) + 18 * head for head in range(4)])
    rest = torch.ones(3 * width, dtype=torch.bool)
    rest[q] = False
    for weights in (scores.sample(3), scores.sample(3, part="subnetwork"), scores.hard()):
        for place, w in zip(scores.places, weights):
            changed = place.upright(w.detach()) != place.matrix
            assert changed[:, q].any() and not changed[:, rest].any()
    assert set(scores.bits()) == {(1, "attn_q"), (2, "attn_q")}


def test_both_parts_of_one_sample_make_up_the_weight(tiny, prepared):
    _, scores, _, _ = prepared(tiny("llama"))
    for place, remaining, critical in zip(scores.places, scores.sample(2), scores.sample(2, part="subnetwork")):
        assert torch.equal(remaining + critical, place.weight) and (remaining == 0).any() and (critical == 0).any()
    again, other = scores.sample(2)[0], scores.sample(3)[0]
    assert torch.equal(again, scores.sample(2)[0]) and not torch.equal(again, other)
    assert not torch.equal(again, scores.sample(2, draw=1)[0])


def test_no_two_matrices_draw_and_steps_share_noise(tiny, prepared, monkeypatch):
    _, scores, objective, three = prepared(tiny("gpt2"), samples="independent", express=1.0)
    keys: list[Key] = []
    honest = AllMasks.draw
    monkeypatch.setattr(
        AllMasks,
        "draw",
        lambda self, key, **rest: (
            keys.extend(key._replace(site=key.site + i) for i in self.sites) or honest(self, key, **rest)
        ),
    )
    for step in range(2):
        objective.backward(scores, step, *three)
    assert len(keys) == len(set(keys)) == 2 * 4 * len(scores.places)


def test_the_hard_losses_are_those_of_the_weights_set_to_zero(tiny, prepared):
    lm = tiny("qwen2")
    _, scores, objective, three = prepared(lm)
    hard = objective.hard(scores, *three)
    whole = {key: lm.model.state_dict()[key].clone() for key in lm.model.state_dict()}
    for place, values in zip(scores.places, scores.values):
        place.weight.data[values > 0] = 0
    with torch.no_grad():
        own = scores.named([place.weight for place in scores.places])
        want = objective.losses([("suppress", three[0])], own) | objective.losses([("maintain_lm", three[2])], own)
    lm.model.load_state_dict(whole)
    for name, loss in want.items():
        assert hard[name] == pytest.approx(float(loss), rel=1e-9)
    ones = sum(int((v > 0).sum()) for v in scores.values)
    assert hard["density"] == ones / sum(v.numel() for v in scores.values) and hard["suppress"] > 0


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("sites", [None, ["attn_q", "attn_v", "ff2"]])
def test_lambda_weighs_the_density_that_is_reported(tiny, sets, short, granularity, sites):
    """Also where matrices differ in width and where weights must stay: a mask of certain scores has one density."""
    lm = tiny("llama")  # k and v narrower than q, FF1 wider
    scores = Scores(places(lm, sites=sites), granularity, 0.45, 0)
    for n, values in enumerate(scores.values):
        certain = torch.where(torch.rand_like(values) < n / 9, 40.0, -40.0)
        values.copy_(torch.where(values > -torch.inf, certain, values))
    three = sets.target, sets.control, sets.text
    some = train(lm, *three, short(granularity=granularity, sites=sites, start=0.6, steps=1, check=1), progress=False)
    for part in (None, lens.mask.shrunk(some, 0.8)):
        if part:
            scores.forbid(part)
        found = some.with_bits(scores.bits(), "")
        assert 0 < found.density() == scores.hard_density() == pytest.approx(float(scores.density()), abs=1e-6)


def test_an_order_shows_every_row_once_before_any_comes_again():
    order = Order(count=10, size=4, seed=7, stream=1)
    shown = torch.cat([order[step] for step in range(10)])
    for start in range(0, 40, 10):
        assert sorted(shown[start : start + 10].tolist()) == list(range(10))
    assert not torch.equal(shown[:10], shown[10:20])
    later = Order(count=10, size=4, seed=7, stream=1)
    assert torch.equal(later[9], order[9]) and torch.equal(later[3], order[3])  # in any order of asking
    assert len(Order(count=3, size=8, seed=0, stream=0)[0]) == 3
    streams = [torch.cat([Order(50, 50, seed, stream)[0]]) for seed in (0, 1) for stream in (0, 1, 2)]
    assert len({tuple(s.tolist()) for s in streams}) == 6


def test_the_sampled_weights_are_gone_before_the_scores_gradients_are_made(tiny, prepared, monkeypatch):
    """Otherwise a step would hold every weight, its gradient and the scores' gradients at a time."""
    _, scores, objective, three = prepared(tiny("gpt2"))
    alive: list[weakref.ref] = []
    named, back_, counts = scores.named, scores.back_, []
    monkeypatch.setattr(scores, "named", lambda leaves: alive.extend(map(weakref.ref, leaves)) or named(leaves))
    monkeypatch.setattr(
        scores, "back_", lambda *a, **k: counts.append(sum(ref() is not None for ref in alive)) or back_(*a, **k)
    )
    objective.backward(scores, 0, *three)
    assert len(alive) == 2 * len(scores.places) and counts == [0]


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_a_place_on_its_own_is_masked_as_it_is_among_others(tiny, prepared, granularity):
    """Matrices of several dtypes or devices are drawn apart, with the noise that they would have together."""
    _, together, _, _ = prepared(tiny("llama"), granularity=granularity)
    apart = Scores(together.places, granularity, 0.3, together.seed, together.tau)
    for masks in apart._masks:
        apart._masks = [AllMasks([w], [i]) for i, w in zip(masks.sites, masks.weights)]
    apart.values = apart._in_order(masks.views for masks in apart._masks)
    for mine, values in zip(apart.values, together.values):
        mine.copy_(values)
    grads = [torch.ones_like(place.weight) for place in together.places]
    for scores in (together, apart):
        scores.back_(list(grads), 3, 1, sparsity=0.5)
    for w, other in zip(together.sample(3, 1), apart.sample(3, 1)):
        assert torch.equal(w, other)
    for values, other in zip(together.values, apart.values):
        assert torch.equal(values.grad, other.grad) and values.grad.abs().max() > 0
    assert float(together.density()) == pytest.approx(float(apart.density()))


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_what_may_be_in_no_mask_is_not_in_the_subnetwork_alone(tiny, kind):
    lm = tiny(kind)
    (place,) = masked = places(lm, [1], ["attn_q"])
    scores, shape = Scores(masked, "weight", 0.9, 0), tuple(lm.weight(1, "attn_q").shape)
    gone = torch.arange(shape[0] * shape[1]).view(shape) % 3 == 0
    scores.forbid(lens.mask.Subnetwork({(1, "attn_q"): lens.kernels.pack(gone)}, {(1, "attn_q"): shape}, *[None] * 5))
    alone, other = place.upright(scores.sample(0, part="subnetwork")[0]), torch.ones(place.matrix.shape[1]) > 0
    other[place.columns[0]] = False
    assert not alone[:, place.columns[0]][gone].any() and torch.equal(alone[:, other], place.matrix[:, other])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_neurons_of_a_model_in_half_precision_add_their_gradients_in_float32(tiny, dtype, error):
    lm = tiny("gpt2", dtype)
    masked = places(lm, iter([1]), ["ff2"])
    weight = masked[0].weight.detach()
    grad = (1e-6 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    want = (grad.double() * weight.double()).sum(1, keepdim=True)
    assert error(Scores(masked, "neuron", 0.5, 0)._summed(0, grad), want) < 1e-5
