"""A whole evaluation: what goes wrong with one record stays there, and the model is what it was."""

from __future__ import annotations

import gc
import re
import sys
import weakref

import pytest
import torch

import lens
from lens.evaluate.prompts import SHARES


def test_the_unedited_model_is_an_editor_that_changes_nothing(tiny, run, few, one_at_a_time):
    lm = tiny("gpt2")
    report = run(lm, few, "none", entropy=False)
    for row, record in zip(report.rows, few):
        assert {name: getattr(row, name) for name in SHARES} == one_at_a_time(lm, record, None)
    assert len({row.perplexity for row in report.rows}) == 1 and report.header["editor"] == "none"


def test_batch_size_changes_nothing(tiny, run, few, rank_one):
    lm = tiny("llama")
    one, many = (run(lm, few, rank_one, together=together) for together in (1, 3))
    for a, b in zip(one.rows, many.rows):
        assert a.perplexity == pytest.approx(b.perplexity, rel=1e-12) and a.entropy == b.entropy
        assert all(getattr(a, name) == getattr(b, name) for name in SHARES)


def test_entropy_and_perplexity_can_be_left_out(tiny, run, few):
    for row in run(tiny("gpt2"), few, "none", entropy=False, perplexity=False).rows:
        assert row.entropy is None and row.perplexity is None and row.seconds is not None


def test_records_without_generation_prompts_have_no_entropy(tiny, run, few):
    del few[1]["generation_prompts"]
    few[2]["generation_prompts"] = []
    rows = run(tiny("gpt2"), few, "none").rows
    assert [row.entropy is None for row in rows] == [False, True, True, False, False]


def test_errors_stay_with_their_record(tiny, run, few, rank_one):
    """Too long a paraphrase, a target that is true already, an editor that fails: three rows, and the rest goes on."""

    def editor(lm, request):
        if request.subject == "Rome":
            raise RuntimeError("the matrix\nis singular")
        return rank_one(lm, request)

    lm = tiny("gpt2")
    few[0]["paraphrase_prompts"] = ["much too long " * 10]
    few[2]["requested_rewrite"]["target_true"] = {"str": "abc"}
    rows = run(lm, few, editor, together=3).rows
    assert [bool(row.error) for row in rows] == [True, False, True, True, False]
    assert "at most 64" in rows[0].error and "true one already" in rows[2].error
    assert rows[3].error == "RuntimeError: the matrix is singular" and rows[3].efficacy_accuracy is None
    good = run(lm, [few[1], few[4]], rank_one).rows
    assert [(r.perplexity, r.entropy) for r in good] == [(rows[i].perplexity, rows[i].entropy) for i in (1, 4)]


def test_an_edit_that_explodes_or_is_none_is_the_error_of_its_row(tiny, run, few, rank_one):
    def editor(lm, request):
        if request.subject == "Rome":
            return None
        return rank_one(lm, request, strength=1e38 if request.subject == "Oslo" else 3.0)

    lm = tiny("gpt2", torch.float32)
    rows = run(lm, few, editor).rows
    assert [bool(row.error) for row in rows] == [False, True, False, True, False]
    assert "NaN or infinite" in rows[1].error and "NoneType" in rows[3].error
    good = run(lm, [few[0], few[2], few[4]], rank_one).rows
    assert [(r.efficacy_success, r.entropy) for r in good] == [
        (rows[i].efficacy_success, rows[i].entropy) for i in (0, 2, 4)
    ]


def test_dense_edits_are_measured_before_the_next_but_one_is_made(tiny, run, few, dense):
    made = weakref.WeakSet()

    def editor(lm, request):
        gc.collect()
        assert len(made) <= 1
        edit = dense(lm, request)
        made.add(edit)
        return edit

    assert not any(row.error for row in run(tiny("gpt2"), few, editor, entropy=False).rows)


def test_a_note_of_the_editor_is_kept(mini, run):
    record = lens.data.records()[0]
    true = record["requested_rewrite"]["target_true"]
    record["requested_rewrite"] |= {"target_new": true, "target_true": record["requested_rewrite"]["target_new"]}
    row = run(mini, [record], "shift", entropy=False).rows[0]
    assert "says 'Africa' already" in row.note and row.efficacy_accuracy == 1


