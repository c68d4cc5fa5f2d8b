"""Perplexity: what plain transformers gives, whatever is batched, cut into chunks, or run from the middle."""

from __future__ import annotations

from math import exp

import pytest
import torch

import lens
from lens.evaluate import perplexity as module
from lens.evaluate.perplexity import Perplexity, sample

TEXTS = ["A ship in the harbor.", "Rain.", "The theater on the other side is older than the others", "x"]


EPS = {"gemma2": 1e-7}
"""Gemma's attention takes its softmax in float32, whatever the model is; the others' runs in float64."""


@torch.no_grad()
def plain(lm, texts) -> float:
    """exp of the mean −log p of every text's tokens but its first, by a plain forward pass each."""
    nll = []
    for ids in (torch.tensor(lm.encode(text)) for text in texts):
        log_p = lm.model(ids[None]).logits[0].double().log_softmax(-1)
        nll += [-log_p[i - 1, ids[i]] for i in range(1, len(ids))]
    return exp(torch.stack(nll).mean())


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen3", "gemma2"])
def test_perplexity_is_the_exponential_of_the_mean_nll_of_plain_transformers(tiny, kind):
    lm = tiny(kind)
    assert Perplexity(lm, TEXTS)() == pytest.approx(plain(lm, TEXTS), rel=EPS.get(kind, 1e-12))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_with_changes_it_is_the_edited_models(tiny, rank_one, kind):
    lm = tiny(kind)
    measure = Perplexity(lm, TEXTS)
    unedited = measure()
    for subject in ("Nice", "Oslo"):  # the second finds the lower layers already run
        edit = rank_one(lm, lens.Request("The sea of {} is", subject, "a"))
        with edit:
            want = plain(lm, TEXTS)
            assert measure(lowest=1) == pytest.approx(want, rel=EPS.get(kind, 1e-12))
        assert measure(edit.changes) == pytest.approx(want, rel=EPS.get(kind, 1e-12))
        assert want != pytest.approx(unedited, rel=1e-6)
    assert measure() == unedited


def test_chunks_and_batches_change_nothing(tiny, monkeypatch):
    lm = tiny("llama")
    whole = Perplexity(lm, TEXTS)()
    monkeypatch.setattr(module, "BATCH", 30)
    monkeypatch.setattr(module, "chunk_bytes", lambda *_: 300 * 8 * 2)
    assert Perplexity(lm, TEXTS)() == pytest.approx(whole, rel=1e-12)


def test_all_logits_are_never_held_at_once(tiny, record, monkeypatch):
    lm = tiny("gpt2", vocab_size=3000)
    monkeypatch.setattr(module, "chunk_bytes", lambda *_: 4 * 3000 * 8 * 4)
    measure = Perplexity(lm, TEXTS)
    with record() as sizes:
        measure()
    assert measure.tokens * 3000 > 10 * max(sizes) and max(sizes) == 4 * 3000


def test_the_layers_below_the_edit_run_once(mini, monkeypatch):
    calls = []
    measure = Perplexity(mini, sample(mini))
    hooks = [layer.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, layer in enumerate(mini.layers)]
    edit = lens.edit.shift(mini, lens.data.records()[1])
    calls.clear()
    try:
        for _ in range(3):
            measure(edit.changes)
    finally:
        for hook in hooks:
            hook.remove()
    assert calls.count(0) == 1 and calls.count(7) == 4  # the first pass, and three of the upper layers


def test_the_sample_is_about_a_thousand_heldout_tokens(mini):
    texts = sample(mini)
    assert texts == lens.data.heldout()[: len(texts)] and 1000 <= sum(len(mini.encode(t)) for t in texts) < 1150


@pytest.mark.parametrize("texts", [[], ["x"]])
def test_a_text_of_one_token_has_no_perplexity(tiny, refuses, texts):
    with refuses(ValueError, "at least two tokens"):
        Perplexity(tiny("gpt2"), texts)


def test_half_precision_is_added_up_in_float64(tiny):
    lm = tiny("llama", torch.bfloat16)
    found = Perplexity(lm, TEXTS)()
    assert isinstance(found, float) and found == pytest.approx(plain(lm, TEXTS), rel=0.02)
