"""Matrices beyond 2³¹ entries: addresses are 64 bits wide in every kernel that could meet one."""

from __future__ import annotations

import pytest
import torch

from lens import kernels
from lens.kernels import noise
from lens.kernels.masking import exp_minus

pytestmark = pytest.mark.gpu
ROWS, COLUMNS = 66_000, 32_768  # 2.16e9


@pytest.fixture
def room():
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs a GPU with 40 GB of free memory: tests/gpu/run.sh runs it where there is one")


def test_the_mask_of_more_than_two_billion_weights_is_right_to_the_last(room):
    weight = torch.ones(ROWS, COLUMNS, dtype=torch.bfloat16, device="cuda")
    scores = torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16, device="cuda")
    key = kernels.Key(3, 2, 1)
    with kernels.use("triton"):
        out = kernels.mask(weight, scores, key)
    rows = range(ROWS - 5, ROWS)
    a = noise.odd(noise.words(rows, COLUMNS, key, "cuda"))
    removed = a > (2.0**24 - a) * exp_minus(scores[rows.start :])
    assert torch.equal(out[rows.start :] == 0, removed)


def test_an_update_of_more_than_two_billion_weights_is_right_to_the_last(room):
    weight = torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16, device="cuda")
    x, delta = torch.ones(1, ROWS, device="cuda").bfloat16(), torch.ones(1, COLUMNS, device="cuda").bfloat16()
    with kernels.use("triton"):
        undo = kernels.update_([weight], [x], [delta], 2.0)
    assert bool((weight[-3:] == 2).all()) and bool((weight[:3] == 2).all())
    undo.undo()
    assert not bool(weight[-3:].any())
