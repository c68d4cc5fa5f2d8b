"""Gradient checkpointing in mask training: the same gradient, less kept, and the calculator knows how much."""

from __future__ import annotations

import pytest
import torch

import lens
from lens.mask import Config
from lens.mask.examples import of_texts
from lens.mask.objective import Objective
from lens.mask.places import places
from lens.mask.scores import Scores
from lens.model.upper import UpperLayers
from lens.scale.bench.tensors import saved_bytes

TEXTS = ["The capital of France is Paris.", "A cafe is a kind of restaurant, and so on."]


def gradients(lm, checkpointing: bool) -> tuple[list[torch.Tensor], float]:
    config = Config(checkpointing=checkpointing, layers=(1, 2))
    scores = Scores(places(lm, config.layers), "weight", 0.3, seed=0)
    rows = of_texts(lm, TEXTS, 1, 12)
    losses = Objective(lm, config, 1).backward(scores, 0, rows, rows, rows)
    return [v.grad for v in scores.values], float(losses["maintain_lm"])


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_checkpointing_changes_no_bit_of_the_gradient_and_leaves_the_model_alone(tiny, kind, state):
    lm = tiny(kind, torch.float32)
    before = state(lm.model)
    (plain, loss), (again, loss_again) = gradients(lm, False), gradients(lm, True)
    assert loss == loss_again and state(lm.model) == before
    assert all(torch.equal(a, b) and a.any() for a, b in zip(plain, again))


def test_of_each_layer_only_its_input_is_kept(tiny):
    lm = tiny("llama", torch.float32)
    upper = UpperLayers(lm, torch.arange(12).reshape(2, 6), 0)
    hidden = upper.hidden.requires_grad_()
    known = [*lm.model.parameters(), hidden]
    stream = 4 * hidden.numel()
    plain = saved_bytes(lambda: upper(hidden), known)
    kept = saved_bytes(lambda: upper(hidden, None, True), known)
    final = stream + 4 * 12  # the final norm's input and 1/rms
    assert kept <= 2 * stream + final < plain / 4


def test_a_setting_that_is_no_truth_value_is_refused(mini, refuses):
    with refuses(ValueError, "checkpointing is 3"):
        lens.mask.config_for(mini, checkpointing=3)
