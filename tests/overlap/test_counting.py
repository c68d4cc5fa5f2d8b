"""Patterns of packed masks are those of the unpacked ones, whatever their sizes, and are counted at memory's speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.kernels import pack
from lens.overlap.counting import MOST, patterns


def naive(masks: list[torch.Tensor]) -> list[int]:
    member = sum(m.flatten().long() << i for i, m in enumerate(masks))
    return torch.bincount(member, minlength=1 << len(masks)).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 6), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.integers(0, 2**32 - 1))
def test_patterns_are_those_of_the_unpacked_masks(size, n, share, seed):
    masks = list(torch.rand(n, size, generator=torch.Generator().manual_seed(seed)) < share)
    assert patterns([pack(m).bytes for m in masks], size).tolist() == naive(masks)


def test_the_most_masks_and_their_order():
    masks = list(torch.rand(MOST, 333, generator=torch.Generator().manual_seed(1)) < 0.3)
    assert patterns([pack(m).bytes for m in masks], 333).tolist() == naive(masks)


def test_masks_of_many_words_are_counted_to_the_last():
    masks = list(torch.rand(3, 5003, generator=torch.Generator().manual_seed(2)) < 0.1)
    assert patterns([pack(m).bytes for m in masks], 5003).tolist() == naive(masks)


def test_masks_need_not_be_aligned_nor_of_whole_words():
    masks = list(torch.rand(2, 1001, generator=torch.Generator().manual_seed(3)) < 0.4)
    shifted = [torch.cat([torch.full((3,), 255, dtype=torch.uint8), pack(m).bytes])[3:] for m in masks]
    before = [m.clone() for m in shifted]
    assert patterns(shifted, 1001).tolist() == naive(masks)
    assert all(map(torch.equal, shifted, before))


@pytest.mark.slow
@pytest.mark.parametrize("n, weights, seconds", [(3, 42_500_000, 1.0), (10, 73_700_000, 1.0)])
def test_masks_of_large_models_are_compared_within_a_second(n, weights, seconds):
    """A tenth of ten masks of 737 million weights; they are taken in pieces, so that all take ten times as long."""
    generator = np.random.default_rng(0)
    masks = []
    for _ in range(n):
        packed = np.zeros(-(-weights // 8), np.uint8)
        where = generator.integers(0, weights - 8, weights // 50)
        packed[where // 8] |= (1 << where % 8).astype(np.uint8)
        masks.append(torch.from_numpy(packed))
    patterns(masks, weights)  # compile
    times = []
    for _ in range(3):
        begun = time.process_time()
        counts = patterns(masks, weights)
        times.append(time.process_time() - begun)
    assert counts.sum() == weights and min(times) < seconds, times
