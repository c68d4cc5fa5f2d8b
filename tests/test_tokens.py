"""Tokens: one prompt in whatever form it comes, the space a word brings, and what a tokenizer puts around a text."""

from __future__ import annotations

import re
import warnings
from unicodedata import normalize

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

import lens
from lens import LanguageModel, Request
from lens.edit.contexts import _sample, in_contexts
from lens.edit.statistics import _read
from lens.mask.examples import of_texts
from lens.model.tokens import SPACE_LAST

PROMPT, PAIR = "The capital of France is", ["The capital of France is", "The capital of the United Kingdom is"]
REQUEST = Request("The capital of {} is", "France", "Rome")
END = "<|endoftext|>"


def again(tokenizer, around: str | None = None, **changes) -> PreTrainedTokenizerFast:
    """A tokenizer like mini's with its special token at ``around``'s places, such as ``$A <|endoftext|>``."""
    inside = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if around:
        inside.post_processor = TemplateProcessing(single=around, special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inside, bos_token=END, eos_token=END, unk_token=END, **changes)


@pytest.fixture
def like_mini(mini):
    """``like_mini("$A <|endoftext|>")``: mini with another tokenizer."""
    return lambda *given, **changes: LanguageModel(mini.model, again(mini.tokenizer, *given, **changes), "mini")


class InPython(PreTrainedTokenizer):
    """Mini's tokens from a tokenizer in Python, which knows no offsets."""

    def __init__(self, fast, around=([], []), **kwargs):
        self._fast, self._around = fast, around
        super().__init__(bos_token=END, eos_token=END, unk_token=END, **kwargs)

    vocab_size = property(lambda self: len(self._fast))

    def get_vocab(self):
        return self._fast.get_vocab()

    def _tokenize(self, text):
        return self._fast.tokenize(text)

    def _convert_token_to_id(self, token):
        return self._fast.convert_tokens_to_ids(token)

    def _convert_id_to_token(self, index):
        return self._fast.convert_ids_to_tokens(index) or END  # as CTRL's: an unknown id is the unknown token

    def convert_tokens_to_string(self, tokens):
        return self._fast.convert_tokens_to_string(tokens)

    def build_inputs_with_special_tokens(self, ids, *_):
        return [*self._around[0], *ids, *self._around[1]]


# --- what a prompt is -------------------------------------------------------------------------------------------------


def test_one_prompt_is_read_alike_in_every_form(mini):
    ids, goal = mini.encode(PROMPT), mini.target_ids("Rome")
    want = lens.capture(mini, PROMPT, "Rome").loss
    forms = [mini.tokenizer(PROMPT), dict(mini.tokenizer(PROMPT)), np.array(ids), [np.int64(i) for i in ids]]
    forms += [mini.tokenizer(some, return_tensors=kind) for some in (PROMPT, [PROMPT]) for kind in ("pt", "np")]
    forms += [{"input_ids": [*ids, 7, 7], "attention_mask": [1] * 5 + [0] * 2}, [torch.tensor(i) for i in ids]]
    for form in forms:
        for target in ("Rome", goal, np.array(goal), np.int64(goal[0])):
            assert torch.equal(lens.capture(mini, form, target).loss, want)
        assert mini.encode(form) == ids and lens.logit_lens(mini, form).tokens == lens.logit_lens(mini, PROMPT).tokens
    assert mini.encode(np.int64(5)) == mini.target_ids(np.int64(5)) == [5]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_from_the_tokenizer_is_its_prompts_without_the_padding(like_mini, side):
    lm = like_mini(pad_token=END, padding_side=side)
    want = lens.capture(lm, PAIR, "Rome")
    batch = lm.tokenizer(PAIR, padding=True, return_tensors="pt")
    got = lens.capture(lm, batch, "Rome")
    assert got.lengths == want.lengths == (5, 7) and torch.equal(got.loss, want.loss)
    scores = lens.evaluate.score(lm, batch, ["Rome", "London"])
    assert torch.equal(scores.nll, lens.evaluate.score(lm, PAIR, ["Rome", "London"]).nll)


