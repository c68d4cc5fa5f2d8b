"""Does a claim travel as data from its cell to the page, and is its verdict one of four words?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest

from lens.course import claims

BOOK = Path(__file__).resolve().parents[1] / "book"
GIVEN = dict(measure="share of prompts", value=0.5, control=0.1, interval=(0.4, 0.6), n=10, form=".0%", verdict="holds")


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """The build's collector, with a folder of its own for what it ships."""
    monkeypatch.syspath_prepend(str(BOOK))
    import claims as pages

    monkeypatch.setattr(pages, "FILES", tmp_path)
    monkeypatch.setattr(pages.manifest, "write", lambda: None)
    yield pages
    sys.modules.pop("claims")


def chapter(*made, model="mini") -> nbformat.NotebookNode:
    data = [json.loads(json.dumps(one._repr_mimebundle_())) for one in made]
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in data]
    cells = [nbformat.v4.new_markdown_cell("# A title: and more\n\nText.")]
    cells += [nbformat.v4.new_code_cell("…", outputs=outputs)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.lens_book = {"seconds": 1.0, "model": model}
    return notebook


def test_a_claim_shows_its_numbers_and_carries_them(pages):
    made = claims.claim("a", "b", "It is so.", **GIVEN, series={"layer": [1, 2]})
    assert made.numbers == "50% [40%, 60%]; control 10%"
    assert made._repr_mimebundle_()["text/markdown"] == (
        "*It is so.* **Holds.** share of prompts: 50% [40%, 60%]; control 10%, n = 10."
    )
    assert pages.collected({"a": chapter(made)}) == {("a", "b"): claims.Claim(**json.loads(json.dumps(made.__dict__)))}


def test_a_claim_reads_the_same_on_every_model_and_what_differs_stands_beside_its_numbers():
    one, other = claims.edition("mini"), claims.edition("smollm2-135m")
    assert one.keys() == other.keys()
    for key, mine in one.items():
        assert (mine.says, mine.measure) == (other[key].says, other[key].measure), key
        assert mine.control is None or "control" in mine.measure, f"{key}: its measure does not say what its control is"
    made = claims.claim("a", "b", "It is so.", **GIVEN, at="layer 6")
    assert "share of prompts (layer 6): 50%" in made._repr_mimebundle_()["text/plain"]
    assert "50% [40%, 60%]; control 10% (layer 6): **holds**" in str(claims.Table({"mini": {("a", "b"): made}}))


def test_a_verdict_is_a_word_of_four_and_a_number_is_one(refuses):
    for wrong, pattern in ({"verdict": "yes"}, "choose of holds"), ({"value": float("nan")}, "a number that is none"):
        with refuses(ValueError, pattern):
            claims.claim("a", "b", "It is so.", **GIVEN | wrong)
    assert [claims.verdict(v, holds=0.9, part=0.5) for v in (0.95, 0.9, 0.5, 0.4)] == [
        "holds", "holds", "holds in part", "does not hold"
    ]


def test_what_an_edition_ships_stands_beside_another_in_the_table(pages, monkeypatch):
    real = claims.claim("a", "b", "It is so.", **GIVEN | {"verdict": "does not hold"})
    only = claims.claim("a", "only here", "And more.", **GIVEN)
    file = pages.ship({"a": chapter(real, only, model="smollm2-135m"), "b": chapter()}, "smollm2-135m")
    held = json.loads(file.read_text())
    assert list(held["seconds"]) == ["a"]  # the other chapter has not run on that model
    assert held["command"].endswith("--model smollm2-135m --ship") and held["versions"]["torch"] and held["machine"]
    monkeypatch.setattr(claims.paths, "root", lambda: file.parent.parent)
    monkeypatch.setattr(claims.manifest, "whole", lambda path: path)  # this folder has no list of its files
    (file.parent.parent / "claims").symlink_to(file.parent)
    claims.edition.cache_clear()
    assert claims.edition("smollm2-135m") == {("a", "b"): real, ("a", "only here"): only}
    mine = claims.claim("a", "b", "It is so.", **GIVEN)
    text = pages.page({"a": chapter(mine)}, "mini")
    assert "## [A title: and more](a.ipynb)" in text
    assert "| mini | 1 | 0 | 0 | 1 |" in text and "| smollm2-135m | 1 | 0 | 1 | 0 |" in text
    assert "**does not hold**" in str(claims.table("a", "mini"))
    claims.edition.cache_clear()


def test_a_claim_of_another_chapter_or_a_second_one_of_its_name_stops_the_build(pages):
    made = claims.claim("a", "b", "It is so.", **GIVEN)
    for chapters in ({"c": chapter(made)}, {"a": chapter(made, made)}):
        with pytest.raises(pages.BuildError, match="records the claim 'b' twice, or for a"):
            pages.collected(chapters)
