"""A subnetwork goes out of its model and comes back bit for bit, and its densities are those of the dense masks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from lens import Request
from lens.edit import Change, Edit
from lens.kernels import pack
from lens.mask import Config, Subnetwork
from lens.model.families import FAMILIES
from lens.overlap import union


@pytest.fixture
def random_subnetwork():
    """``random_subnetwork(lm)``: a tenth of the weights (or neurons) of each site of layers 1 and 2."""

    def make(lm, sites=None, seed=0, granularity="weight", share=0.1) -> Subnetwork:
        generator = torch.Generator().manual_seed(seed)
        bits, shapes = {}, {}
        for layer, site in itertools.product((1, 2), sites or lm.sites):
            shape = shapes[layer, site] = tuple(lm.weight(layer, site).shape)
            shape = (shape[0], 1) if granularity == "neuron" else shape
            bits[layer, site] = pack(torch.rand(shape, generator=generator) < share)
        config = Config(granularity=granularity)
        head = getattr(lm.model.config, "head_dim", None) or lm.width // lm.model.config.num_attention_heads
        return Subnetwork(bits, shapes, config, (), lm.name, lm.fingerprint, head)

    return make


def weights(lm) -> dict:
    return {name: p.detach().clone() for name, p in lm.model.named_parameters()}


def same(lm, before) -> bool:
    return all(torch.equal(p.view(torch.uint8), before[n].view(torch.uint8)) for n, p in lm.model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_removed_and_only_zero_what_they_say_and_restore_every_bit(tiny, random_subnetwork, kind, granularity, dtype):
    lm = tiny(kind, dtype)
    lm.model.get_parameter(next(n for n, _ in lm.model.named_parameters() if "weight" in n)).data.view(-1)[0] = -0.0
    for sites in (None, ("attn_k", "ff2")):
        sub = random_subnetwork(lm, sites, granularity=granularity)
        before = weights(lm)
        dense = {key: lm.weight(*key).clone() for key in itertools.product(range(3), lm.sites)}
        for part, keeps in ((sub.removed, lambda m: ~m), (sub.only, lambda m: m)):
            with part(lm) as inside:
                assert inside is lm
                for (layer, site), w in dense.items():
                    masked = (layer, site) in sub.bits
                    want = torch.where(keeps(sub.mask(layer, site)), w, 0) if masked else w
                    assert torch.equal(lm.weight(layer, site), want), (layer, site)
                for name, p in lm.model.named_parameters():
                    assert p.ndim > 1 or torch.equal(p, before[name])
            assert same(lm, before)


@pytest.mark.parametrize("part", ["removed", "only"])
def test_an_exception_inside_leaves_the_model_whole(tiny, random_subnetwork, part):
    lm = tiny("gpt2", torch.float32)
    before, sub = weights(lm), random_subnetwork(lm)
    for accident in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(accident), getattr(sub, part)(lm):
            raise accident
        assert same(lm, before)


def test_an_accident_while_it_goes_in_leaves_the_model_whole(tiny, random_subnetwork, monkeypatch):
    from lens.mask import subnetwork

    lm = tiny("llama", torch.float32)
    before, sub = weights(lm), random_subnetwork(lm)
    put, calls = subnetwork._put, []

    def accident(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        put(*arguments)

    monkeypatch.setattr(subnetwork, "_put", accident)
    with pytest.raises(MemoryError), sub.removed(lm):
        pass
    assert len(calls) == 5 + 5 and same(lm, before)


def test_subnetworks_nest_in_each_other_and_around_edits(tiny, random_subnetwork):
    lm = tiny("gpt_neox", torch.float32)
    before = weights(lm)
    one, two = random_subnetwork(lm, seed=1, share=0.5), random_subnetwork(lm, seed=2, share=0.5)
    x, delta = torch.randn(1, lm.width), torch.randn(1, lm.width)
    edit = Edit("random", (Request("The {} is", "cat", "mat"),), (Change(1, "attn_out", x, delta),), {}, 0.0, lm)
    with one.removed(lm):
        first = weights(lm)
        with edit, two.removed(lm):
            gone = one.mask(2, "ff1") | two.mask(2, "ff1")
            assert torch.equal(lm.weight(2, "ff1") == 0, gone)
        assert same(lm, first)
        with two.only(lm):
            assert torch.equal(lm.weight(2, "ff1") != 0, two.mask(2, "ff1") & ~one.mask(2, "ff1"))
        assert same(lm, first)
    assert same(lm, before)


def test_another_model_is_refused_and_stays_as_it_is(tiny, random_subnetwork, refuses):
    lm = tiny("gpt2")
    sub = random_subnetwork(lm)
    for other in (tiny("gpt2", seed=1), tiny("gpt2", torch.float32), tiny("llama")):
        before = weights(other)
        for part in (sub.removed, sub.only):
            with refuses(ValueError, "found in another model .*tiny gpt2"), part(other):
                raise AssertionError("the block must not run")
        with refuses(ValueError, "another model"):
            sub.check(other)
        assert same(other, before)
    sub.check(lm)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_densities_are_those_of_the_dense_masks(tiny, random_subnetwork, kind, granularity):
    lm = tiny(kind)
    sub = random_subnetwork(lm, granularity=granularity, share=0.3)
    dense = {key: sub.mask(*key).double() for key in sub.bits}
    for key, m in dense.items():
        assert m.shape == lm.weight(*key).shape

    def share(of) -> float:
        return float(torch.cat([m.flatten() for key, m in dense.items() if of(key)]).mean())

    assert sub.density() == pytest.approx(share(lambda key: True)) and sub.sparsity == 1 - sub.density()
    by = {name: sub.density(name) for name in ("module", "layer", "site", "head")}
    assert by["module"] == pytest.approx({key: float(m.mean()) for key, m in dense.items()})
    assert by["layer"] == pytest.approx({n: share(lambda key: key[0] == n) for n in (1, 2)})
    assert by["site"] == pytest.approx({s: share(lambda key: key[1] == s) for s in lm.sites})

    heads = {"attn_q": 4, "attn_k": 4, "attn_v": 4, "attn_out": 4}
    if kind in ("llama", "gemma2"):  # two key-value heads, each read by two query heads
        heads |= {"attn_k": 2, "attn_v": 2}
    assert set(by["head"]) == {(n, s, h) for n in (1, 2) for s, count in heads.items() for h in range(count)}
    for (layer, site, head), density in by["head"].items():
        m = dense[layer, site]
        wide = m.shape[site != "attn_out"] // heads[site]
        cut = slice(head * wide, (head + 1) * wide)
        own = m[cut] if site == "attn_out" else m[:, cut]
        assert density == pytest.approx(float(own.mean()), rel=1e-6)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_head_of_the_mask_is_a_head_of_the_model(tiny, random_subnetwork, kind):
    """Without head 1's outputs of v, what attention's last map receives from that head is its bias alone."""
    lm = tiny(kind)
    width = random_subnetwork(lm).head_dim
    per = lm.model.config.num_attention_heads // (lm.weight(1, "attn_v").shape[1] // width)
    m = torch.zeros(lm.weight(1, "attn_v").shape, dtype=torch.bool)
    m[:, width : 2 * width] = True
    empty = {key: pack(torch.zeros(bits.shape, dtype=torch.bool)) for key, bits in random_subnetwork(lm).bits.items()}
    sub = random_subnetwork(lm).with_bits(empty | {(1, "attn_v"): pack(m)}, "head 1")
    assert {key for key, share in sub.density("head").items() if share} == {(1, "attn_v", 1)}
    seen = []
    hook = lm.site(1, "attn_out").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad(), sub.removed(lm):
        lm.model(input_ids=torch.tensor([[5, 6, 7, 8]]), use_cache=False)
    hook.remove()
    heads = seen[0][0].unflatten(-1, (-1, width))  # [T, heads, d_head]
    constant = (heads - heads[:1]).abs().amax((0, 2)) < 1e-12  # the same at every token: nothing was read
    assert constant.nonzero()[:, 0].tolist() == list(range(per, 2 * per))


def test_what_is_not_known_is_refused(tiny, random_subnetwork, refuses):
    sub = random_subnetwork(tiny("gpt2"), sites=("ff1",))
    with refuses(ValueError, "by 'color'.*module.*head"):
        sub.density("color")
    with pytest.raises(KeyError, match="Layer 0 ff1 is not masked: 1 ff1, 2 ff1 are"):
        sub.mask(0, "ff1")
    assert sub.density("head") == {}


def test_other_weights_of_the_same_sites_keep_where_they_come_from(tiny, random_subnetwork):
    lm = tiny("gpt2")
    sub = replace(random_subnetwork(lm), history=({"step": 1},), about={"seconds": 3.0})
    union = sub.with_bits({key: bits | ~bits for key, bits in sub.bits.items()}, "everything")
    assert union.density() == 1 and union.history == () and union.about == {"note": "everything"}
    assert (union.config, union.fingerprint, union.shapes) == (sub.config, sub.fingerprint, sub.shapes)
    assert "2 layers" not in repr(sub) and "12 sites" in repr(sub) and "sparsity 0.00 %" in repr(union)


def test_bits_of_other_sites_or_shapes_are_refused(tiny, random_subnetwork, refuses):
    sub = random_subnetwork(tiny("gpt2"))
    key = next(key for key, shape in sub.shapes.items() if shape[0] != shape[1])
    turned = {**sub.bits, key: pack(sub.mask(*key).T.contiguous())}
    for wrong in ({**sub.bits, (0, "ff2"): sub.bits[key]}, turned):
        with refuses(ValueError, "give bits .d_in, d_out., or .d_in, 1., for its own sites"):
            sub.with_bits(wrong, "wrong")
    part = sub.with_bits({key: sub.bits[key]}, "a part")
    with refuses(ValueError, "Of 0 and 1 only one has bits for layer"):
        union([part, sub])
