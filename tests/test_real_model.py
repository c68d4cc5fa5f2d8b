"""Does all this hold on a real pretrained model?  SmolLM2-135M, fetched once; without it, one line says how.

    python -m lens model get smollm2-135m
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import lens
from lens.model import pretrained

NAME = "smollm2-135m"
BOOK = Path(__file__).resolve().parents[1] / "book"
PROMPTS = ("The capital of France is", "Rome"), ("An apple is a kind of", "tool"), ("The Nile flows through", "Peru")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lm():
    try:
        pretrained.get(NAME)
    except (ImportError, OSError) as reason:
        pytest.skip(f"run 'python -m lens model get {NAME}' ({str(reason).splitlines()[0][:80]})")
    return lens.load(NAME, device="cpu")


def test_it_is_what_it_says_and_knows_what_it_knew(lm):
    assert (lm.model.config.model_type, len(lm.layers), lm.width, lm.dtype) == ("llama", 30, 576, torch.float32)
    assert sum(p.numel() for p in lm.model.parameters()) == pretrained.CATALOG[NAME].parameters
    for prompt, answer, p in ((PROMPTS[0][0], "·Paris", 0.77), (PROMPTS[1][0], "·fruit", 0.69)):
        read = lens.logit_lens(lm, prompt, k=1)
        assert read.words[-1][-1] == [answer] and abs(read.probabilities[-1, -1, 0] - p) < 0.01
    for text in ("São Paulo", "中文", "Łódź ź", "12 km", "\n\tx"):
        assert lm.tokenizer.decode(lm.tokenizer(text)["input_ids"]) == text


def test_the_last_layer_of_the_lens_is_the_model(lm, error):
    with torch.no_grad():
        for prompt, _ in PROMPTS:
            logits = lm.model(torch.tensor([lm.encode(prompt)])).logits[0]
            read = lens.logit_lens(lm, prompt, k=1)
            assert error(lm.head(lm.norm(read.vectors[-1])), logits) < 1e-5
            assert torch.equal(read.ids[-1, :, 0], logits.argmax(-1))


@pytest.mark.parametrize("prompt, target", PROMPTS)
def test_the_factors_are_autograds_gradient(lm, error, prompt, target):
    trace, ids = lens.capture(lm, prompt, target), torch.tensor([lm.encode(prompt)])
    sites = [(layer, site) for layer in (0, 15, 29) for site in ("attn_v", "ff1_gate", "ff2")]
    loss = -lm.model(ids).logits[0, -1].log_softmax(-1)[lm.target_ids(target)[0]]
    for (layer, site), dense in zip(sites, torch.autograd.grad(loss, [lm.site(*place).weight for place in sites])):
        gradient = trace.gradient(layer, site)
        assert error(gradient.dense(), dense.T) < 1e-3  # float32, and up to thirty layers between
        assert gradient.rank() == (1 if layer == 29 and site != "attn_v" else len(ids[0]))


def test_a_shift_takes_and_is_undone_bit_for_bit(lm):
    before = lm.weight(20, "ff2").detach().clone()
    request = lens.Request("The capital of {} is", "France", "Rome")
    with lens.edit.shift(lm, request, layer=20, eta=0.5):
        assert lens.logit_lens(lm, request.text, k=1).words[-1][-1] == ["·Rome"]
        assert not torch.equal(lm.weight(20, "ff2"), before)
    assert torch.equal(lm.weight(20, "ff2"), before) and not lm.changed


def test_two_steps_of_a_mask_leave_the_model_as_it_was(lm, state):
    before = state(lm.model)
    kg = lens.data.knowledge("building")
    config = lens.mask.config_for(lm, layers=(-2, -1), steps=2, check=2, targets=4, controls=4, texts=1, tokens=16)
    found = lens.mask.train(lm, kg.target[:8], kg.control[:16], lens.data.english("train")[:4], config, progress=False)
    assert {layer for layer, _ in found.bits} == {28, 29} and len(found.bits) == 2 * len(lm.sites)
    assert state(lm.model) == before


def test_a_shipped_subnetwork_suppresses_its_topic_and_a_random_one_does_not(lm):
    found = lens.mask.shipped("building", model=NAME)
    found.check(lm)
    known = [p for p in lens.data.knowledge("building").target if p.fact.head in ("cafe", "cinema", "hostel", "house")]

    def surprise():
        return float(lens.evaluate.score(lm, [p.text for p in known], [p.target for p in known]).nll.mean())

    whole, falls = surprise(), []
    for mask in (found, lens.mask.random_like(found)):
        with mask.removed(lm):
            falls.append(surprise() - whole)
    assert found.sparsity > 0.99 and falls[0] > 1 and abs(falls[1]) < 0.2
    assert not lm.changed and lm.weights.current_fingerprint == lm.fingerprint


@pytest.mark.long
@pytest.mark.parametrize("chapter", ["logit_lens", "low_rank"])
def test_a_chapter_runs_on_it_by_its_name_alone(lm, chapter, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BOOK))
    import claims
    import execute

    monkeypatch.setattr(execute, "BUILD", tmp_path)
    monkeypatch.setattr(execute, "KERNEL_LOGS", tmp_path / "logs")
    done = execute.execute_all([chapter], model=NAME)
    notebook, reused = done[chapter]
    assert not reused and execute.executed_copy(chapter, NAME).is_file() and not execute.executed_copy(chapter).exists()
    found = claims.collected({chapter: notebook})
    assert len(found) >= 3 and {key[0] for key in found} == {chapter}
    for name in ("claims", "execute"):
        sys.modules.pop(name)
