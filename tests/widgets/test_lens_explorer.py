"""The lens explorer holds what the lenses say, answers what is typed, and leaves the model alone."""

from __future__ import annotations

import json

import pytest

import lens
from lens.course.widgets import LensExplorer

PROMPT, TARGET = "The capital of France is", "Rome"
PROMPTS = [(PROMPT, TARGET), ("The capital of Spain is", "Rome"), ("The language of Japan is", "Greek")]


def size(explorer) -> int:
    return len(json.dumps(explorer.state, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())


def words(explorer, nested, table=None):
    table = table or explorer.state["words"]
    return [words(explorer, part, table) if isinstance(part, list) else table[part] for part in nested]


@pytest.fixture(scope="module")
def backward(mini):
    return LensExplorer(mini, PROMPTS, ("ff1", "ff2"))


@pytest.fixture(scope="module")
def forward(mini):
    return LensExplorer(mini, [PROMPT, (PROMPT, TARGET)], k=5)


def test_the_stream_s_grid_is_the_logit_lens(mini, forward):
    want = lens.logit_lens(mini, PROMPT, TARGET, k=5)
    plain, aimed = (case["readings"]["stream"] for case in forward.state["cases"])
    assert words(forward, aimed["top"]) == want.words == words(forward, plain["top"])
    assert words(forward, aimed["bottom"]) == lens.project(mini, want.vectors, k=5, largest=False).words
    assert aimed["rank"] == want.ranks.tolist() and plain["rank"] is None
    assert sum(map(sum, aimed["size"])) == pytest.approx(float(want.norms.sum()), rel=1e-3)
    assert aimed["probability"][-1][-1][0] == pytest.approx(float(want.probabilities[-1, -1, 0]), rel=1e-3)


@pytest.mark.parametrize("site", ["ff1", "ff2", "attn_q", "attn_out"])
def test_a_site_s_grid_is_the_backward_lens(mini, site):
    explorer = LensExplorer(mini, [(PROMPT, TARGET)], [site], k=4)
    trace = lens.capture(mini, PROMPT, TARGET)
    reading = explorer.state["cases"][0]["readings"][site]
    for end, largest in (("top", True), ("bottom", False)):
        want = lens.backward_lens(mini, trace, site, k=4, largest=largest)
        zero = (want.norms == 0).tolist()
        for line, found, none in zip(want.words, words(explorer, reading[end]), zero):
            assert found == [[] if empty else each for each, empty in zip(line, none)]
    assert reading["rank"] == want.ranks.tolist()
    end = explorer.state["quantities"][0]["end"]
    assert end == ("bottom" if site in ("ff2", "attn_out") else "top"), "the end that training adds"


def test_an_input_is_colored_by_the_norm_of_its_token_s_term(mini, backward):
    trace = lens.capture(mini, PROMPT, TARGET)
    found = backward.state["cases"][0]["readings"]["ff1"]["size"][3]
    gradient = trace.gradient(3, "ff1")
    for i, got in enumerate(found):
        term = gradient.x[i][:, None] * gradient.delta[i][None, :]
        assert got == pytest.approx(float(term.norm()), rel=1e-3)


def test_a_vector_of_length_zero_has_no_words(backward):
    reading = backward.state["cases"][0]["readings"]["ff2"]
    assert reading["size"][-1][0] == 0 and reading["top"][-1][0] == [] == reading["bottom"][-1][0]
    assert len(reading["top"][-1][-1]) == 10


def test_state_is_plain_and_small(backward, forward):
    assert size(backward) < 150_000 and size(forward) < 40_000


def test_the_model_is_as_it_was(mini, state):
    before = state(mini.model)
    explorer = LensExplorer(mini, [(PROMPT, TARGET)], ("stream", "ff1"), k=2)
    explorer.request = {"id": 1, "prompt": "The capital of Italy is", "target": "Oslo"}
    explorer.request = {"id": 2, "prompt": "", "target": ""}
    assert state(mini.model) == before


def test_layers_can_be_chosen_and_of_a_deep_model_about_a_dozen_are(mini, tiny):
    chosen = LensExplorer(mini, [PROMPT], layers=[-1, 2], k=2)
    assert chosen.state["layers"] == [2, 7] and len(chosen.state["cases"][0]["readings"]["stream"]["size"]) == 2
    last = lens.logit_lens(mini, PROMPT, k=2).words[7]
    assert words(chosen, chosen.state["cases"][0]["readings"]["stream"]["top"][1]) == last
    deep = LensExplorer(tiny("llama", num_hidden_layers=40), ["the cat"], k=1).state["layers"]
    assert deep[-1] == 39 and 10 <= len(deep) <= 15


def test_a_target_of_several_tokens_reads_its_own_positions_and_says_whose_rank_it_is(mini):
    target = "Reykjavikville"
    ids = mini.target_ids(target)
    assert len(ids) > 1
    case = LensExplorer(mini, [(PROMPT, target)], ("stream", "ff2"), k=2).state["cases"][0]
    assert len(case["tokens"]) == len(mini.encode(PROMPT)) + len(ids) - 1
    assert mini.word(ids[0]) in case["note"] and case["note"].endswith(".")


def test_a_prompt_that_ends_in_a_space_is_read_with_a_note(mini):
    explorer = LensExplorer(mini, [PROMPT], k=2)
    case = explorer.compute({"prompt": f"{PROMPT} ", "target": "##s"})
    assert case["note"].startswith("The prompt ends in a space") and case["words"][case["first"]] == "s"
    assert explorer.state["cases"][0]["note"] == ""


# What a reader types


def test_a_typed_prompt_is_read_as_the_others_were(backward):
    backward.request = {"id": "q", "prompt": PROMPT, "target": TARGET}
    typed, first = backward.answer["case"], backward.state["cases"][0]
    assert backward.answer["id"] == "q" and typed["readings"]["ff2"]["size"] == first["readings"]["ff2"]["size"]
    table = typed["words"]
    assert words(backward, typed["tokens"], table) == words(backward, first["tokens"])
    assert words(backward, typed["readings"]["ff2"]["top"], table) == words(backward, first["readings"]["ff2"]["top"])


@pytest.mark.parametrize(
    ("prompt", "target", "says"),
    [
        ("", "Rome", "prompt is empty"),
        ("  \n ", "Rome", "prompt is empty"),
        (PROMPT, "", "needs a target"),
        (PROMPT, "   ", "needs a target"),
        ("the cat " * 40, "Rome", "at most 32"),
        ("the cat " * 5000, "Rome", "at most"),
        ("a \ud800 b", "Rome", "half a character"),
        (PROMPT, "\udfff", "half a character"),
        (None, None, "."),
        ({"a": 1}, [1], "."),
    ],
)
def test_a_bad_input_is_answered_with_one_sentence_or_read_as_text(backward, prompt, target, says):
    backward.request = {"id": "q", "prompt": prompt, "target": target}
    said = backward.answer.get("problem", "read.")
    assert says in said and "\n" not in said and said.endswith("."), said
    assert len(backward.state["cases"]) == len(PROMPTS)


def test_a_hostile_prompt_stays_data(mini, printed):
    prompt = '</script><b>"><img src=x>'
    explorer = LensExplorer(mini, [(prompt, "Rome")], k=2)
    assert explorer.state["cases"][0]["prompt"] == prompt
    page = printed(explorer)
    assert page.count("</script>") == 2 and "<img" not in page and "<b>" not in page


# What a teacher gives


def test_wrong_arguments_are_refused_in_one_sentence(mini, refuses):
    with refuses(ValueError, "no quantity 'ff9'"):
        LensExplorer(mini, [PROMPT], ["ff9"])
    with refuses(ValueError, "needs a target"):
        LensExplorer(mini, [PROMPT], ["ff2"])
    with refuses(ValueError, "at least one prompt"):
        LensExplorer(mini, [])
    with refuses(ValueError, "at least one prompt and one quantity"):
        LensExplorer(mini, [PROMPT], [])
    with refuses(IndexError, "no layer 8"):
        LensExplorer(mini, [PROMPT], layers=[8])
    with refuses(ValueError, "k is 0"):
        LensExplorer(mini, [PROMPT], k=0)
    with refuses(ValueError, "at most 32"):
        LensExplorer(mini, ["the cat " * 40])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "llama", "qwen3", "gemma2"])
def test_every_family_can_be_explored(tiny, family):
    lm = tiny(family)
    explorer = LensExplorer(lm, [("the cat", "is")], ("stream", *lm.sites), k=3)
    assert len(explorer.state["quantities"]) == 1 + len(lm.sites)
    json.dumps(explorer.state, allow_nan=False)


def test_it_opens_where_the_target_stands_or_where_the_gradient_is_large_unless_a_chapter_is_about_the_other(
    mini, refuses
):
    asked = [("The capital of France is", "Rome")]
    made = {q: LensExplorer(mini, asked, q, layers=[7]).state["color"] for q in ("stream", "ff2")}
    assert made == {"stream": "rank", "ff2": "size"}
    assert LensExplorer(mini, "The capital of France is", layers=[7]).state["color"] == "size", "there is no target"
    assert LensExplorer(mini, asked, "ff2", layers=[7], color="rank").state["color"] == "rank"
    with refuses(ValueError, "no color 'blue'"):
        LensExplorer(mini, asked, color="blue")
