"""Editors on a GPU: the same factors as on a CPU, every bit restored, and the evaluation that reads the same."""

from __future__ import annotations

import pytest
import torch

import lens
from lens import data, edit
from lens.evaluate import score

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def both():
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: tests/gpu/run.sh runs it where there is one")
    return lens.load("mini", device="cpu"), lens.load("mini", device="cuda")


@pytest.mark.parametrize("name", ["shift", "sgd_step", "finetune", "rome", "memit", "alphaedit", "mend"])
def test_an_editor_writes_the_same_on_a_gpu(both, name, error):
    changes = [getattr(edit, name)(lm, data.records("test")[0]).changes for lm in both]
    for cpu, gpu in zip(*changes):
        assert gpu.delta.is_cuda and error(gpu.dense().cpu(), cpu.dense()) < 5e-2


@pytest.mark.parametrize("name", ["shift", "finetune"])
def test_every_bit_comes_back_on_a_gpu(both, name):
    lm = both[1]
    before = [p.detach().clone() for p in lm.model.parameters()]
    one, two = (getattr(edit, name)(lm, r) for r in data.records("test")[:2])
    with one, two:
        assert not all(map(torch.equal, lm.model.parameters(), before))
    assert all(map(torch.equal, lm.model.parameters(), before))


def test_scores_agree_between_devices(both):
    records = data.records("test")[:20]
    prompts = [p for r in records for p in r["neighborhood_prompts"]]
    targets = [r["requested_rewrite"]["target_true"]["str"] for r in records for _ in r["neighborhood_prompts"]]
    cpu, gpu = (score(lm, prompts, targets) for lm in both)
    assert torch.allclose(cpu.nll, gpu.nll.cpu(), atol=1e-3)
    assert float((cpu.correct == gpu.correct.cpu()).float().mean()) > 0.99