@pytest.mark.parametrize(
    "prompt, kind, words",
    [
        ({"ids": [1]}, TypeError, "dictionary of .'ids'.*input_ids"),
        (3.5, TypeError, "whole-number token ids, and got .3.5"),
        (torch.ones(2, 3, dtype=torch.long), ValueError, "one row of token ids, and got 2"),
        ([[1, 2], [3]], ValueError, "one row of token ids, and got 2"),
        ({"input_ids": [[1, 2], [3]]}, ValueError, "one row"),
    ],
)
def test_what_is_no_prompt_is_refused(mini, refuses, prompt, kind, words):
    with refuses(kind, words):
        mini.encode(prompt)


# --- what stands around it --------------------------------------------------------------------------------------------


def test_no_prompt_is_read_behind_an_end_of_text_token(mini, like_mini):
    for lm in (like_mini(f"$A {END}"), LanguageModel(mini.model, InPython(mini.tokenizer, ([], [0])), "in Python")):
        assert lm.tokenizer(PROMPT)["input_ids"][-1] == 0
        assert lm.encode(PROMPT) == mini.encode(PROMPT) and lm.target_ids("Rome") == mini.target_ids("Rome")
        assert lens.logit_lens(lm, PROMPT).words[-1][-1][0] == "·Paris"
        assert in_contexts(lm, REQUEST, [(), (5, 6)]) == in_contexts(mini, REQUEST, [(), (5, 6)])
        assert lens.segments(lm, PROMPT, "France") == lens.segments(mini, PROMPT, "France")
        texts = lens.data.heldout()[:20]
        assert _read(lm, texts, 500) == _read(mini, texts, 500)
        assert torch.equal(of_texts(lm, texts, 7, 30).label, of_texts(mini, texts, 7, 30).label)


@pytest.mark.parametrize("around", [f"{END} $A", f"{END} $A {END}"])
def test_a_beginning_of_text_token_stands_before_a_prompt_once(mini, like_mini, around):
    python = LanguageModel(mini.model, InPython(mini.tokenizer, ([0], [0] * (around.count(END) - 1))), "in Python")
    for lm in (like_mini(around), python):
        plain = mini.encode(PROMPT)
        assert lm.encode(PROMPT) == lm.encode(END + PROMPT) == [0, *plain]
        assert lens.segments(lm, END + PROMPT, "France") == lens.segments(lm, PROMPT, "France")
        templated = Request(END + REQUEST.prompt, "France", "Rome")
        for request in (REQUEST, templated):
            rows, places = in_contexts(lm, request, [(), (5, 6)])
            assert [lm.word(row[place]) for row, place in zip(rows, places)] == ["·France"] * 2
            assert rows[1] == [0, 5, 6, *mini.tokenizer(f". {PROMPT}")["input_ids"]]


def test_a_tokenizer_in_python_has_every_token_in_the_same_segment(mini):
    lm = LanguageModel(mini.model, InPython(mini.tokenizer), "in Python")
    for record in lens.data.records()[::10]:
        request = Request.from_record(record)
        assert in_contexts(lm, request, [(), (5,)]) == in_contexts(mini, request, [(), (5,)])
        for text in (request.text, f"Now, {request.text}"):
            assert lens.segments(lm, text, request.subject) == lens.segments(mini, text, request.subject)
    for prompt, name in [("São Tomé is", "São Tomé"), ("on 北京 is", "北京"), ("Unlike an Indian, he", "India")]:
        assert lens.segments(lm, prompt, name) == lens.segments(mini, prompt, name)


def test_a_token_for_padding_that_the_model_has_no_row_for_changes_nothing(like_mini):
    lm = like_mini()
    want = _sample(lm, 3, 5, seed=0)
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert lm.tokenizer.pad_token_id >= len(lm.unembedding) and _sample(lm, 3, 5, seed=0) == want
    for editor in (lens.edit.rome, lens.edit.memit, lens.edit.alphaedit):
        with editor(lm, REQUEST):
            assert lens.logit_lens(lm, PROMPT).words[-1][-1][0] == "·Rome"


@pytest.mark.parametrize("call", [lens.logit_lens, lambda lm, text: lens.capture(lm, text, "Paris")])
def test_a_prompt_that_ends_in_a_space_is_read_and_the_space_is_mentioned_once(mini, call):
    with pytest.warns(UserWarning, match=re.escape(SPACE_LAST)) as said:
        call(mini, f"{PROMPT} ")
    assert len(said) == 1 and said[0].filename == __file__ and "\n" not in SPACE_LAST
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(mini, PROMPT)
        call(mini, mini.tokenizer(f"{PROMPT} "))


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(tiny):
    """A model whose byte-level tokenizer has no token in which a space leads a word: ``Ġ`` is always its own."""
    pieces = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inside = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    inside.pre_tokenizer, inside.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inside, bos_token=END, eos_token=END, unk_token=END)
    return LanguageModel(tiny("gpt2").model, tokenizer, "apart")


