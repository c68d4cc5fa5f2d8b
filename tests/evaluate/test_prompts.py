"""Efficacy, paraphrase and neighborhood: against their definition, and on logits made by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

import lens
from lens.evaluate.prompts import SHARES, Case, shares
from lens.evaluate.scoring import TargetScores, score

KINDS = ["gpt2", "gpt_neox", "opt", "llama", "gemma2"]
EDITORS = ["shift", "rank_one", "dense", "finetune", "none"]
# A shift is refused where a norm lies between FF2 and the residual stream: tests/edit/test_shift.py.
PAIRS = [(editor, kind) for editor in EDITORS for kind in KINDS if (editor, kind) != ("shift", "gemma2")]


@pytest.mark.parametrize("editor, kind", PAIRS)
def test_every_share_is_what_one_prompt_at_a_time_gives(tiny, run, few, one_at_a_time, request, kind, editor):
    lm = tiny(kind)
    own = request.getfixturevalue(editor) if editor in ("rank_one", "dense") else None
    settings = {"shift": {"eta": 2.0}, "finetune": {"lr": 0.01, "steps": 5}}.get(editor)
    report = run(lm, few, own or editor, settings=settings, entropy=False, perplexity=False, together=3)
    seen = set()
    for row, record in zip(report.rows, few):
        assert row.error is None
        asked = lens.Request.from_record(record)
        make = own or (lens.edit.__dict__[editor] if editor != "none" else None)
        edit = make(lm, asked, **(settings or {})) if make else None
        want = one_at_a_time(lm, record, edit)
        assert {name: getattr(row, name) for name in SHARES} == want
        seen |= set(want.values())
    assert len(seen) > 2  # not all zero, not all one


def test_an_edit_in_the_weights_gives_what_the_same_edit_as_a_branch_gives(tiny, run, few, rank_one, dense):
    lm = tiny("llama")
    a, b = (run(lm, few, editor, seed=3) for editor in (rank_one, dense))
    for x, y in zip(a.rows, b.rows):
        assert {n: getattr(x, n) for n in SHARES} == {n: getattr(y, n) for n in SHARES} and x.entropy == y.entropy
        assert x.perplexity == pytest.approx(y.perplexity, rel=1e-12)


def test_on_mini_the_shares_are_those_of_one_prompt_at_a_time(mini, run, one_at_a_time):
    records = lens.data.records("validation")[:6]
    report = run(mini, records, "shift", entropy=False, perplexity=False)
    for row, record in zip(report.rows, records):
        assert {n: getattr(row, n) for n in SHARES} == one_at_a_time(mini, record, lens.edit.shift(mini, record))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(tiny, few, rank_one, run, dtype):
    lm = tiny("gpt2", dtype)
    rows = run(lm, few, rank_one).rows
    assert all(row.error is None and 0 <= row.neighborhood_success <= 1 and row.perplexity > 1 for row in rows)
    got = score(lm, ["The sea"], ["is"]).nll
    with torch.no_grad():
        last = lm.model.transformer(torch.tensor([lm.encode("The sea")])).last_hidden_state[0, -1]
        logits = last.float() @ lm.unembedding.float().T  # in half precision the logits themselves would be rounded
    want = -logits.log_softmax(-1)[lm.target_ids("is")[0]]
    assert got.dtype == torch.float32 and float(got) == pytest.approx(float(want), rel=1e-6)


def by_hand(tiny, probabilities: dict[int, float]):
    """A model that gives the same distribution everywhere: ln_f always puts out e₀, and E's first column is log p."""
    lm = tiny("gpt2", tie_word_embeddings=False)
    with torch.no_grad():
        lm.model.transformer.ln_f.weight.zero_()
        lm.model.transformer.ln_f.bias.zero_()[0] = 1
        rest = (1 - sum(probabilities.values())) / (300 - len(probabilities))
        lm.unembedding[:, 0] = log(rest)
        for token, p in probabilities.items():
            lm.unembedding[token, 0] = log(p)
    return lm


def test_on_logits_made_by_hand_the_score_is_the_mean_and_every_token_must_be_the_argmax(tiny):
    lm = by_hand(tiny, {5: 0.5, 6: 0.25})
    found = score(lm, [[1, 2]] * 4 + [[3]], [[5], [6], [5, 5], [5, 6], [6, 6, 5]])
    want = [-log(0.5), -log(0.25), -log(0.5), -(log(0.5) + log(0.25)) / 2, -(2 * log(0.25) + log(0.5)) / 3]
    assert found.nll.tolist() == pytest.approx(want, rel=1e-6)
    assert found.correct.tolist() == [True, False, True, False, False]


