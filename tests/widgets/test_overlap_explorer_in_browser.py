"""The overlap explorer in a browser: circles have the areas they stand for, and every choice has its numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

import lens
from lens.course.widgets import OverlapExplorer

HOSTILE = '"><img src=x onerror=f()>'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explorer():
    masks = {(name, seed): lens.mask.shipped(name, seed) for name in ("building", "fruit") for seed in range(3)}
    return OverlapExplorer(masks | {(HOSTILE, 0): lens.mask.shipped("sun")})


def choose(page, label, option):
    page.get_by_label(label, exact=True).select_option(label=option)


def areas(page, n: int) -> np.ndarray:
    """The area of every region of the drawing, counted in points: [2ⁿ]."""
    circles = page.eval_on_selector_all(
        "circle", "(all) => all.map((c) => ['cx', 'cy', 'r'].map((name) => Number(c.getAttribute(name))))"
    )
    assert len(circles) == n
    x, y = np.meshgrid(np.arange(0, 340, 0.25), np.arange(0, 340, 0.25))
    bits = sum(((x - cx) ** 2 + (y - cy) ** 2 < r**2).astype(int) << i for i, (cx, cy, r) in enumerate(circles))
    return np.bincount(bits.flatten(), minlength=1 << n)


@pytest.mark.parametrize("second", ["building, seed 1", "fruit, seed 2"])
def test_two_circles_and_what_they_share_have_the_areas_of_their_counts(explorer, visit, printed, second):
    page = visit(printed(explorer))
    choose(page, "second", second)
    if page.get_by_label("third", exact=True).is_visible():
        choose(page, "third", "none")
    key = f"0,{1 if second.endswith('1') else 5}"
    counts = np.array([count for count, _ in explorer.state["found"][key][0][2]])
    found = areas(page, 2)[1:]
    assert found / found.sum() == pytest.approx(counts / counts.sum(), rel=0.02)
    shown = page.locator("svg .count").all_text_contents()
    assert shown == [f"{count:,}" for count in counts][: len(shown)] and len(shown) >= 2
    assert page.locator("svg .letter").all_text_contents() == page.locator(".dot").all_inner_texts() == ["A", "B"]
    assert page.locator(".sentence").inner_text().startswith(f"{counts[2]:,} weights are in both")


def test_three_circles_share_areas_two_at_a_time(explorer, visit, printed):
    page = visit(printed(explorer))
    counts = np.array([0, *(count for count, _ in explorer.state["found"]["0,1,2"][0][2])])
    found = areas(page, 3)
    found[0] = 0
    for some in (0b001, 0b010, 0b100, 0b011, 0b101, 0b110):
        holds = [bits & some == some for bits in range(8)]
        assert found[holds].sum() / found.sum() == pytest.approx(counts[holds].sum() / counts.sum(), rel=0.05)


def test_every_number_is_that_of_the_state(explorer, visit, printed):
    page = visit(printed(explorer))
    total, sizes, regions, shared, iou = explorer.state["found"]["0,1,2"][0]
    sentence = page.locator(".sentence").inner_text()
    assert sentence.startswith(f"{shared[0]:,} weights are in all three: {shared[0] / shared[1]:.0f} times as many")
    table = page.get_by_role("region", name="overlap beside chance")
    assert table.locator("tbody th").all_inner_texts() == ["in all three", "IoU"]
    observed = table.locator("tbody td:nth-child(2)").all_inner_texts()
    assert observed == [f"{shared[0]:,}", f"{100 * iou[0]:.3g} %"]
    assert f"{sizes[0]:,} weights, {100 * sizes[0] / total:.2f} %" in page.locator(".sets").inner_text()
    page.get_by_text("every region as a table").click()
    every = page.get_by_role("region", name="every region").locator("tbody tr")
    assert every.locator("td:nth-child(2)").all_inner_texts() == [f"{count:,}" for count, _ in regions]
    assert every.locator("th").last.inner_text() == "building, seed 0 and building, seed 1 and building, seed 2"


def test_a_layer_or_a_site_alone_can_be_chosen_by_keys(explorer, visit, printed):
    page = visit(printed(explorer))
    whole = page.locator(".sentence").inner_text()
    page.get_by_label("layers and sites", exact=True).focus()
    page.keyboard.press("ArrowDown")
    (*_, shared, _iou) = explorer.state["found"]["0,1,2"][1]
    assert page.get_by_label("layers and sites", exact=True).locator("option:checked").inner_text() == "layer 4"
    assert page.locator(".sentence").inner_text().startswith(f"{shared[0]:,} weights") and shared[0] < int(
        re.match(r"[\d,]+", whole)[0].replace(",", "")
    )


def test_a_printed_page_offers_only_what_it_holds(explorer, visit, printed):
    page = visit(printed(explorer))
    assert page.get_by_label("third", exact=True).locator("option").all_inner_texts() == ["none", "building, seed 2"]
    choose(page, "second", "fruit, seed 0")
    assert not page.get_by_label("third", exact=True).is_visible()
    assert not page.get_by_label("layers and sites", exact=True).is_visible()
    assert "are in both" in page.locator(".sentence").inner_text()
    choose(page, "first", "fruit, seed 0")
    taken = [page.get_by_label(name, exact=True).input_value() for name in ("first", "second")]
    assert taken[0] != taken[1], "nothing is compared with itself"
    for first in range(7):
        page.get_by_label("first", exact=True).select_option(index=first)
        for second in range(6):
            page.get_by_label("second", exact=True).select_option(index=second)
            assert page.locator("circle").count() in (2, 3)


@pytest.mark.parametrize("width", [360, 768])
def test_names_are_text_and_the_page_never_scrolls_sideways(explorer, visit, printed, width):
    page = visit(printed(explorer), width=width)
    choose(page, "second", f"{HOSTILE}, seed 0")
    page.get_by_text("every region as a table").click()
    assert HOSTILE in page.locator(".sets").inner_text() and page.locator(".lens-explorer img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_light_and_dark(explorer, visit, printed, contrasts, accessible, dark):
    page = visit(printed(explorer), dark=dark)
    page.get_by_text("every region as a table").click()
    for selector in (".sentence", ".sets span.name", ".numbers td", ".numbers th", "summary", ".note"):
        found = contrasts(page, f".lens-explorer {selector}")
        assert found and min(found) >= 4.5, (selector, min(found))
    accessible(page)


def test_in_a_notebook_any_three_are_compared(explorer, visit, printed, kernel):
    page = visit(printed(explorer, live=True))
    kernel(page, explorer)
    choose(page, "third", "none")
    choose(page, "second", "fruit, seed 1")
    page.locator(".sentence", has_text="are in both").wait_for()
    choose(page, "third", f"{HOSTILE}, seed 0")
    page.locator(".sentence", has_text="are in all three").wait_for()
    assert page.locator("circle").count() == 3
    choose(page, "layers and sites", "ff2")
    asked = explorer.answer["case"]
    assert asked["of"] == "0,4,6"
    assert page.locator(".sentence").inner_text().startswith(f"{asked['found'][-1][3][0]:,} weights")
