"""The grid, its criterion and its floor."""

from __future__ import annotations

import csv
import io
import json

import pytest

import lens
from lens.data import paths
from lens.evaluate import best, grid_search
from lens.evaluate.tuning import as_table, grid
from lens.results.csv_text import as_csv


def test_every_combination_is_evaluated_on_all_records(tiny, few, run):
    lm = tiny("gpt2")
    values = {"layer": [0, 2], "eta": [0.5, 4.0]}
    results = grid_search(lm, few, "shift", values=values, progress=False)
    assert [(r["layer"], r["eta"]) for r in results] == [(0, 0.5), (0, 4.0), (2, 0.5), (2, 4.0)]
    for result in results:
        settings = {key: result[key] for key in values}
        report = run(lm, few, "shift", settings=settings, entropy=False, perplexity=False)
        summary = report.summary()
        assert result["paraphrase_success"] == summary["paraphrase_success"].mean
        assert result["score"] == report.harmonic_mean() and result["cases"] == 5 and result["errors"] == 0


def test_the_best_has_the_largest_score_above_the_floor():
    results = [{"efficacy_accuracy": e, "score": s} for e, s in [(0.5, 0.9), (0.96, 0.4), (0.95, 0.6), (1.0, 0.5)]]
    assert best(results) is results[0] and best(results, floor=0.95) is results[2]
    assert best(results, floor=1.0) is results[3] and best(results[:1], floor=0.95) is None


def test_a_setting_is_not_judged_by_the_records_that_it_survived(refuses):
    one = {"efficacy_accuracy": 1.0, "score": 0.9, "cases": 100, "errors": 99}
    other = {"efficacy_accuracy": 0.9, "score": 0.8, "cases": 100, "errors": 0}
    assert best([one, other]) is other and best([one], floor=0.5) is None
    with refuses(ValueError, "No setting has a score"):
        best([{"efficacy_accuracy": None, "score": None, "cases": 2, "errors": 2}])


def test_records_without_one_kind_of_prompt_have_no_score(tiny, few):
    some = [record | {"neighborhood_prompts": []} for record in few]
    results = grid_search(tiny("gpt2"), some, "shift", values={"eta": [0.1, 4.0]}, progress=False)
    assert [result["score"] for result in results] == [None, None] and as_table(results).count("| -") == 6


def test_the_shipped_grid_of_shift_on_mini_is_the_books(mini):
    assert grid(mini, "shift") == {"layer": [4, 5, 6, 7], "eta": [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]}


def test_every_shipped_grid_is_made_of_settings_that_the_editor_has():
    table = json.loads((paths.root() / "editors.json").read_text(encoding="utf-8"))
    found = [
        (entries, model, values) for entries in table.values() for model, values in entries.get("grid", {}).items()
    ]
    assert found
    for entries, model, values in found:
        known = entries.get(model, entries["gpt2-xl"])
        assert set(values) <= set(known) and all(isinstance(v, list) and v for v in values.values())


@pytest.mark.parametrize("editor", ["finetune", "magic"])
def test_an_editor_without_a_grid_is_refused(tiny, refuses, editor):
    with refuses(ValueError, f"no grid of '{editor}' for 'tiny gpt2'"):
        grid_search(tiny("gpt2"), lens.data.records("validation"), editor)


def test_the_table_and_the_csv_hold_every_result(tiny, few):
    seen = []
    results = grid_search(
        tiny("gpt2"), few[:2], "shift", values={"eta": [1, 2]}, progress=False, each=lambda r: seen.append(len(r))
    )
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert seen == [1, 2] and [float(row["score"]) for row in rows] == [r["score"] for r in results]
    lines = as_table(results).splitlines()
    assert len(lines) == 4 and lines[0].startswith("| eta | efficacy accuracy ") and len({*map(len, lines)}) == 1
