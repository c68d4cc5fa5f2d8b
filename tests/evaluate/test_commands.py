"""``python -m lens counterfact`` and ``tune``, as one calls them."""

from __future__ import annotations

import csv
import io
import json

import pytest

import lens
from lens.__main__ import main
from lens.evaluate import Report


@pytest.fixture
def three(tmp_path):
    path = tmp_path / "three.json"
    path.write_text(json.dumps(lens.data.records("validation")[:3]), encoding="utf-8")
    return path


FAST = ["--no-entropy", "--no-perplexity", "--device", "cpu"]

pytestmark = pytest.mark.slow


def test_counterfact_writes_its_rows_and_prints_the_table(capsys, tmp_path, three):
    out = tmp_path / "rows.jsonl"
    arguments = ["counterfact", "--records", str(three), "--out", str(out), "--set", "eta=0.5", "--layer", "5", *FAST]
    assert main(arguments) == 0
    printed, bar = capsys.readouterr()
    report = Report.read(out)
    assert len(report.rows) == 3 and printed == report.table() + "\n" and "3/3" in bar
    assert report.header["settings"]["eta"] == 0.5 and report.header["settings"]["layer"] == 5
    before = out.read_bytes()
    assert main(arguments) == 0 and out.read_bytes() == before  # all there already
    assert main(["counterfact", "--editor", "none", "--records", str(three), "--beside", str(out), *FAST]) == 0
    assert "| none, mini" in (table := capsys.readouterr().out.split("\n|  ")[-1]) and "| shift, mini" in table


def test_sequential_prints_and_writes_a_line_per_count(capsys, tmp_path, three):
    out = tmp_path / "steps.csv"
    assert main(["sequential", "--records", str(three), "--at", "1", "3", "--out", str(out), "--device", "cpu"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " edits: " in line]
    assert [int(line.split()[0]) for line in lines] == [0, 1, 3] and all("perplexity" in line for line in lines)
    head, text = out.read_text(encoding="utf-8").split("\neditor,", 1)
    assert "threads" in head and lens.load("mini").fingerprint in head
    rows = list(csv.DictReader(io.StringIO("editor," + text)))
    assert [row["edits"] for row in rows] == ["0", "1", "3"] and {row["editor"] for row in rows} == {"shift"}
    assert rows[0]["latest_efficacy_accuracy"] == "" and float(rows[2]["latest_efficacy_accuracy"]) in (0.0, 1.0)


def test_counterfact_takes_the_splits_and_a_limit(capsys, monkeypatch):
    seen = []

    def counterfact(lm, records, editor, **options):
        seen.append((len(records), editor, options))
        return Report({"editor": editor, "model": "mini"}, ())

    monkeypatch.setattr(lens.evaluate, "counterfact", counterfact)
    for arguments in ([], ["--records", "validation"], ["--limit", "7", "--seed", "3", "--together", "2", *FAST]):
        assert main(["counterfact", *arguments]) == 0
    assert [count for count, *_ in seen] == [400, 100, 7] and all(editor == "shift" for _, editor, _ in seen)
    assert seen[0][2]["entropy"] and seen[0][2]["perplexity"] and seen[0][2]["settings"] == {}
    last = seen[2][2]
    assert (last["seed"], last["together"], last["entropy"], last["perplexity"]) == (3, 2, False, False)


@pytest.mark.parametrize("out", [True, False])
def test_ctrl_c_says_whether_the_same_command_goes_on(capsys, monkeypatch, tmp_path, out):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(lens.evaluate, "counterfact", interrupted)
    assert main(["counterfact", *(["--out", str(tmp_path / "x")] if out else [])]) == 130
    err = capsys.readouterr().err
    assert ("the same command goes on where it stopped." if out else "nothing is kept without --out FILE.") in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["counterfact", "--records", "nothing.json"], "no file nothing.json"),
        (["counterfact", "--limit", "0"], "at least 1"),
        (["counterfact", "--set", "eta"], "KEY=VALUE"),
        (["counterfact", "--set", "luck=1", *FAST], "no setting 'luck'"),
        (["counterfact", "--layer", "99", *FAST], "no layer 99"),
        (["counterfact", "--beside", "nothing.jsonl"], "no run file nothing.jsonl"),
        (["tune", "--editor", "none"], "no grid of 'none'"),
    ],
)
def test_what_cannot_be_done_exits_1_with_one_sentence(capsys, arguments, words):
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("lens: ") and words in err and err.count("\n") == 1


def test_tune_prints_every_setting_and_the_best_and_writes_the_csv(capsys, monkeypatch, tmp_path):
    import lens.evaluate.tuning as tuning

    out = tmp_path / "grid.csv"
    monkeypatch.setattr(tuning, "grid", lambda *_: {"eta": [0.0, 1.2]})
    assert main(["tune", "--limit", "3", "--floor", "0.3", "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 2 and printed.endswith("The best: eta = 1.2.\n")
    made, about, _, head, *rows = out.read_text().splitlines()
    assert made.startswith("# ") and about.startswith("# mini ") and len(rows) == 2
    assert head.startswith("eta,efficacy_accuracy")
    monkeypatch.setattr(tuning, "grid", lambda *_: {"eta": [0.0]})
    assert main(["tune", "--limit", "3", "--floor", "0.9", "--device", "cpu"]) == 1
    assert "No setting of the grid has an efficacy of 90%" in capsys.readouterr().err


def test_a_measure_that_no_record_has_is_a_dash_and_the_file_is_written(capsys, tmp_path):
    records, out = tmp_path / "records.json", tmp_path / "steps.csv"
    some = [r | {"neighborhood_prompts": []} for r in lens.data.records("validation")[:2]]
    records.write_text(json.dumps(some), encoding="utf-8")
    assert main(["sequential", "--records", str(records), "--at", "2", "--out", str(out), "--device", "cpu"]) == 0
    assert "neighborhood - (accuracy)" in capsys.readouterr().out and out.read_text(encoding="utf-8").count("\n") == 6


@pytest.mark.parametrize("command", [["sequential", "--at", "1"], ["tune"], ["mask", "evaluate", "x.safetensors"]])
def test_a_file_that_is_no_table_is_not_replaced(capsys, tmp_path, monkeypatch, command):
    out = tmp_path / "run.csv"
    out.write_text('{"format": "lens-counterfact-1"}\n')
    monkeypatch.setattr("lens.model.loading.load", lambda *_, **__: pytest.fail("a model was opened"))
    assert main([*command, "--out", str(out)]) == 1
    assert "is no table of this command" in capsys.readouterr().err and out.read_text().startswith("{")
