"""Does what a cell ends with say what it holds, in a small table that any page can show, light or dark?"""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

import lens
from lens.results import display

KINDS = ("Trace", "FactoredGradient", "Edit", "Subnetwork", "Knowledge", "Lens")


@pytest.fixture(scope="module")
def shown(mini):
    request = lens.Request("The capital of {} is", "France", "Rome")
    trace = lens.capture(mini, "The capital of France is", "Rome")
    values = (
        trace, trace.gradient(3, "ff2"), lens.edit.shift(mini, request), lens.mask.shipped("building"),
        lens.data.knowledge("building"), lens.logit_lens(mini, "The capital of France is"),
    )  # fmt: skip
    return {type(value).__name__: value for value in values}


class Read(HTMLParser):
    """Open tags, and the text between them."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.text, self.tags = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_shows_a_small_whole_table_and_one_line_of_text(kind, shown):
    page, line = shown[kind]._repr_html_(), repr(shown[kind])
    read = Read(page)
    assert not read.open and {"caption", "thead", "th", "td"} <= read.tags and "script" not in read.tags
    assert len(page.encode()) <= 20_000 and line.startswith(f"{kind}(") and "\n" not in line and len(line) <= 400
    assert line in read.text, "the caption is what text shows"


def test_the_tables_say_what_the_values_hold(shown):
    cells = {kind: Read(value._repr_html_()).text for kind, value in shown.items()}
    assert "·Paris" in cells["Lens"] and "·France" in cells["Lens"]
    assert f"{float(shown['Trace'].gradient(7, 'ff2').norm()):.2g}" in cells["Trace"]
    assert any(f"Rank {shown['FactoredGradient'].rank()}" in text for text in cells["FactoredGradient"])
    assert any("Not applied" in text for text in cells["Edit"])
    with shown["Edit"]:
        assert "Applied to the model now" in shown["Edit"]._repr_html_()
    assert f"{shown['Subnetwork'].density('module')[7, 'ff2']:.2%}" in cells["Subnetwork"]
    assert {"unseen", str(len(shown["Knowledge"].unseen))} <= set(cells["Knowledge"])


def test_text_is_escaped_and_shortened(shown):
    wicked = '<script>alert("x")</script>&\ud800' + "a" * 10_000
    page = replace(shown["Knowledge"], name=wicked, text=(wicked,))._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and len(page.encode("utf-8")) <= 20_000


def test_a_large_grid_is_cut_and_says_so():
    many = display.Grid([str(i) for i in range(60)], [["head", *"x" * 59]] * 90)
    page = display.table("large", many)
    assert len(page) <= 40_000 and "Not shown: 74 more rows, 48 more columns." in page
    assert display.spread(range(100), 4) == [0, 33, 66, 99] and display.spread([1, 2]) == [1, 2]


def test_a_share_that_is_no_number_is_no_shade():
    assert "0%" in display.table("x", display.Grid(["", "y"], [["head", display.Shaded("nan", float("nan"))]]))


def test_no_color_but_the_pages_own(shown):
    """Letters and shades are parts of ``currentColor``: what is readable around a table is readable in it."""
    for value in shown.values():
        page = value._repr_html_()
        assert "#" not in page.replace("&#x27;", "").replace("##", "") and "rgb(" not in page