FULL = (
    "CPU: can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes", "MPS backend out of memory",
)  # fmt: skip


@pytest.mark.parametrize(
    "memory",
    [MemoryError("no room"), torch.cuda.OutOfMemoryError("no room"), *map(RuntimeError, FULL)],
)
def test_memory_that_runs_out_ends_the_run(tiny, run, few, memory):
    def editor(lm, request):
        raise memory

    with pytest.raises(type(memory)):
        run(tiny("gpt2"), few, editor)


def interrupted(kind: type[BaseException], at: int):
    calls = []

    def editor(lm, request):
        calls.append(request)
        if len(calls) == at:
            raise kind
        return lens.edit.shift(lm, request, layer=1, eta=2.0)

    return editor


def test_the_model_is_untouched_after_a_run_an_exception_and_an_interrupt(tiny, run, few, rank_one, state):
    lm = tiny("llama")
    lm.model.train()
    lm.model.requires_grad_(True)
    before = state(lm.model)
    run(lm, few, rank_one)
    assert state(lm.model) == before
    assert run(lm, few, interrupted(ZeroDivisionError, 2)).summary()["errors"] == 1
    assert state(lm.model) == before
    with pytest.raises(KeyboardInterrupt):
        run(lm, few, interrupted(KeyboardInterrupt, 4), together=2)
    assert state(lm.model) == before


def test_an_interrupt_while_a_dense_edit_is_in_the_weights_takes_it_out(tiny, run, few, dense, monkeypatch):
    lm = tiny("gpt2")
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    run(lm, few, dense)

    def interrupt(*_, **__):
        assert not torch.equal(before["transformer.h.1.mlp.c_proj.weight"], lm.weight(1, "ff2"))
        raise KeyboardInterrupt

    # The function of that name hides the module.
    monkeypatch.setattr(sys.modules["lens.evaluate.counterfact"], "shares", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(lm, few, dense)
    assert all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())


def test_rows_before_an_interrupt_are_on_the_disk(tiny, run, few, tmp_path):
    out = tmp_path / "run.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(tiny("gpt2"), few, interrupted(KeyboardInterrupt, 4), together=2, out=out)
    assert [row.case_id for row in lens.evaluate.Report.read(out).rows] == [0, 7]


@pytest.mark.parametrize(
    "editor, settings, words",
    [
        ("magic", None, "no editor 'magic'.*shift"),
        ("branches", None, "no editor 'branches'"),
        ("shift", {"luck": 7}, "no setting 'luck'.*eta"),
        ("none", {"eta": 1}, "unedited model has no settings"),
    ],
)
def test_an_unknown_editor_or_setting_is_refused_at_once(tiny, run, few, refuses, editor, settings, words):
    with refuses(ValueError, words):
        run(tiny("gpt2"), few, editor, settings=settings)


@pytest.mark.parametrize(
    "options, words",
    [(dict(together=0), "1 or larger"), (dict(texts=["x"]), "two tokens"), (dict(seed=-1), "seed")],
)
def test_options_out_of_range_are_refused(tiny, run, few, refuses, options, words):
    with refuses(ValueError, words):
        run(tiny("gpt2"), few, "none", **options)


def test_no_records_are_refused(tiny, run, refuses):
    with refuses(ValueError, "no records"):
        run(tiny("gpt2"), [], "none")


def test_the_bar_counts_records(tiny, few, capsys):
    lens.evaluate.counterfact(tiny("gpt2"), few, "none", perplexity=False, entropy=False)
    assert re.search(r"none: 100%.*5/5", capsys.readouterr().err)


def test_an_editor_that_applies_its_edit_is_told_so_and_leaves_the_model(tiny, run, few, rank_one, refuses):
    lm = tiny("gpt2")
    before = lm.weights.current_fingerprint

    def hasty(lm, request):
        return rank_one(lm, request).apply()

    report = run(lm, few, hasty)
    assert {row.error for row in report.rows} == {
        "The editor hasty has applied its edit: let it return the edit as it was made."
    }
    with refuses(ValueError, "hasty has applied its edit"):
        lens.evaluate.sequential(lm, few, hasty, at=[1], perplexity=False, progress=False)
    assert lm.weights.current_fingerprint == before and not lm.changed
