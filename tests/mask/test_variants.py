"""Masks to compare with have exactly as many weights as they say, in each site, and others for another seed."""

from __future__ import annotations

import pytest
import torch

from lens.kernels import pack
from lens.mask import Config, Subnetwork, grown, random_like, shrunk

SHAPES = {(1, "attn_q"): (24, 24), (1, "ff1"): (24, 40), (2, "ff2"): (40, 24)}


@pytest.fixture(params=["weight", "neuron"])
def found(request) -> Subnetwork:
    generator = torch.Generator().manual_seed(1)
    bits = {}
    for share, (key, shape) in zip((0.03, 0.2, 0.9), SHAPES.items()):
        shape = (shape[0], 1) if request.param == "neuron" else shape
        bits[key] = pack(torch.rand(shape, generator=generator) < share)
    return Subnetwork(bits, SHAPES, Config(granularity=request.param), ({"step": 1},), "some", "f", 8)


def counts(subnetwork) -> dict:
    return {key: bits.count() for key, bits in subnetwork.bits.items()}


def test_a_random_mask_has_as_many_weights_in_each_site_elsewhere(found):
    drawn = random_like(found, seed=3)
    assert counts(drawn) == counts(found) and drawn.density("module") == found.density("module")
    assert drawn.bits != found.bits and random_like(found, seed=4).bits != drawn.bits
    assert random_like(found, seed=3).bits == drawn.bits
    assert drawn.about == {"note": "random weights of equal density, seed 3"} and drawn.history == ()


def test_random_weights_are_spread_evenly():
    bits = {(0, "ff1"): pack(torch.arange(4000).view(40, 100) < 1000)}  # the upper quarter
    sub = Subnetwork(bits, {(0, "ff1"): (40, 100)}, Config(), (), "some", "f", 8)
    mean = sum(random_like(sub, seed).mask(0, "ff1").double() for seed in range(200)) / 200
    assert float(mean.mean()) == 0.25 and float(mean.max()) < 0.5 and float(mean.min()) > 0.05


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 2.0, 1000])
def test_a_grown_mask_holds_the_old_one_and_so_many_more(found, share):
    larger = grown(found, share, seed=5)
    for key, bits in found.bits.items():
        assert bits & larger.bits[key] == bits
        most = torch.Size(bits.shape).numel()
        assert larger.bits[key].count() == min(most, bits.count() + round(share * bits.count()))
    assert share not in (0.5, 2.0) or grown(found, share, seed=6).bits != larger.bits


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_a_shrunk_mask_is_part_of_the_old_one(found, share):
    smaller = shrunk(found, share, seed=5)
    for key, bits in found.bits.items():
        assert bits | smaller.bits[key] == bits
        assert smaller.bits[key].count() == bits.count() - round(share * bits.count())
    assert share in (0, 1) or shrunk(found, share, seed=6).bits != smaller.bits


def test_a_share_that_is_none_is_refused(found, refuses):
    for share in (-0.1, float("nan"), float("inf")):
        with refuses(ValueError, "share is"):
            grown(found, share)
    for share in (-0.1, 1.1, float("nan")):
        with refuses(ValueError, "share is .*0 to 1"):
            shrunk(found, share)
