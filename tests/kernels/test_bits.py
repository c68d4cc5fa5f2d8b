"""Packed masks: what they say about sets is what bool tensors say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens.kernels import bits
from lens.kernels.bits import iou, pack

shapes = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)


@given(shapes, st.integers(0, 2**32))
def test_and_or_xor_not_and_count_are_those_of_bool_tensors(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(shape, generator=generator) < 0.4 for _ in range(2))
    p, q = pack(a), pack(b)
    assert torch.equal(p.unpack(), a) and p.unpack().shape == a.shape
    for got, want in ((p & q, a & b), (p | q, a | b), (p ^ q, a ^ b), (~p, ~a)):
        assert got == pack(want) and got.count() == int(want.sum())
    assert len(p.bytes) == -(-a.numel() // 8)
    union = int((a | b).sum())
    assert iou(p, q) == (int((a & b).sum()) / union if union else 1.0)
    assert p.density() == (float(a.double().mean()) if a.numel() else 0)


def test_chunks_leave_no_seam(monkeypatch, random):
    mask = random(61, 37) > 0.3
    want = pack(mask)
    monkeypatch.setattr(bits, "CHUNK", 13)
    assert pack(mask) == want and want.count() == int(mask.sum())


def test_strided_masks_are_packed_in_reading_order(random):
    mask = random(11, 7) > 0
    assert pack(mask.T) == pack(mask.T.contiguous()) != pack(mask)


def test_every_byte_is_counted_right():
    every = bits.Bits(torch.arange(256, dtype=torch.uint8), (2048,))
    assert every.count() == sum(bin(i).count("1") for i in range(256))


def test_masks_of_two_shapes_and_masks_that_are_none_are_refused(refuses):
    with refuses(ValueError, r"\[3\].*\[4\]"):
        pack(torch.zeros(3) > 0) & pack(torch.zeros(4) > 0)
    with refuses(ValueError, "bool"):
        pack(torch.zeros(3))
    with pytest.raises(TypeError, match="unhashable"):  # equal sets of different tensors would be two keys
        hash(pack(torch.zeros(3) > 0))


@pytest.mark.gpu
def test_on_a_gpu(random):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: tests/gpu/run.sh runs it where there is one")
    mask = random(300, 7) > 0
    assert pack(mask.cuda()).count() == pack(mask).count()
