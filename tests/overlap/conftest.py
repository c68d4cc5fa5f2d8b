"""Random subnetworks of awkward shapes, whose overlaps are known from their unpacked masks."""

from __future__ import annotations

import pytest
import torch

from lens.kernels import pack
from lens.mask import Config, Subnetwork

SHAPES = {(2, "attn_q"): (7, 9), (2, "ff1"): (12, 31), (5, "attn_q"): (7, 9), (5, "ff2"): (65, 3)}


@pytest.fixture(scope="session")
def subnetwork():
    """``subnetwork(seed, share)``: random weights, or neurons, of four sites in two layers."""

    def make(seed=0, share=0.2, granularity="weight", shapes=SHAPES, fingerprint="f") -> Subnetwork:
        generator = torch.Generator().manual_seed(seed)
        bits = {}
        for key, shape in shapes.items():
            size = (shape[0], 1) if granularity == "neuron" else shape
            bits[key] = pack(torch.rand(size, generator=generator) < share)
        return Subnetwork(bits, dict(shapes), Config(granularity=granularity), (), "some", fingerprint, 4)

    return make


@pytest.fixture(scope="session")
def flat():
    """``flat(subnetwork)``: all its masks, unpacked, as one bool vector."""
    return lambda one: torch.cat([one.mask(*key).flatten() for key in one.bits])
