"""Public datasets are read through ``datasets``, and where they cannot be, one sentence says what to do."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from lens.data import Question, commonsense_qa, knowledge, wikitext

LINES = [
    "",
    " = A Heading = \n",
    " First paragraph , with a mark . \n",
    " = = A section = = \n",
    " = is a mark \n",
    " y = x \n",
    "   \n",
]
ASKED = [
    {
        "id": "1",
        "question": "Where is a doormat?",
        "question_concept": "doormat",
        "choices": {"label": ["A", "B", "C"], "text": ["roof", "front door", "sea"]},
        "answerKey": key,
    }
    for key in ("B", "")
]


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for ``datasets`` that records what was asked of it."""

    def of(rows):
        asked = []

        def load_dataset(*names, **given):
            asked.append((*names, given))
            if isinstance(rows, Exception):
                raise rows
            return rows

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        return asked

    return of


def test_wikitext_is_its_paragraphs_without_headings(hub):
    asked = hub([{"text": line} for line in LINES])
    assert wikitext("test") == ("First paragraph , with a mark .", "= is a mark", "y = x")
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", {"split": "test"})]


def test_a_question_has_its_choices_and_the_place_of_the_right_one(hub):
    asked = hub(ASKED)
    known, unknown = commonsense_qa()
    assert known == Question("Where is a doormat?", ("roof", "front door", "sea"), 1, "doormat")
    assert known.choices[known.answer] == "front door" and unknown.answer is None
    assert asked == [("tau/commonsense_qa", None, {"split": "validation"})]


def test_the_package_itself_hands_over_such_rows(monkeypatch, tmp_path):
    """Local files through the real ``datasets``: rows are what the two readers expect."""
    import datasets

    real = datasets.load_dataset
    contents = {"Salesforce/wikitext": [{"text": line} for line in LINES], "tau/commonsense_qa": ASKED}

    def local(name, configuration, split):
        file = tmp_path / f"{name.partition('/')[2]}.jsonl"
        file.write_text("\n".join(map(json.dumps, contents[name])), encoding="utf-8")
        return real("json", data_files={split: str(file)}, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    assert wikitext("train") == ("First paragraph , with a mark .", "= is a mark", "y = x")
    assert [q.answer for q in commonsense_qa("validation")] == [1, None]


def test_public_text_takes_the_place_of_the_built_in_text(hub):
    hub([{"text": f"Paragraph {i} ."} for i in range(8)])
    kg = knowledge("building", text=wikitext())
    assert kg.text == tuple(f"Paragraph {i} ." for i in (1, 2, 3, 5, 6, 7))
    assert kg.text_held_out == ("Paragraph 0 .", "Paragraph 4 .") and kg.target == knowledge("building").target


@pytest.mark.parametrize("read", [wikitext, commonsense_qa])
def test_without_the_package_or_a_network_one_sentence_says_what_to_do(monkeypatch, hub, refuses, read):
    hub(ConnectionError("Couldn't reach the Hub.\nMore lines"))
    with refuses(OSError, r"could not be read \(Couldn't reach the Hub\): try again with a network.*built-in world"):
        read()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refuses(OSError, "pip install datasets.*built-in world"):
        read()


@pytest.mark.parametrize("read", [wikitext, commonsense_qa])
def test_an_unknown_split_is_refused_before_anything_is_loaded(hub, refuses, read):
    asked = hub([])
    with refuses(ValueError, "no split 'dev' of .*: choose train, validation, test"):
        read("dev")
    assert not asked
