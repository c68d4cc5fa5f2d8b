"""The averaged Jacobian: that of autograd, the identity at the top, and the one whose VJPs ``capture`` sees."""

from __future__ import annotations

import pytest
import torch

import lens
from lens.gradient import jacobian
from lens.gradient.jacobian import mean_jacobian
from lens.model.families import FAMILIES
from lens.model.upper import UpperLayers

TEXT = "the other is on the"


def top_stream(lm, ids, layer):
    """h_top [d] at the last token as a function of h_ℓ [d] there, with all tokens run."""
    if layer == len(lm.layers) - 1:
        return lambda h: h, None
    upper = UpperLayers(lm, torch.tensor([ids]), layer + 1)

    def run(h):
        stream = torch.cat([upper.hidden[:, :-1], h[None, None]], 1)
        kept = []
        hook = lm.layers[-1].register_forward_hook(lambda _m, _a, out: kept.append(out))
        try:
            upper(stream)
        finally:
            hook.remove()
        out = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        return out.reshape(-1, lm.width)[-1]

    return run, upper.hidden[0, -1]


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "opt"])
def test_it_is_autograds_jacobian_with_all_tokens_run_and_the_identity_at_the_top(tiny, kind, error):
    lm = tiny(kind)
    ids = lm.encode(TEXT)
    found = mean_jacobian(lm, [TEXT])
    assert found.shape == (3, 24, 24) and torch.equal(found[-1], torch.eye(24).double())
    for layer in (0, 1):
        run, h = top_stream(lm, ids, layer)
        wanted = torch.autograd.functional.jacobian(run, h.clone())  # [d, d], what is moved by row
        assert error(found[layer], wanted.T) < (1e-5 if kind == "gptj" else 1e-9)  # float32 inside


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox"])
def test_the_vjps_of_a_loss_are_those_of_the_jacobian(tiny, kind, error):
    lm = tiny(kind)
    delta = lens.capture(lm, TEXT, [7], sites=["ff2"]).stack("ff2")[:, -1]  # FF2's output is added to the stream
    back = delta[-1] @ mean_jacobian(lm, [TEXT]).mT
    assert error(back, delta) < (1e-5 if kind == "llama" else 1e-9)  # its norms are float32 inside


@pytest.mark.parametrize("rows", [1, 7, 24, 1000])
def test_it_does_not_depend_on_how_many_products_are_made_at_a_time(tiny, rows, monkeypatch, error):
    lm = tiny("qwen3")
    wanted = mean_jacobian(lm, [TEXT])
    monkeypatch.setattr(jacobian, "ROWS", rows)
    assert error(mean_jacobian(lm, [TEXT]), wanted) < 1e-12


def test_it_is_the_mean_over_texts_of_any_length_and_leaves_the_model_alone(tiny, state, error):
    lm = tiny("gpt2")
    before = state(lm.model)
    texts = [TEXT, [5], "the cat"]
    each = [mean_jacobian(lm, [text]) for text in texts]
    assert error(mean_jacobian(lm, texts), sum(each) / 3) < 1e-12
    assert state(lm.model) == before


def test_wrong_texts_are_refused_in_one_sentence(tiny, refuses):
    lm = tiny("gpt2")
    for texts in ([], "one text", lm.encode("one text"), torch.tensor([5, 6])):
        with refuses(ValueError, "give a list of some"):
            mean_jacobian(lm, texts)
    with refuses(ValueError, "at most 64"):
        mean_jacobian(lm, [[5] * 65])
