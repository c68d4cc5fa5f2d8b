"""The base of every explorer: plain state, one sentence for every failure, two ways to be shown, one style sheet."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import lens.course.widgets
from lens.course.widgets.explorer import PAGE, Explorer, Words, page, plain

WIDGET = "application/vnd.jupyter.widget-view+json"
HOSTILE = "</script><script>alert('x')</script> \"><img src=x onerror=f()> <!-- \u2028 \u2029 & \ud800"


class Doubled(Explorer):
    """Doubles what it is asked, so that the tests see the whole way of a question."""

    _esm, _css = page("lens")

    def compute(self, request):
        return {"doubled": 2 * request["value"]}


@pytest.fixture
def explorer():
    return Doubled({"text": HOSTILE, "value": 1.23456})


class Scripts(HTMLParser):
    """The elements of a piece of HTML, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


# Plain values


def test_tensors_arrays_and_numbers_become_plain_json_with_four_digits():
    value = {"a": torch.tensor([[1.23456, float("inf")]]), 1: np.float32(3.14159), "n": np.int64(7), "t": (True, None)}
    assert plain(value) == {"a": [[1.235, None]], "1": 3.142, "n": 7, "t": [True, None]}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)


def test_half_a_character_does_not_reach_the_page():
    plain("a \ud800 b").encode("utf-8")


def test_a_word_is_kept_once():
    words = Words()
    assert words([["a", "b"], ["b", "a"]]) == [[0, 1], [1, 0]] and words.table == ["a", "b"]


# Two ways to be shown


def test_in_a_notebook_an_explorer_is_a_widget(explorer, monkeypatch):
    monkeypatch.delenv("LENS_STATIC", raising=False)
    bundle = explorer._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert bundle[WIDGET]["model_id"] == explorer.model_id and "text/html" not in bundle


def test_in_the_book_an_explorer_is_html_and_no_widget(explorer, monkeypatch):
    monkeypatch.setenv("LENS_STATIC", "1")
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    found = Scripts(bundle["text/html"])
    assert found.tags == ["div", "noscript", "p", "script", "script"], "hostile text became an element"
    values, module = found.scripts
    assert json.loads(values) == {"state": explorer.state, "live": False}
    assert "\u2028" not in values and "export " not in module


def test_two_explorers_of_a_page_have_roots_of_their_own(explorer, printed):
    ids = re.findall(r'class="lens-explorer-root" id="([^"]+)"', printed(explorer, explorer))
    assert len(set(ids)) == 2


def test_html_says_what_it_shows_where_no_script_runs(explorer, printed):
    assert f"<noscript><p>{explorer.summary()}" in printed(explorer)


# Questions and answers


def test_a_question_is_answered_under_its_own_id(explorer):
    explorer.request = {"id": "q1", "value": 1.11111}
    assert explorer.answer == {"id": "q1", "case": {"doubled": 2.222}}
    explorer.request = {"id": "q2", "value": 2}
    assert explorer.answer == {"id": "q2", "case": {"doubled": 4}}


@pytest.mark.parametrize("error", [ValueError, IndexError, TypeError, RuntimeError, KeyError, MemoryError])
def test_whatever_goes_wrong_is_told_and_the_next_question_is_answered(explorer, monkeypatch, error):
    def compute(request):
        raise error("There is no such thing.")

    with monkeypatch.context() as patch:
        patch.setattr(explorer, "compute", compute)
        explorer.request = {"id": "bad"}
    assert explorer.answer["id"] == "bad" and "There is no such thing." in explorer.answer["problem"]
    explorer.request = {"id": "good", "value": 1}
    assert explorer.answer["case"] == {"doubled": 2}


def test_an_explorer_that_takes_no_questions_says_so():
    silent = Explorer({})
    silent.request = {"id": "q"}
    assert silent.answer["problem"].endswith(".")


# The pages


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_scripts_make_no_markup_of_text_fetch_nothing_and_are_short(path):
    text = path.read_text(encoding="utf-8")
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import ",
                      "XMLHttpRequest", "</script", "<!--"):  # fmt: skip
        assert forbidden not in text, f"{path.name} holds {forbidden}"
    assert len(text.splitlines()) <= 300


def test_a_script_asks_of_its_model_only_what_every_host_offers():
    for path in PAGE.glob("*.js"):
        calls = set(re.findall(r"\bmodel\.(\w+)", path.read_text(encoding="utf-8")))
        assert calls <= {"get", "set", "on", "off", "save_changes"}, path.name


def test_the_style_touches_nothing_but_explorers():
    text = re.sub(r"(?s)/\*.*?\*/", "", (PAGE / "explorer.css").read_text(encoding="utf-8"))
    selectors = [s.strip() for s in re.findall(r"([^{}]+)\{", text) if not s.strip().startswith("@")]
    for selector in selectors:
        while "(" in selector:
            selector = re.sub(r"\([^()]*\)", "", selector)
        for part in selector.split(","):
            assert ".lens-explorer" in part, part
    assert len(selectors) > 20


def test_a_color_is_defined_in_one_place():
    text = (PAGE / "explorer.css").read_text(encoding="utf-8")
    defined = re.findall(r"(?m)^\s*(--[\w-]+): (?:light-dark|#)", text)
    assert len(defined) == len(set(defined)) and "--heat-8" in defined
    rules = text[text.index("box-sizing") :]
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", rules), "a color outside the list of variables"


def test_every_explorer_is_found_by_name():
    for name in lens.widgets.__all__:
        assert issubclass(getattr(lens.widgets, name), Explorer)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        lens.widgets.Nothing


def test_a_chapter_runs_again_when_a_script_or_the_style_changes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "book")
    execute = pytest.importorskip("execute")
    copy = tmp_path / "lens" / "widgets"
    shutil.copytree(PAGE.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (chapter := tmp_path / "chapter.ipynb").write_text("{}")
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(execute, "BOOK", tmp_path)
    for name in ("lens.js", "explorer.css"):
        before = execute.key(chapter)
        (copy / "page" / name).open("a").write("\n")
        assert execute.key(chapter) != before, name


def test_a_chapter_s_kernel_and_only_that_prints_its_explorers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "book")
    execute = pytest.importorskip("execute")
    assert execute.ThisEnvironment().get_kernel_spec("python3").env == {"LENS_STATIC": "1"}
    assert "LENS_STATIC" not in os.environ
