"""Segments: every token belongs to one part of the prompt, in reading order, whatever the subject looks like."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lens
from lens import SEGMENTS

WORDS = ("the", "on", "Ωmega", "é", "cat", "猫", "New York", "naïve café", "🙂", "São Tomé", "is", "Łódź", "ab")


@pytest.fixture(scope="module")
def lm(tiny):
    return tiny("gpt2", n_positions=512)


def check(lm, prompt: str, subject: str) -> list[str]:
    """What has to hold of any prompt: one name a token, in order, the subject's letters in the subject's tokens."""
    got = lens.segments(lm, prompt, subject)
    offsets = lm.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    assert len(got) == len(lm.encode(prompt)) == len(offsets)
    assert set(got) <= set(SEGMENTS)
    assert got[-1] == "last token" and "last token" not in got[:-1]
    places = [SEGMENTS.index(name) for name in got]
    assert places == sorted(places), f"out of reading order: {got}"
    # The first whole word, and only where there is none a part of one.
    whole = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)
    start = whole.start() if whole else prompt.index(subject)
    end = start + len(subject)
    for name, (a, b) in list(zip(got, offsets))[:-1]:
        letters = [i for i in range(a, b) if not prompt[i].isspace()]
        if letters and letters[0] >= start and letters[-1] < end:
            assert name.startswith("subject"), (name, prompt[a:b])
        elif letters and letters[-1] < start:
            assert name == "before subject"
        elif letters and letters[0] >= end:
            assert name == "after subject"
    for once in ("subject first", "subject last"):
        assert got.count(once) <= 1
    return got


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    before=st.lists(st.sampled_from(WORDS), max_size=3),
    subject=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    after=st.lists(st.sampled_from(WORDS), max_size=3),
    gap=st.sampled_from([" ", "  ", ", ", "\n", " \n\n "]),
)
def test_segments_follow_the_subject_wherever_it_stands(lm, before, subject, after, gap):
    prompt = gap.join([*before, " ".join(subject), *after])
    check(lm, prompt, " ".join(subject))


@pytest.mark.parametrize(
    "prompt, subject, want",
    [
        ("The river is", "The", ["subject last"]),
        ("on the", "the", ["last token"]),
        ("on the is", "the", ["subject last", "last token"]),
        ("on the is", " the", ["subject last", "last token"]),
        ("on the is on is", "the is", ["subject first", "subject last", "after subject", "last token"]),
        ("on the is on is", "the is on", ["subject first", "subject middle", "subject last", "last token"]),
    ],
)
def test_a_subject_at_the_start_in_the_middle_and_at_the_end(mini, prompt, subject, want):
    """On mini, whose tokenizer has these words whole."""
    got = lens.segments(mini, prompt, subject)
    before = len(mini.encode(prompt[: prompt.index(subject)].rstrip())) if prompt.index(subject) else 0
    inside = got[before : before + len(want)]
    assert inside == want and got[:before] == ["before subject"] * before


@pytest.mark.parametrize(
    "prompt, subject, at",
    [
        ("Unlike the Indian capital, the capital of India is", "India", "of India"),
        ("Indiana, India", "India", ", India"),
        ("café af", "af", " af"),
        ("the Indian is", "India", "the India"),  # a part of a word where there is no whole one
        ("中国的首都是", "中国", "中国"),
    ],
)
def test_a_subject_is_found_as_a_whole_word_first(mini, prompt, subject, at):
    got, upto = lens.segments(mini, prompt, subject), prompt.index(at) + len(at) - len(subject)
    ids = mini.encode(prompt)
    before = got.index(next(name for name in got if not name.startswith("before")))
    assert len(mini.tokenizer.decode(ids[:before])) in (upto, upto - 1)  # a token of the subject may begin with a space


def test_white_space_after_the_subject_is_not_before_it(lm):
    """A token of nothing but spaces still has its place."""
    assert check(lm, "the  cat   on\n\nis", "the")[3] == "after subject"  # "the" is spelled t, h, e here
    check(lm, "on New  York is", "New  York")


def test_a_beginning_of_text_token_comes_before_everything(lm, tiny):
    """Some families' tokenizers add one; its place in the text is empty."""
    from tokenizers.processors import TemplateProcessing

    other = tiny("llama")
    tokenizer = type(other.tokenizer)(
        tokenizer_object=type(other.tokenizer.backend_tokenizer).from_str(other.tokenizer.backend_tokenizer.to_str())
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    added = lens.LanguageModel(other.model, tokenizer, "with a beginning")
    assert added.encode("the is")[0] == 0 and added.target_ids("is") == other.target_ids("is")
    got = lens.segments(added, "the is on", "the")
    assert got[0] == "before subject" and got[1:] == lens.segments(other, "the is on", "the")


@pytest.mark.parametrize("prompt, subject", [("the cat", "dog"), ("the cat", ""), ("", "the"), ("", ""), ("a b", "B")])
def test_a_subject_that_is_not_there_is_refused_with_both_texts(lm, refuses, prompt, subject):
    with refuses(ValueError, f"subject '{subject}' does not occur in the prompt '{prompt}'"):
        lens.segments(lm, prompt, subject)


def test_a_subject_of_nothing_but_spaces_is_refused(lm, refuses):
    with refuses(ValueError, "subject"):
        lens.segments(lm, "the cat on", " ")
