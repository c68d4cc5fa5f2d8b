"""A run that is killed goes on, ends with the same rows, and is never mixed with another."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import lens
from lens.evaluate import Report
from lens.evaluate.rows import Row
from lens.evaluate.run_file import RunFile

OPTIONS = dict(settings={"eta": 0.5}, seed=4, texts=["Rain fell on the harbor.", "A ship left the harbor."])

CHILD = """
import sys, time, lens
def shift(lm, request, eta):
    time.sleep(0.02)  # long enough to be killed in the middle
    return lens.edit.shift(lm, request, eta=eta)
records = lens.data.records("validation")[:48]
lens.evaluate.counterfact(lens.load("mini", device="cpu"), records, shift, out=sys.argv[1], together=4,
                          entropy=False, progress=False, **{})
"""


def timeless(rows) -> list[Row]:
    return [replace(row, seconds=None) for row in rows]


@pytest.mark.slow
def test_a_run_killed_at_random_ends_with_the_rows_of_one_that_was_not(mini, run, tmp_path):
    """SIGKILL, three times, each a random while after a new row is on the disk; then the run goes on to its end."""
    rng = random.Random(1)
    out = tmp_path / "run.jsonl"
    child = CHILD.replace("{}", repr(OPTIONS))
    environment = os.environ | {"PYTHONPATH": str(Path(lens.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    seen = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", child, str(out)], env=environment)
        before = out.read_bytes().count(b"\n") if out.exists() else 1
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") > before:
                time.sleep(rng.random() * 0.3)
                break
            time.sleep(0.005)
        process.kill()
        process.wait(timeout=60)
        seen.append(out.read_bytes().count(b"\n") - 1)
    assert 0 < seen[0] < seen[1] < seen[2] < 48, seen  # killed in the middle each time, and what was there stayed

    def shift(lm, request, eta):
        return lens.edit.shift(lm, request, eta=eta)

    records = lens.data.records("validation")[:48]
    run(mini, records, shift, together=4, entropy=False, out=out, **OPTIONS)
    whole = run(mini, records, shift, together=4, entropy=False, **OPTIONS)
    got = Report.read(out).rows
    # The killed processes ran on one thread and this one on as many as there are: their sums round apart.
    assert [r.perplexity for r in got] == pytest.approx([r.perplexity for r in whole.rows], rel=1e-5)
    assert [replace(r, perplexity=None) for r in timeless(got)] == [
        replace(r, perplexity=None) for r in timeless(whole.rows)
    ]
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["case_id"] for line in lines[1:]}) == len(lines) - 1  # no record was done twice


def test_a_subject_whose_letters_are_spelled_in_parts_goes_on_too(tiny, run, few, rank_one, tmp_path):
    few[0]["requested_rewrite"] |= {"subject": "Sa\u0303o"}
    one = run(tiny("gpt2"), few[:2], rank_one, out=tmp_path / "run")
    assert timeless(run(tiny("gpt2"), few[:2], rank_one, out=tmp_path / "run").rows) == timeless(one.rows)
    assert [row.error for row in one.rows] == [None, None]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_last_line_is_dropped_and_its_record_done_again(tiny, run, few, rank_one, tmp_path, cut):
    lm, out = tiny("gpt2"), tmp_path / "run.jsonl"
    whole = run(lm, few, rank_one, out=out, together=2)
    content = out.read_bytes()
    out.write_bytes(content[:-cut])
    assert len(Report.read(out).rows) == 4
    again = run(lm, few, rank_one, out=out, together=2)
    assert timeless(again.rows) == timeless(whole.rows) and timeless(Report.read(out).rows) == timeless(whole.rows)


def test_a_run_goes_on_in_the_order_of_its_records_and_asks_nothing_twice(tiny, run, few, rank_one, tmp_path):
    lm, out, asked = tiny("gpt2"), tmp_path / "new folder" / "run.jsonl", []

    def editor(lm, request):
        asked.append(request.subject)
        return rank_one(lm, request)

    first = run(lm, few[:3], editor, out=out, together=2)
    second = run(lm, few, editor, out=out, together=4)
    third = run(lm, few[::-1], editor, out=out)
    assert asked == ["Nice", "Oslo", "Bergen", "Rome", "Bari"]
    assert second.rows[:3] == first.rows and third.rows == second.rows[::-1]
    assert timeless(second.rows) == timeless(run(lm, few, rank_one).rows)


def test_the_header_says_how_the_rows_were_made(tiny, run, few, tmp_path):
    import torch
    import transformers

    lm, out = tiny("gpt2"), tmp_path / "run.jsonl"
    report = run(lm, few[:1], "shift", out=out, settings={"eta": 0.5}, seed=3, entropy=False)
    header = json.loads(out.read_text(encoding="utf-8").splitlines()[0])
    assert header == json.loads(json.dumps(report.header)) == Report.read(out).header
    assert header["model"] == "tiny gpt2" and header["fingerprint"] == lm.fingerprint and header["editor"] == "shift"
    assert header["settings"]["eta"] == 0.5 and "layer" in header["settings"] and header["seed"] == 3
    assert header["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert header["versions"]["transformers"] == transformers.__version__ and header["machine"].endswith("threads")


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(editor="none", settings={}), "another editor"),
        (dict(settings={"eta": 0.6}), r"other settings .*0\.5.*0\.6"),
        (dict(seed=1), "another seed"),
        (dict(entropy=False), "other options"),
        (dict(perplexity=False), "other options"),
        (dict(texts=["Other words."]), "other options"),
        (dict(model=1), "another model"),
    ],
)
def test_another_run_is_refused_and_the_file_left_alone(tiny, run, few, tmp_path, refuses, change, words):
    out = tmp_path / "run.jsonl"
    run(tiny("gpt2"), few, "shift", settings={"eta": 0.5}, out=out)
    before = out.read_bytes()
    change = {"editor": "shift", "settings": {"eta": 0.5}} | change
    lm = tiny("gpt2", seed=change.pop("model", 0))
    with refuses(ValueError, words):
        run(lm, few, change.pop("editor"), out=out, **change)
    assert out.read_bytes() == before


HEADER = {"format": "lens-counterfact-1", "model": "a", "fingerprint": "b", "editor": "e", "seed": 0, "options": {}}


def test_where_settings_are_from_decides_nothing_unless_an_editor_has_such_a_setting(tmp_path, refuses):
    RunFile(tmp_path / "old.jsonl", HEADER | {"settings": {"eta": 0.5, "source": "a guess"}})
    RunFile(tmp_path / "old.jsonl", HEADER | {"settings": {"eta": 0.5}, "source": "validation records"})
    with refuses(ValueError, "other settings"):
        RunFile(tmp_path / "old.jsonl", HEADER | {"settings": {"eta": 0.5, "source": "another text"}})


def test_a_run_in_the_home_folder_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    header = HEADER | {"settings": {}}
    RunFile("~/run.jsonl", header).append([Row(1, "Oslo", "Bergen")])
    assert [row.case_id for row in RunFile("~/run.jsonl", header).rows.values()] == [1]
    assert not (tmp_path / "~").exists()


def test_rows_of_other_records_under_the_same_number_are_refused(tiny, run, few, tmp_path, refuses):
    out = tmp_path / "run.jsonl"
    run(tiny("gpt2"), few, "none", out=out)
    few[2]["requested_rewrite"]["subject"] = "Genoa"
    with refuses(ValueError, "Case 3 .*'Bergen'.*'Genoa'"):
        run(tiny("gpt2"), few, "none", out=out)


def test_a_refused_call_leaves_no_file_behind(tiny, run, few, tmp_path, refuses):
    out = tmp_path / "run.jsonl"
    with refuses(ValueError, "at most 64"):
        run(tiny("gpt2"), few, "none", out=out, texts=["much too long " * 10])
    with refuses(ValueError, "a lambda has none: give a function made with def"):
        run(tiny("gpt2"), few, lambda lm, request: None, out=out)
    assert not out.exists()


def test_a_partial_is_known_by_its_function_and_its_keywords(tiny, run, few, rank_one, tmp_path, refuses):
    out = tmp_path / "run.jsonl"
    one = run(tiny("gpt2"), few, partial(rank_one, strength=1.0), out=out)
    assert (one.header["editor"], one.header["settings"]) == ("rank_one", {"strength": 1.0})
    with refuses(ValueError, "other settings"):
        run(tiny("gpt2"), few, partial(rank_one, strength=2.0), out=out)
    same = run(tiny("gpt2"), few, partial(rank_one, strength=2.0), settings={"strength": 1.0}, out=out)
    assert same.rows == one.rows


def test_an_object_among_the_settings_is_known_without_its_place_in_memory(tiny, run, few, rank_one):
    def ranked(lm, request, by=None, strength=1.0):
        return rank_one(lm, request, strength=strength)

    class Scorer:
        pass

    settings = {"by": Scorer(), "strength": np.float32(1)}
    header = run(tiny("gpt2"), few, ranked, settings=settings, seed=np.int64(3)).header
    assert " at 0x" not in json.dumps(header) and "Scorer" in header["settings"]["by"] and header["seed"] == 3


@pytest.mark.parametrize("content", ["Dear diary", "Dear diary\n", '{"format": "lens-counterfact-9"}\n', "[1]\n", "\n"])
def test_a_file_that_is_no_run_is_never_written_to(tiny, run, few, tmp_path, refuses, content):
    out = tmp_path / "diary.txt"
    out.write_text(content)
    with refuses(OSError, "diary.txt"):
        run(tiny("gpt2"), few, "none", out=out)
    with refuses(OSError, "diary.txt"):
        Report.read(out)
    assert out.read_text() == content


def test_a_damaged_line_is_named(tiny, run, few, tmp_path, refuses):
    out = tmp_path / "run.jsonl"
    run(tiny("gpt2"), few, "none", out=out)
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    for damage in ("{}\n", lines[2][:30] + "\n", lines[2].replace("seconds", "hours")):
        out.write_text("".join([*lines[:2], damage, *lines[3:]]), encoding="utf-8")
        with refuses(OSError, "remove its line 3"):
            Report.read(out)


def test_an_absent_file_is_one_sentence_and_an_empty_one_a_beginning(tiny, run, few, tmp_path, refuses):
    with refuses(OSError, "no run file"):
        Report.read(tmp_path / "nothing")
    out = tmp_path / "empty"
    out.touch()
    assert len(run(tiny("gpt2"), few, "none", out=out).rows) == 5


def test_keeping_rows_costs_milliseconds_each_at_most(tmp_path):
    """Writing, syncing and reading back; a record of GPT-2 XL takes seconds, one of mini tenths of a second."""
    header = {"format": "lens-counterfact-1", "seed": 0} | dict.fromkeys(("model", "fingerprint", "editor"), "one")
    header |= dict.fromkeys(("settings", "options"), {})
    rows = [Row(i, "Nice", "a", *[0.5] * 9, note="n") for i in range(2000)]
    file = RunFile(tmp_path / "run.jsonl", header)
    start = time.process_time()
    for i in range(0, 2000, 8):
        file.append(rows[i : i + 8])
    again = RunFile(tmp_path / "run.jsonl", header)
    assert (time.process_time() - start) / 2000 < 1e-3
    assert list(again.rows.values()) == rows and asdict(rows[0])["note"] == "n"


def test_the_same_request_in_other_words_is_another_record(tiny, run, few, tmp_path, refuses):
    out = tmp_path / "run.jsonl"
    rows = run(tiny("gpt2"), few, "none", out=out).rows
    few[1]["neighborhood_prompts"] = ["Genoa is"]
    with refuses(ValueError, "Case 7 .* was asked with other prompts"):
        run(tiny("gpt2"), few, "none", out=out)
    old = [line.replace(f', "record": "{row.record}"', "") for line, row in zip(out.read_text().splitlines()[1:], rows)]
    out.write_text("\n".join([out.read_text().splitlines()[0], *old, ""]))  # as files were before
    assert [row.record for row in run(tiny("gpt2"), few, "none", out=out).rows] == [None] * 5


def test_texts_that_are_cut_elsewhere_are_others(tiny, run, few, tmp_path, refuses):
    out = tmp_path / "run.jsonl"
    run(tiny("gpt2"), few, "none", out=out, texts=["Rain fell.", "A ship."])
    with refuses(ValueError, "other options"):
        run(tiny("gpt2"), few, "none", out=out, texts=["Rain fell.\nA ship."])


def test_a_record_that_failed_is_done_again(tiny, run, few, rank_one, tmp_path):
    out, works = tmp_path / "run.jsonl", False

    def flaky(lm, request):
        if not works and request.subject == "Oslo":
            raise OSError("the network is down: try again")
        return rank_one(lm, request)

    lm = tiny("gpt2")
    first = run(lm, few, flaky, out=out)
    works = True
    second = run(lm, few, flaky, out=out)
    assert [row.case_id for row in first.errors] == [7] and not second.errors and second.rows[0] == first.rows[0]
    assert timeless(Report.read(out).rows) == timeless(second.rows)


def test_numbers_among_the_settings_are_all_compared(tiny, run, few, rank_one, tmp_path, refuses):
    @dataclass
    class Held:
        by: torch.Tensor

    def weighed(lm, request, by):
        return rank_one(lm, request)

    for kind in (torch.as_tensor, lambda t: t.numpy(), Held):
        one, other = torch.zeros(2000), torch.zeros(2000)
        other[500] = 1e-3
        out = tmp_path / f"{kind}.jsonl"
        run(tiny("gpt2"), few, partial(weighed, by=kind(one)), out=out)
        run(tiny("gpt2"), few, partial(weighed, by=kind(one.clone())), out=out)
        with refuses(ValueError, "other settings"):
            run(tiny("gpt2"), few, partial(weighed, by=kind(other)), out=out)
