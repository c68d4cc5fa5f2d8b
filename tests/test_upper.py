"""The upper part of a model, run on its own, says what the whole model says."""

from __future__ import annotations

import pytest
import torch

from lens.model.batch import pad, teacher_forced
from lens.model.families import FAMILIES
from lens.model.upper import UpperLayers


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_the_upper_layers_end_where_the_whole_model_ends(tiny, kind, layer, error):
    lm = tiny(kind)
    ids, real = pad([[5, 6, 7, 8, 9, 10], [11, 12, 13]])
    upper = UpperLayers(lm, ids, layer)
    with torch.no_grad():
        wanted = lm.model(input_ids=ids, use_cache=False).logits
        assert error(lm.head(upper())[real], wanted[real]) < (1e-12 if wanted.dtype == torch.float64 else 1e-6)  # GPT-J, transformers 4


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_flow_into_the_hidden_states_and_not_into_the_weights(tiny, kind, state):
    lm = tiny(kind)
    before = state(lm.model)
    upper = UpperLayers(lm, torch.tensor([[5, 6, 7]]), 1)
    hidden = upper.hidden.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(lm.head(upper(hidden))[0, -1, 3], hidden)
    step = 1e-2 * gradient / gradient.norm()  # some norms compute in float32
    with torch.no_grad():
        up, down = (lm.head(upper(h))[0, -1, 3] for h in (hidden + step, hidden - step))
    assert float((up - down) / 2) == pytest.approx(float((gradient * step).sum()), rel=1e-2)
    assert state(lm.model) == before


def test_the_lower_layers_run_once(tiny):
    lm = tiny("gpt2")
    calls = []
    hooks = [m.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, m in enumerate(lm.layers)]
    upper = UpperLayers(lm, torch.tensor([[5, 6]]), 2)
    upper(), upper()
    for hook in hooks:
        hook.remove()
    assert calls == [0, 1, 2, 2, 2]


def test_an_accident_in_the_first_pass_leaves_no_hook(tiny, state, monkeypatch):
    lm = tiny("gpt2")
    before = state(lm.model)
    with pytest.raises(IndexError):
        UpperLayers(lm, torch.tensor([[10_000]]), 1)
    assert state(lm.model) == before


def test_a_layer_that_is_not_there_is_refused(tiny, refuses):
    with refuses(IndexError, "no layer 3"):
        UpperLayers(tiny("gpt2"), torch.tensor([[1]]), 3)


def test_teacher_forcing_predicts_each_token_from_its_own_position():
    batch = teacher_forced([[1, 2, 3], [4]], [[7], [8, 9]])
    assert batch.ids.tolist() == [[1, 2, 3], [4, 8, 0]] and batch.real.tolist() == [[True] * 3, [True, True, False]]
    assert list(zip(batch.row.tolist(), batch.position.tolist(), batch.label.tolist())) == [(0, 2, 7), (1, 0, 8), (1, 1, 9)]
    assert batch.share.tolist() == [1, 0.5, 0.5] and batch.lengths == (3, 2)
