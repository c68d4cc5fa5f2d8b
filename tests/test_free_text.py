"""Whatever a reader types: a valid result or one sentence of refusal, and the model untouched either way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import lens

few = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
texts = st.one_of(st.text(max_size=40), st.text(alphabet=" \t\n\u00a0\u200b\u3000", max_size=6))
ODD = {
    "empty": "",
    "spaces": "     ",
    "line breaks": "\n\r\n\t",
    "emoji": "🙂👩‍👩‍👧‍👦🇫🇷",
    "right to left": "עיר הבירה של צרפת היא باريس",
    "null bytes": "a\x00b\x00",
    "markup": "<script>alert('x')</script> <b> &amp; {} %s $x$ \\frac",
    "special token": "<|endoftext|>",
    "combining": "e\u0301\u0323 Z\u0335\u0322a\u0338l\u0337g\u0336o",
    "bidi controls": "\u202egnirts\u202c \ufeff",
    "lone surrogate": "a \ud800 b",
    "unassigned": "\U0010ffff\uffff",
    "long": "the cat " * 5000,
    "one long word": "a" * 10000,
}


@pytest.fixture(scope="module")
def lm(tiny):
    return tiny("gpt2", torch.float32)


def outcome(lm, state, call):
    """The result, or ``None`` after a refusal in one sentence; the model must be as it was."""
    before = state(lm.model)
    try:
        result = call()
    except ValueError as refusal:
        text = str(refusal)
        assert type(refusal) is ValueError, f"not lens's own words: {refusal!r}"
        assert text.endswith(".") and "\n" not in text and len(text) < 500, text
        result = None
    assert state(lm.model) == before
    return result


def check(lm, state, prompt, target):
    trace = outcome(lm, state, lambda: lens.capture(lm, prompt, target))
    if trace is not None:
        n = len(lm.encode(prompt)) + len(lm.target_ids(target)) - 1
        assert trace.lengths == (n,) and len(trace.tokens) == n and all(trace.tokens)
        assert torch.isfinite(trace.loss).all() and trace.loss > 0
        for layer in range(3):
            for site in lm.sites:
                g = trace.gradient(layer, site)
                assert torch.isfinite(g.x).all() and torch.isfinite(g.delta).all() and len(g) == n
    return trace


@pytest.mark.parametrize("name", ODD)
def test_an_odd_prompt_gives_a_result_or_one_sentence(lm, state, name):
    trace = check(lm, state, ODD[name], "is")
    seen = outcome(lm, state, lambda: lens.logit_lens(lm, ODD[name], "is", k=2))
    assert (trace is None) == (seen is None)
    if name in ("empty", "long", "one long word"):
        assert seen is None
    if seen is not None:
        assert len(seen.words[0]) == len(seen.tokens) == len(lm.encode(ODD[name]))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_target_gives_a_result_or_one_sentence(lm, state, name):
    trace = check(lm, state, "the cat", ODD[name])
    ranks = outcome(lm, state, lambda: lens.token_rank(lm, torch.ones(2, 24), ODD[name]))
    if name in ("empty", "spaces", "line breaks"):
        assert trace is None and ranks is None  # a target of no tokens
    if name in ("long", "one long word"):
        assert trace is None


@few
@given(texts, texts)
@example("", "")
@example("\ud800", "a")
@example("a", "\udfff")
def test_any_prompt_and_target_give_a_result_or_one_sentence(lm, state, prompt, target):
    check(lm, state, prompt, target)


@few
@given(st.lists(texts, max_size=3), texts)
def test_any_batch_gives_what_its_prompts_give_alone(lm, state, prompts, target):
    batch = outcome(lm, state, lambda: lens.capture(lm, prompts, target, sites=["ff2"], layers=[0]))
    alone = [outcome(lm, state, lambda: lens.capture(lm, p, target, sites=["ff2"], layers=[0])) for p in prompts]
    assert (batch is None) == (not prompts or any(a is None for a in alone))
    for part, one in zip(batch or [], alone):
        assert part.tokens == one.tokens
        torch.testing.assert_close(part.loss, one.loss, rtol=1e-5, atol=1e-6)


@few
@given(texts, texts)
@example("a b", " ")
@example("a  b", "a")
@example("\ud800 a", "a")
@example("\ud800", "\ud800")
@example("", "")
def test_any_prompt_and_subject_give_one_segment_a_token_or_one_sentence(lm, state, prompt, subject):
    names = outcome(lm, state, lambda: lens.segments(lm, prompt, subject))
    if names is not None:
        assert len(names) == len(lm.encode(prompt)) and set(names) <= set(lens.SEGMENTS)
        places = [lens.SEGMENTS.index(n) for n in names]
        assert places == sorted(places)


@few
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
@example("🙂 猫\x00\u202e")
def test_the_words_of_a_prompt_spell_it(lm, prompt):
    """Nothing is lost between the text and its tokens; and every word can be shown on one line."""
    ids = lm.tokenizer(prompt)["input_ids"]
    assert lm.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == prompt or "<|" in prompt
    assert all("\n" not in w and "\r" not in w and w for w in lm.words(ids))


@pytest.mark.parametrize("name", ["emoji", "right to left", "null bytes", "markup", "combining"])
def test_mini_itself_reads_odd_text(mini, state, name):
    before = state(mini.model)
    trace = lens.capture(mini, ODD[name], ODD["emoji"])
    assert torch.isfinite(trace.loss).all() and len(lens.logit_lens(mini, ODD[name]).tokens) > 0
    assert state(mini.model) == before


def test_a_prompt_too_long_for_mini_says_how_long_it_may_be(mini, refuses):
    with refuses(ValueError, r"\d{4,} tokens.*at most 256"):
        lens.capture(mini, ODD["long"], "Paris")