def test_rows_are_counted_and_the_default_dtype_does_not_matter(tiny, refuses):
    lm = tiny("gpt2", torch.float32)
    with refuses(ValueError, "Got 1 prompts and 2 rows: give the number of an edit for each prompt"):
        score(lm, ["a"], ["b"], edits=[()], rows=[0, 0])
    for given in ({"rows": [0]}, {"edits": [(), ()]}):  # neither is ignored
        with refuses(ValueError, "Give edits and rows together"):
            score(lm, ["a"], ["b"], **given)
    want = score(lm, ["a"], ["b"]).nll
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(score(lm, ["a"], ["b"]).nll, want)
    finally:
        torch.set_default_dtype(torch.float32)


def test_on_logits_made_by_hand_success_compares_and_accuracy_asks_for_the_argmax(tiny, few):
    """p(the) > p(is) > p(a) everywhere: "is" against "a" succeeds without being said."""
    words = tiny("gpt2")
    the, is_, a = (words.target_ids(w)[0] for w in ("the", "is", "a"))
    lm = by_hand(tiny, {the: 0.5, is_: 0.3, a: 0.1})

    def case(new: str, true: str) -> Case:
        few[0]["requested_rewrite"] |= {"target_new": {"str": new}, "target_true": {"str": true}}
        return Case.of(lm, few[0])

    found = shares(lm, [case("is", "a"), case("the", "a"), case("a", "the")])
    said = ["efficacy_accuracy", "paraphrase_accuracy"]
    assert [[one[name] for name in said] for one in found] == [[0, 0], [1, 1], [0, 0]]
    assert [one["efficacy_success"] for one in found] == [one["paraphrase_success"] for one in found] == [1, 1, 0]
    # of the neighbors the true target must be said, or be the more probable one
    assert [one["neighborhood_accuracy"] for one in found] == [0, 0, 1]
    assert [one["neighborhood_success"] for one in found] == [0, 0, 1]


def test_shares_are_means_over_a_measures_prompts(tiny, few, monkeypatch):
    lm = tiny("gpt2")
    nll = torch.tensor([1.0, 2.0] + [1.0, 2.0, 2.0, 1.0] + [3.0, 4.0, 4.0, 3.0, 5.0, 5.0])
    correct = torch.tensor([True, False] + [True, False, False, False] + [False] * 4 + [True, False])
    monkeypatch.setattr("lens.evaluate.prompts.score", lambda *_, **__: TargetScores(nll, correct))
    (found,) = shares(lm, [Case.of(lm, few[0])])
    assert found == {
        "efficacy_accuracy": 1.0,
        "efficacy_success": 1.0,
        "paraphrase_accuracy": 0.5,
        "paraphrase_success": 0.5,
        "neighborhood_accuracy": pytest.approx(1 / 3),
        "neighborhood_success": pytest.approx(1 / 3),  # a tie is no success
    }


def test_a_measure_without_prompts_is_none(tiny, few, run):
    few[0]["paraphrase_prompts"] = []
    row, *_ = run(tiny("gpt2"), few[:1], "none", perplexity=False, entropy=False).rows
    assert row.paraphrase_accuracy is None and row.paraphrase_success is None and row.efficacy_accuracy is not None


def test_no_batch_carries_much_padding(tiny, monkeypatch):
    """Rows of 3 and of 60 tokens in one batch would be padding for the most part."""
    lm = tiny("gpt2")
    sizes = []
    forward = lm.base_model.forward

    def watch(input_ids=None, **kwargs):
        sizes.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(lm.base_model, "forward", watch)
    prompts = [[i % 250 + 1, 2, i // 250 + 3] for i in range(30)] + [[i + 1] * 60 for i in range(5)]
    together = score(lm, prompts, [[9]] * len(prompts))
    assert sum(a * b for a, b in sizes) == 30 * 3 + 5 * 60 and len(sizes) == 2
    alone = score(lm, prompts[-1:], [[9]])
    assert float(together.nll[-1]) == pytest.approx(float(alone.nll[0]), rel=1e-6)
