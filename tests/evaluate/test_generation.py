"""Sampled text: each record's own, whatever it is batched with; from the top k, in proportion; under its edit."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import lens
from lens.evaluate.generation import continuations
from lens.kernels import Key, uniform

PROMPTS = ["On", "The sea of Nice is", "Rome", "In the other theater"]


@torch.no_grad()
def plain(lm, prompt, case: int, place: int, length: int, seed: int) -> str:
    """The same sample by the formula: one prompt, no cache, no batch, noise for the whole vocabulary."""
    ids = list(prompt)
    while len(ids) < length:
        best, tokens = lm.model(torch.tensor([ids])).logits[0, -1].topk(5)
        u = uniform((place + 1, 300), Key(seed, len(ids), case))[place, tokens].double()
        ids.append(int(tokens[(best - (-u.log()).log()).argmax()]))
    return lm.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2"])
def test_a_sample_is_what_the_formula_draws_one_token_at_a_time(tiny, kind):
    """The cache and the batch change nothing: a wrong position or mask would show at once."""
    lm = tiny(kind)
    prompts = [lm.encode(p) for p in PROMPTS]
    got = continuations(lm, prompts, [4, 4, 9, 9], length=40, seed=2**40 + 3)
    want = [plain(lm, p, case, i % 2, 40, 2**40 + 3) for i, (p, case) in enumerate(zip(prompts, [4, 4, 9, 9]))]
    assert got == want


def test_a_record_writes_the_same_alone_and_in_any_company(tiny):
    lm = tiny("llama")
    prompts = [lm.encode(p) for p in PROMPTS]
    together = continuations(lm, prompts, [1, 1, 2, 2], length=50)
    assert continuations(lm, prompts[2:], [2, 2], length=50) == together[2:]
    assert continuations(lm, prompts[2:] + prompts[:2], [2, 2, 1, 1], length=50) == together[2:] + together[:2]


def test_equal_prompts_of_one_record_are_different_samples_and_the_seed_matters(mini):
    prompts = [mini.encode("The climate of Gabon is")] * 2
    a, b = continuations(mini, prompts, [0, 0], length=30)
    assert a != b
    assert continuations(mini, prompts, [0, 0], length=30) == [a, b]
    assert continuations(mini, prompts, [0, 0], length=30, seed=1) != [a, b]
    assert continuations(mini, prompts, [1, 1], length=30) != [a, b]


def test_next_tokens_come_from_the_top_k_in_their_proportions(tiny):
    """2,000 draws of one token: only the five most probable, each as often as softmax over the five says (χ² test)."""
    lm = tiny("gpt2")
    prompt = lm.encode("The sea of Nice is")
    n = 2000
    texts = continuations(lm, [prompt] * n, [5] * n, length=len(prompt) + 1)
    best, tokens = lm.model(torch.tensor([prompt])).logits[0, -1].detach().topk(5)
    expected = {
        lm.tokenizer.decode([*prompt, t], skip_special_tokens=True): n * p
        for t, p in zip(tokens.tolist(), best.softmax(0).tolist())
    }
    seen = Counter(texts)
    assert set(seen) <= set(expected) and len(expected) == 5
    assert sum((seen[text] - e) ** 2 / e for text, e in expected.items()) < 18.5  # 99.9 % point of χ² with 4 degrees


def test_each_row_writes_under_its_own_edit(tiny, rank_one):
    lm = tiny("gpt_neox")
    edits = [rank_one(lm, lens.Request("The sea of {} is", s, "a")) for s in ("Nice", "Oslo")]
    prompts = [lm.encode(p) for p in PROMPTS[:2]]
    rows = [1, 0, 0, 1]
    got = continuations(lm, prompts * 2, [3, 3, 4, 4], edits=[e.changes for e in edits], rows=rows, length=30)
    for case, places in ((3, (0, 1)), (4, (2, 3))):
        for place in places:
            with edits[rows[place]]:
                want = continuations(lm, prompts, [case] * 2, length=30)
            assert got[place] == want[place % 2]
    assert len(set(got)) == 4


def test_a_text_has_its_length_in_all_and_the_end_token_does_not_end_it(tiny, monkeypatch):
    lm = tiny("gpt2", tie_word_embeddings=False)
    with torch.no_grad():
        lm.unembedding[0] = lm.unembedding[20]  # as probable as a token that is often among the best
        lm.unembedding[:40] *= 2
    seen = []
    decode = type(lm.tokenizer).batch_decode
    monkeypatch.setattr(type(lm.tokenizer), "batch_decode", lambda *a, **k: seen.append(a[1]) or decode(*a, **k))
    prompts = [lm.encode(p) for p in PROMPTS]
    continuations(lm, prompts * 5, [0] * 20, length=40)
    ids = torch.tensor(seen[0])
    assert ids.shape == (20, 40)
    longest = max(map(len, prompts))
    assert bool((ids[:, longest:-5] == 0).any())  # it was written, and the row went on
    assert bool((ids[:, -1] != 0).any())


def test_a_prompt_as_long_as_the_text_is_cut_and_a_short_model_writes_what_it_can(tiny):
    lm = tiny("gpt2")  # reads 64 tokens
    long = [70, 71] * 32
    assert continuations(lm, [long], [0], length=10) == [lm.tokenizer.decode(long[:10])]
    texts = continuations(lm, [long[:60], lm.encode("On")], [0, 0])
    assert len(texts) == 2 and texts[0].startswith(lm.tokenizer.decode(long[:60]))
    assert continuations(lm, [], []) == []


def test_a_models_own_taste_in_sampling_is_not_asked(tiny):
    """Repetition penalties, temperatures and forbidden words from generation_config.json would change the measure."""
    lm = tiny("llama")
    prompts = [lm.encode(p) for p in PROMPTS]
    want = continuations(lm, prompts, [0] * 4, length=40)
    config = lm.model.generation_config
    config.repetition_penalty, config.temperature, config.top_p, config.do_sample = 3.0, 0.1, 0.5, True
    config.no_repeat_ngram_size, config.num_beams = 2, 3
    assert continuations(lm, prompts, [0] * 4, length=40) == want


def test_the_model_is_as_it_was(tiny, state):
    lm = tiny("llama")
    lm.model.train()
    before = state(lm.model)
    continuations(lm, [lm.encode("On")], [0], length=20)
    assert state(lm.model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_writes_too(tiny, dtype):
    lm = tiny("llama", dtype)
    assert all(len(t) > 10 for t in continuations(lm, [lm.encode(p) for p in PROMPTS], [0] * 4, length=40))