UNSPACED = [",", ".", "?", "'s", "’t", ")", "…", "北京", "とうきょう", "กรุงเทพ", "。", "##ing", "##Rome"]
SPACED = ["Rome", "(Rome", ".NET", "'tis", "서울", "São Paulo", "-5", '"Rome"', " 北京", " ,"]


@pytest.mark.parametrize("target", UNSPACED)
def test_no_space_comes_before_what_running_text_has_none_before(apart, mini, target):
    for lm in (apart, mini):
        ids = lm.target_ids(target)
        assert lm.tokenizer.decode(ids) == target.removeprefix("##") and not lm.word(ids[0]).startswith("·")


@pytest.mark.parametrize("target", SPACED)
def test_every_other_target_has_one_space_before_it(apart, mini, target):
    for lm in (apart, mini):
        assert lm.tokenizer.decode(lm.target_ids(target)) == f" {target.strip()}"


def test_a_rank_that_is_the_bare_space_s_is_never_read_unknowingly(apart):
    vectors = torch.randn(2, 24, dtype=torch.float64)
    space, b = apart.target_ids("b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in ("##b", [b], b, np.int64(b)):
            assert torch.equal(lens.token_rank(apart, vectors, target), lens.token_rank(apart, vectors, b))
            lens.logit_lens(apart, "a", target)
    trace = lens.capture(apart, "a", "b")
    for call in (
        lambda: lens.token_rank(apart, vectors, "b"),
        lambda: lens.logit_lens(apart, "a", "b"),
        lambda: lens.backward_lens(apart, trace),
    ):
        with pytest.warns(UserWarning, match="first token of a target is a bare space.*'##'") as said:
            call()
        assert len(said) == 1 and said[0].filename == __file__
    assert apart.word(space) == "·"


def test_a_target_of_nothing_behind_the_mark_is_refused(mini, refuses):
    for target in ("##", "## ", "", " "):
        with refuses(ValueError, "target has no tokens"):
            mini.target_ids(target)


# --- words ------------------------------------------------------------------------------------------------------------


def test_a_part_of_a_character_shows_its_bytes(mini, apart):
    assert mini.words(mini.encode("São"))[:3] == ["S", r"\xc3", r"\xa3"]
    assert apart.words(apart.encode(" 京")) == ["·", r"\xe4", r"\xba", r"\xac"]
    every = mini.words(range(len(mini.unembedding)))
    assert len(set(every)) > 0.99 * len(every) and not any("\ufffd" in word for word in every)


def test_sentencepiece_s_bytes_and_spaces_show_as_others_do(tiny):
    pieces = {"<unk>": 0, "<0xC3>": 1, "▁": 2, "▁Paris": 3, "Paris": 4, "ã": 5}
    inside = Tokenizer(models.BPE(pieces, [], unk_token="<unk>", byte_fallback=True))
    inside.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    lm = LanguageModel(tiny("llama").model, PreTrainedTokenizerFast(tokenizer_object=inside, unk_token="<unk>"), "")
    assert lm.words(range(7)) == ["<unk>", r"\xc3", "·", "·Paris", "Paris", "ã", "[6]"]


def test_a_row_of_e_without_a_word_shows_its_id(apart, mini):
    assert apart.words(np.array([[256, 299]])) == [[apart.word(256), "[299]"]]
    beyond = len(mini.tokenizer)
    assert LanguageModel(mini.model, InPython(mini.tokenizer), "").word(beyond) == f"[{beyond}]"


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_one_name_however_its_letters_are_spelled(mini):
    composed, apart = (normalize(form, "São Tomé") for form in ("NFC", "NFD"))
    assert composed != apart
    assert Request("The capital of {} is", apart, "Rome") == Request(f"The capital of {composed} is", apart, "Rome")
    for text in (composed, apart):
        prompt = f"The capital of {text} is"
        assert lens.segments(mini, prompt, composed) == lens.segments(mini, prompt, apart)
        inside = [i for i, name in enumerate(lens.segments(mini, prompt, composed)) if name.startswith("subject")]
        assert mini.tokenizer.decode([mini.encode(prompt)[i] for i in inside]) == f" {text}"
