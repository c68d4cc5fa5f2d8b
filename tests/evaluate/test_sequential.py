"""Edits on top of each other: computed on the edited model, measured at each count, and all taken back."""

from __future__ import annotations

import sys

import pytest
import torch

import lens
from lens.evaluate import sequential
from lens.evaluate.perplexity import Perplexity
from lens.evaluate.prompts import SHARES

TEXTS = ["A ship in the harbor.", "The theater on the other side is older."]


def naive(lm, records, make, count, one_at_a_time):
    """The same by applying ``Edit``s in a stack, and one prompt at a time."""
    edits = []
    try:
        for record in records[:count]:
            edits.append(make(lm, lens.Request.from_record(record)).apply())
        each = [one_at_a_time(lm, record, None) for record in records[:count]]
        return each, Perplexity(lm, TEXTS)()
    finally:
        for edit in reversed(edits):
            edit.undo()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("editor", ["shift", "dense", "sgd_step"])
def test_every_count_is_what_a_stack_of_edits_gives(tiny, few, one_at_a_time, request, kind, editor):
    lm = tiny(kind)
    settings = {"shift": {"eta": 2.0}, "sgd_step": {"eta": 0.5}, "dense": {}}[editor]
    own = request.getfixturevalue("dense") if editor == "dense" else None
    make = own or (lambda lm, r: getattr(lens.edit, editor)(lm, r, **settings))
    steps = sequential(lm, few, own or editor, at=(1, 3, 5), settings=settings, texts=TEXTS, progress=False)
    assert [step["edits"] for step in steps] == [0, 1, 3, 5]
    for step in steps[1:]:
        each, perplexity = naive(lm, few, make, step["edits"], one_at_a_time)
        for name in SHARES:
            assert step[name] == pytest.approx(sum(one[name] for one in each) / len(each), abs=1e-12)
            if not name.startswith("neighborhood"):
                assert step[f"latest_{name}"] == each[-1][name]
        assert step["perplexity"] == pytest.approx(perplexity, rel=1e-9)
    unedited = [one_at_a_time(lm, record, None) for record in few]
    assert steps[0]["efficacy_success"] == pytest.approx(sum(one["efficacy_success"] for one in unedited) / 5)
    assert steps[0]["perplexity"] == Perplexity(lm, TEXTS)()


def values(lm) -> dict:
    return {name: p.detach().clone() for name, p in lm.model.named_parameters()}


def same(lm, before: dict) -> bool:
    return all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
def test_the_model_is_bit_for_bit_as_before(tiny, few, rank_one, kind, dtype):
    lm = tiny(kind, dtype)
    before = values(lm)
    sequential(lm, few, rank_one, at=[2, 4], texts=TEXTS, progress=False)
    assert same(lm, before)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_also_after_an_exception_or_an_interrupt(tiny, few, rank_one, kind):
    lm = tiny("gpt2")
    before = values(lm)

    def editor(lm, request):
        if request.subject == "Bergen":
            assert not same(lm, before)
            raise kind("stop")
        return rank_one(lm, request)

    with pytest.raises(kind):
        sequential(lm, few, editor, at=[5], texts=TEXTS, progress=False)
    assert same(lm, before)


def test_an_edit_that_was_applied_before_stays(tiny, few, rank_one):
    lm = tiny("gpt2")
    with rank_one(lm, lens.Request("The sea of {} is", "Split", "a")):
        before = values(lm)
        sequential(lm, few, rank_one, at=[3], texts=TEXTS, progress=False)
        assert same(lm, before)


def test_one_copy_of_each_changed_weight_is_kept_however_many_edits_there_are(tiny, few, rank_one, monkeypatch):

    module = sys.modules["lens.evaluate.sequential"]  # the function of that name hides the module
    kept = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda lm, edit, on: (write(lm, edit, on), kept.append(len(on.restore))))
    sequential(tiny("gpt2"), few, rank_one, at=[5], texts=TEXTS, progress=False)
    assert kept == [1] * 5


def test_counts_beyond_the_records_are_refused(tiny, few, refuses):
    for at in ([6], [0, 3], []):
        with refuses(ValueError, "There are 5 records"):
            sequential(tiny("gpt2"), few, "shift", at=at)


def test_perplexity_can_be_left_out(tiny, few, rank_one):
    steps = sequential(tiny("gpt2"), few, rank_one, at=[1], perplexity=False, progress=False)
    assert "perplexity" not in steps[0] and "perplexity" not in steps[1]


def test_an_editor_that_remembers_is_given_the_requests_before(tiny, few, rank_one):
    seen = []

    def editor(lm, request, earlier=()):
        seen.append((request.subject, [one.subject for one in earlier]))
        return rank_one(lm, request)

    sequential(tiny("gpt2"), few, editor, at=[3], perplexity=False, progress=False)
    subjects = [subject for subject, _ in seen]
    assert seen == [(subject, subjects[:i]) for i, subject in enumerate(subjects)] and len(subjects) == 3
    seen.clear()  # unless the settings say otherwise
    sequential(tiny("gpt2"), few, editor, at=[3], settings={"earlier": ()}, perplexity=False, progress=False)
    assert [earlier for _, earlier in seen] == [[], [], []]
