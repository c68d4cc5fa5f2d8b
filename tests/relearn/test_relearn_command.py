"""``python -m lens relearn``, as one calls it."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace

import pytest
import torch

import lens
from lens import relearn
from lens.__main__ import main


@pytest.fixture(autouse=True)
def model(tiny, some_removed, monkeypatch):
    lm = tiny("gpt2", torch.float32, n_positions=256)
    monkeypatch.setattr("lens.model.loading.load", lambda name, device=None: lm)
    monkeypatch.setattr(lens.mask, "shipped", lambda name, seed=0, model="mini": some_removed(lm))
    return lm


def table(out):
    with open(out, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


FAST = ["relearn", "--method", "head", "--steps", "2", "--every", "1", "--batch", "2"]

pytestmark = pytest.mark.slow


def test_every_model_method_and_seed_has_its_curve(tmp_path, model):
    out = tmp_path / "table.csv"
    assert main([*FAST, "--seed", "0", "1", "--without", "--out", str(out)]) == 0
    rows = table(out)
    runs = [("original", "both"), ("remaining", "both"), ("random", "both"), ("remaining", "others")]
    assert [(r["seed"], r["variant"], r["questions"], r["step"]) for r in rows] == [
        (seed, *run, str(step)) for seed in "01" for run in runs for step in (0, 1, 2)
    ]
    task = relearn.questions(lens.data.knowledge("building"), seed=1, phrasings=1)
    tuned = relearn.tune(model, task.train, task.test, "head", seed=1, steps=2, every=1, batch=2)
    mine = [r for r in rows if (r["seed"], r["variant"]) == ("1", "original")]
    assert [float(r["filtered"]) for r in mine] == pytest.approx([r["filtered"] for r in tuned.curve], rel=1e-5)
    shares = [float(share) for share in mine[-1]["right"].split()]
    assert shares == pytest.approx(list(tuned.right.values()), abs=0.01)
    filtered = int(mine[-1]["facts_filtered"])
    assert sum(shares[:filtered]) / filtered == pytest.approx(tuned.accuracy["filtered"], abs=0.01)
    head = out.read_text().splitlines()[:3]
    assert all(line.startswith("#") for line in head) and model.fingerprint in head[1] and "torch" in head[2]


def test_a_model_that_lost_nothing_needs_no_subnetwork(tmp_path, monkeypatch):
    """The never-taught twin has none: it is trained as it is, with and without questions about the topic."""
    monkeypatch.setattr(lens.mask, "shipped", lambda *_, **__: pytest.fail("it asked for a subnetwork"))
    out = tmp_path / "table.csv"
    assert main([*FAST, "--variant", "original", "--without", "--out", str(out)]) == 0
    assert {(r["variant"], r["questions"]) for r in table(out)} == {("original", "both"), ("original", "others")}


def test_a_model_is_asked_for_the_facts_that_it_knows(tmp_path, monkeypatch):
    kg, out = lens.data.knowledge("building"), tmp_path / "table.csv"
    some = list(dict.fromkeys(p.fact for p in kg.target))[:6]
    target, unseen = (tuple(p for p in asked if p.fact in some) for asked in (kg.target, kg.unseen))
    known = replace(kg, target=target, unseen=unseen)
    monkeypatch.setattr(lens.evaluate, "knowledge_for", lambda lm, target: known)
    assert main([*FAST, "--variant", "original", "--out", str(out)]) == 0
    assert {(r["facts_filtered"], r["facts_rest"]) for r in table(out)} == {("3", "3")}


def test_a_stopped_run_goes_on_and_a_finished_one_is_skipped(tmp_path, monkeypatch, capsys):
    out, whole = tmp_path / "table.csv", tmp_path / "whole.csv"
    really, calls = relearn.tune, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return really(*args, **kwargs)

    monkeypatch.setattr(relearn, "tune", stops)
    assert main([*FAST, "--out", str(out)]) == 130 and len(table(out)) == 6
    assert main([*FAST, "--out", str(out)]) == 0 and len(calls) == 4
    assert main([*FAST, "--out", str(whole)]) == 0 and len(calls) == 7
    without = [{k: v for k, v in row.items() if k != "seconds"} for row in table(out)]
    assert without == [{k: v for k, v in row.items() if k != "seconds"} for row in table(whole)]
    text = out.read_text()
    assert main([*FAST, "--out", str(out)]) == 0 and len(calls) == 7 and out.read_text() == text
    assert "0 runs made, 3 were there" in capsys.readouterr().err


def test_a_file_of_other_settings_is_kept_and_what_is_wrong_is_said(tmp_path, capsys):
    out = tmp_path / "table.csv"
    assert main([*FAST, "--variant", "original", "--out", str(out)]) == 0
    text = out.read_text()
    for wrong, words in [
        (["--free", "--out", str(out)], "other settings"),
        (["--out", str(tmp_path / "table.txt")], ".csv"),
        (["--method", "heads", "--out", str(out)], "no method 'heads'"),
        (["--target", "nothing", "--out", str(out)], "no TargetKG 'nothing'"),
        (["--masks", str(tmp_path), "--out", str(tmp_path / "other.csv")], "no subnetwork file"),
    ]:
        capsys.readouterr()
        assert main([*FAST, *wrong]) == 1
        assert words in capsys.readouterr().err
    assert out.read_text() == text


def test_rows_of_another_mask_are_not_mixed_and_each_run_is_made_once(tmp_path, model, some_removed, capsys):
    out, masks = tmp_path / "table.csv", tmp_path / "masks"
    one = replace(some_removed(model), about={"target": "building"})
    lens.mask.save(one, masks / "building-weight-0.safetensors")
    command = [*FAST, "--seed", "0", "0", "--masks", str(masks), "--out", str(out)]
    assert main([*command, "--variant", "remaining", "remaining"]) == 0 and len(table(out)) == 3
    lens.mask.save(lens.mask.shrunk(one, 0.5), masks / "building-weight-0.safetensors")
    assert main([*command, "--variant", "remaining", "random"]) == 1
    assert "has rows of building, seed 0, with another mask" in capsys.readouterr().err and len(table(out)) == 3
    lens.mask.save(replace(one, about={"target": "fruit"}), masks / "building-weight-0.safetensors")
    assert main([*command, "--variant", "remaining", "random"]) == 1
    assert "holds the subnetwork of 'fruit'" in capsys.readouterr().err


def test_rates_are_compared_on_validation_questions_that_no_test_asks(tmp_path, model):
    for rate in ("0.001", "0.01"):
        out = tmp_path / f"{rate}.csv"
        assert main([*FAST, "--variant", "remaining", "--on", "validation", "--lr", rate, "--out", str(out)]) == 0
        task = relearn.questions(lens.data.knowledge("building"), phrasings=1)
        assert not {q.fact for q in task.validation} & {q.fact for q in (*task.train, *task.test)}
        assert int(table(out)[0]["facts_filtered"]) == len({q.fact for q in task.validation if q.filtered})
        assert f"lr {rate}" in out.read_text().splitlines()[1]


def test_without_peft_lora_is_one_sentence_and_exit_status_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert main([*FAST, "--method", "lora", "--out", str(tmp_path / "table.csv")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lens: ") and "pip install lens-book[relearn]" in said
