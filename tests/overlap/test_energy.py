"""The energy on a mask is that of the dense matrices, and chance is what random masks hold."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from lens import FactoredGradient, Request, capture
from lens.edit import Change, Edit
from lens.kernels import pack
from lens.mask import Config, Subnetwork, random_like
from lens.overlap import energy
from lens.overlap import energy as function

KINDS = ["gpt2", "gpt_neox", "opt", "llama", "gemma2"]
BY = ("layer", "site", "module", None)


@pytest.fixture
def subnetwork():
    """``subnetwork(lm)``: a tenth of the weights (or neurons) of each site of layers 1 and 2."""

    def make(lm, seed=0, granularity="weight", share=0.1) -> Subnetwork:
        generator = torch.Generator().manual_seed(seed)
        bits, shapes = {}, {}
        for key in itertools.product((1, 2), lm.sites):
            shape = shapes[key] = tuple(lm.weight(*key).shape)
            shape = (shape[0], 1) if granularity == "neuron" else shape
            bits[key] = pack(torch.rand(shape, generator=generator) < share)
        return Subnetwork(bits, shapes, Config(granularity=granularity), (), lm.name, lm.fingerprint, 8)

    return make


@pytest.fixture(params=[None, 200])
def blocks(request, monkeypatch):
    """Matrices as a whole, and in blocks of a few rows."""
    if request.param:
        import sys

        monkeypatch.setattr(sys.modules[function.__module__], "BLOCK", request.param)


def written_out(sub, dense: dict, weights=None) -> dict:
    """(layer, site) → ‖m ∘ D‖², ‖D‖², of whole matrices."""
    found = {}
    for key, d in dense.items():
        d = d if weights is None else d * weights.weight(*key).detach()
        found[key] = float((sub.mask(*key) * d).square().sum()), float(d.square().sum())
    return found


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_of_a_gradient_is_that_of_its_dense_matrix(tiny, subnetwork, blocks, kind, granularity):
    lm = tiny(kind)
    sub, trace = subnetwork(lm, granularity=granularity), capture(lm, "A cafe is a kind of", "hut")
    dense = {key: trace.gradient(*key).dense() for key in sub.bits}
    for weights in (None, lm):
        want, found = written_out(sub, dense, weights), energy(sub, trace, weights=weights)
        for i, key in enumerate(found.sites):
            assert (float(found.inside[i]), float(found.total[i])) == pytest.approx(want[key], rel=1e-12)
        assert found.inside.dtype == torch.float64 and list(found.sites) == list(sub.bits)
        inside, total = (sum(column) for column in zip(*want.values()))
        assert float(found.share()) == pytest.approx(inside / total, rel=1e-12)
        chance = sum(sub.density("module")[key] * t for key, (_, t) in want.items()) / total
        assert float(found.chance()) == pytest.approx(chance, rel=1e-9)
        assert float(found.ratio()) == pytest.approx(inside / total / chance, rel=1e-9)
        for by, group in (("layer", lambda key: key[0]), ("site", lambda key: key[1]), ("module", lambda key: key)):
            for name, share in found.share(by).items():
                some = [pair for key, pair in want.items() if group(key) == name]
                assert float(share) == pytest.approx(sum(i for i, _ in some) / sum(t for _, t in some), rel=1e-9)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_random_masks_hold_on_average_what_chance_says_and_spread_as_it_says(tiny, subnetwork, granularity):
    lm = tiny("gpt2")
    sub, trace = subnetwork(lm, granularity=granularity, share=0.15), capture(lm, "A cafe is a kind of", "hut")
    found, draws = energy(sub, trace), 800
    drawn = energy([random_like(sub, seed) for seed in range(draws)], trace)
    for by in BY:
        got, mean, spread = drawn.share(by), found.chance(by), found.deviation(by)
        one = {None: got} if by is None else got
        for name, shares in one.items():
            m, s = (mean, spread) if by is None else (mean[name], spread[name])
            assert abs(float(shares.mean() - m)) < 4.5 * float(s) / draws**0.5, (by, name)
            assert float(shares.std()) == pytest.approx(float(s), rel=0.15), (by, name)  # the energies have heavy tails


def test_pairs_of_several_are_each_as_one_by_one(tiny, subnetwork, blocks):
    lm = tiny("llama")
    subs = [subnetwork(lm, seed) for seed in range(3)]
    traces = list(capture(lm, ["A cafe is a kind of", "Rain fell"], ["hut", "on"]))
    table = energy(subs, traces)
    assert table.share().shape == (2, 3) and table.inside.shape == (2, 3, len(subs[0].bits))
    for c, s in itertools.product(range(2), range(3)):
        one = energy(subs[s], traces[c])
        for of in ("share", "chance", "deviation", "ratio"):
            assert torch.allclose(getattr(table, of)()[c, s], getattr(one, of)(), rtol=1e-12)
    assert energy(subs, traces[0]).share().shape == (3,) and energy(subs[0], traces).share().shape == (2,)


def test_edits_gradients_matrices_and_their_sums_are_all_changes(tiny, subnetwork, error):
    lm = tiny("gpt2")
    sub, key = subnetwork(lm), (1, "ff2")
    shape = lm.weight(*key).shape
    x, delta = torch.randn(2, shape[0]).double(), torch.randn(2, shape[1]).double()
    whole = torch.randn(shape).double()
    request = (Request("The {} is", "cat", "mat"),)
    edit = Edit("two", request, (Change(*key, x, delta), Change(*key, None, whole)), {}, 0.0, lm)
    want = energy(sub, {key: x.T @ delta + whole})
    assert error(energy(sub, edit).inside, want.inside) < 1e-12
    thin = energy(sub, {key: x.T @ delta}).inside
    for same in (FactoredGradient(x, delta, *key), Change(*key, x, delta)):
        assert error(energy(sub, same).inside, thin) < 1e-12
    with edit:  # also while it is applied
        assert error(energy(sub, edit).inside, want.inside) < 1e-12
    elsewhere = energy(sub, {key: whole, (0, "ff2"): whole})
    assert error(elsewhere.total.sum(), whole.square().sum()) < 1e-12  # what is not masked is left out
    assert elsewhere.share("site")["ff1"].isnan() and not elsewhere.share().isnan()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_empty_and_a_full_mask_leave_nothing_to_chance(tiny, subnetwork, share):
    lm = tiny("gpt2")
    found = energy(subnetwork(lm, share=share), capture(lm, "A cafe is", "hut"))
    assert float(found.share()) == pytest.approx(share) == float(found.chance()) and float(found.deviation()) == 0


def test_half_precision_gradients_too_small_for_their_squares_are_measured(tiny, subnetwork, error):
    lm = tiny("gpt2")
    sub, g = subnetwork(lm), capture(lm, "A cafe is a kind of", "hut").gradient(1, "ff2")
    small = replace(g, x=(1e-3 * g.x).half(), delta=(1e-3 * g.delta).half())
    exact = energy(sub, replace(g, x=small.x.double(), delta=small.delta.double()))
    assert float(energy(sub, small).share()) == pytest.approx(float(exact.share()), rel=1e-4)
    assert 0 < float(exact.share()) < 1


def test_no_dense_matrix_is_made_of_a_large_gradient(tiny, subnetwork, record, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules[function.__module__], "BLOCK", 400)
    lm = tiny("gpt2", n_embd=48, n_inner=160)
    sub, g = subnetwork(lm), capture(lm, "A cafe is a kind of", "hut").gradient(1, "ff2")
    with record() as sizes:
        energy(sub, g)
    assert sizes and max(sizes) < g.shape[0] * g.shape[1] / 2


def test_what_does_not_belong_together_is_refused(tiny, subnetwork, refuses):
    lm, other = tiny("gpt2"), tiny("gpt2", seed=1)
    sub, trace = subnetwork(lm), capture(lm, "A cafe is", "hut")
    edit = Edit("one", (Request("The {} is", "cat", "mat"),), (), {}, 0.0, other)
    with refuses(ValueError, "another model"):
        energy(sub, edit)
    with refuses(ValueError, "another model"):
        energy(sub, capture(other, "A cafe is", "hut"))
    with refuses(ValueError, "another model"):
        energy(sub, trace, weights=other)
    with sub.removed(lm), refuses(ValueError, "The weights are changed now"):
        energy(sub, trace, weights=lm)
    with refuses(ValueError, "not of one model"):
        energy([sub, subnetwork(other)], trace)
    with refuses(ValueError, "one granularity"):
        energy([sub, subnetwork(lm, granularity="neuron")], trace)
    with refuses(ValueError, r"layer 1 ff2 is \[3, 4\] and the mask \[40, 24\]"):
        energy(sub, {(1, "ff2"): torch.ones(3, 4)})
    with refuses(ValueError, "Got 3 for a change"):
        energy(sub, [3])
    for given in ((sub, []), (sub, ()), ([], trace)):
        with refuses(ValueError, "empty list"):
            energy(*given)
    for layer in (-1, None):
        for change in (
            {(layer, "ff2"): torch.ones(40, 24)},
            FactoredGradient(torch.ones(1, 40), torch.ones(1, 24), layer),
        ):
            with refuses(ValueError, f"of layer {layer}.*from 0"):
                energy(sub, [change])
    with refuses(ValueError, "Change 1 has numbers .* not finite"):
        energy(sub, [trace, {(1, "ff2"): torch.full((40, 24), torch.nan)}])
    with refuses(ValueError, "by 'head' is not known"):
        energy(sub, trace).share("head")


def test_a_change_without_energy_is_refused_in_one_sentence(tiny, subnetwork, refuses):
    lm = tiny("gpt2")
    sub = subnetwork(lm)
    below = capture(lm, "A cafe is", "hut", layers=[0])
    empty = Edit("none", (Request("The {} is", "cat", "mat"),), (), {}, 0.0, lm)
    for silent in (below, empty, {}, {(1, "ff2"): torch.zeros(40, 24)}):
        with refuses(ValueError, r"The change is zero in every masked site \(layers 1 to 2\)"):
            energy(sub, silent)
    with refuses(ValueError, "Change 1 is zero"):
        energy(sub, [capture(lm, "A cafe is", "hut"), below])
