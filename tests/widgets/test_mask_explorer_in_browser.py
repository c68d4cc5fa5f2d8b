"""The mask explorer in a browser: its grid, its heads and its answers follow every control, printed and live."""

from __future__ import annotations

import pytest

import lens
from lens.course.widgets import MaskExplorer

HOSTILE = '"><img src=x onerror=f()>'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explorer(mini):
    masks = {("building", seed): lens.mask.shipped("building", seed) for seed in (0, 1)}
    masks |= {("fruit", 0): lens.mask.shipped("fruit"), (HOSTILE, 0): lens.mask.shipped("sun")}
    return MaskExplorer(mini, masks, {HOSTILE: lens.data.knowledge("sun")})


def cells(page) -> list[str]:
    return page.get_by_role("grid").locator("tbody td").all_inner_texts()


def after(page) -> list[str]:
    return page.locator(".line", has_text="after").all_inner_texts()


def test_the_grid_shows_the_density_of_every_layer_and_site_and_their_sums(explorer, visit, printed):
    page = visit(printed(explorer))
    mask, grid = explorer.state["masks"][0], page.get_by_role("grid")
    assert grid.locator("tbody th").all_inner_texts() == ["7", "6", "5", "4", "all"]
    assert grid.locator("thead th").all_inner_texts() == [*mask["sites"], "all"]
    rows = [[*modules, whole] for modules, whole in zip(mask["modules"], mask["by_layer"])][::-1]
    rows.append([*mask["by_site"], mask["density"]])
    shown = [float(text) / 100 for text in cells(page)]
    assert shown == pytest.approx([share for row in rows for share in row], abs=6e-5)
    inside, total = mask["weights"]
    assert f"{inside:,} of {total:,} weights" in page.locator(".verdict").nth(1).inner_text()


def test_a_cell_shows_its_heads_and_is_pinned_by_keys(explorer, visit, printed):
    page = visit(printed(explorer))
    page.get_by_role("grid").locator("tbody td").nth(0).focus()
    for key in ("ArrowDown", "ArrowRight", "Enter", "ArrowDown", "End"):
        page.keyboard.press(key)
    details = page.locator(".details")
    assert "layer 6, attn_k" in details.inner_text() and "pinned" in details.inner_text()
    heads = explorer.state["masks"][0]["heads"][2][1]
    shown = [float(text.split()[-2]) / 100 for text in details.locator("li").all_inner_texts()]
    assert shown == pytest.approx(heads, rel=6e-3)
    page.keyboard.press("Escape")
    assert "layer 5, all sites" in details.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "No heads" in details.inner_text(), "FF2 has none"


def test_every_control_changes_the_grid_or_the_answers(explorer, visit, printed):
    page = visit(printed(explorer))
    seen = [cells(page)]
    page.get_by_label("found with").select_option(label="seed 1")
    seen.append(cells(page))
    page.get_by_label("facts to forget", exact=True).select_option(label="fruit")
    seen.append(cells(page))
    assert seen[0] != seen[1] != seen[2]
    assert page.get_by_label("found with").locator("option").all_inner_texts() == ["seed 0"]
    answers = [after(page)]
    for part in (
        "only its part in layer 7",
        "only its part in ff1",
        "all but its part in layer 7",
        "the whole subnetwork",
    ):
        page.get_by_label("remove").select_option(label=part)
        answers.append(after(page))
    assert answers[0] == answers[4] and len({*map(tuple, answers)}) == 4
    assert not page.get_by_label("remove").locator("option", has_text="head").count(), "nobody could answer"


def test_what_is_forgotten_and_kept_is_counted_as_it_is_shown(explorer, visit, printed):
    page = visit(printed(explorer))
    mask = explorer.state["masks"][0]
    for part in (0, 1, 6):
        page.get_by_label("remove").select_option(index=part)
        said = [a[1] for a in mask["after"][part]]
        forget = [q[0] in ("target", "unseen") for q in mask["questions"]]
        gone = sum(not s for s, f in zip(said, forget) if f)
        kept = sum(s for s, f in zip(said, forget) if not f)
        assert page.locator(".verdict").first.locator("b").all_inner_texts() == [f"{gone} of 3", f"{kept} of 3"]
        marks = [text.rsplit(" ", 2)[-2:] for text in page.locator(".aim").all_inner_texts()]
        assert sum(mark == ["✓", "forgotten"] for mark in marks) == gone


def test_a_sum_chooses_the_part_that_is_removed(explorer, visit, printed):
    page = visit(printed(explorer))
    for cell, part in ((6, "only its part in layer 7"), (28, "only its part in attn_q"), (34, "the whole subnetwork")):
        page.get_by_role("grid").locator("tbody td").nth(cell).click()
        assert page.get_by_label("remove").locator("option:checked").inner_text() == part


@pytest.mark.parametrize("width", [360, 768])
def test_names_are_text_and_the_page_never_scrolls_sideways(explorer, visit, printed, width):
    page = visit(printed(explorer), width=width)
    page.get_by_label("facts to forget", exact=True).select_option(label=HOSTILE)
    assert page.locator(".lens-explorer img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_light_and_dark(explorer, visit, printed, contrasts, accessible, dark):
    page = visit(printed(explorer), dark=dark)
    for selector in ("tbody td .word", ".heads li", ".best span", ".aim span", ".verdict", ".note", ".legend"):
        found = contrasts(page, f".lens-explorer {selector}")
        assert found and min(found) >= 4.5, (selector, min(found))
    accessible(page)


def test_a_typed_prompt_is_answered_with_and_without_the_subnetwork(explorer, visit, printed, kernel):
    page = visit(printed(explorer, live=True))
    kernel(page, explorer)
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").filter(has_text="at least one word").wait_for()
    page.get_by_label("your prompt").fill(f"{HOSTILE} A cafe is a kind of")
    page.keyboard.press("Enter")
    page.locator(".block > .title", has_text="Your prompt").wait_for()
    assert page.locator(".prompt").first.inner_text() == f"{HOSTILE} A cafe is a kind of …"
    assert page.locator(".lens-explorer img").count() == 0
    page.get_by_label("facts to forget", exact=True).select_option(label="fruit")
    assert page.locator(".block > .title").first.inner_text() == "Facts to forget", "it was asked of the other"


def test_a_head_is_given_back_to_the_prepared_prompts_and_to_ones_own(explorer, visit, printed, kernel):
    page = visit(printed(explorer, live=True))
    kernel(page, explorer)
    page.get_by_label("your prompt").fill("A cafe is a kind of")
    page.keyboard.press("Enter")
    page.locator(".block > .title", has_text="Your prompt").wait_for()
    page.get_by_label("remove").select_option(label="all but head 4 of layer 6")
    page.locator(".block > .title", has_text="Facts to forget").wait_for()
    prepared = explorer.compute({"mask": 0, "layer": 6})
    mine = explorer.compute({"mask": 0, "prompt": "A cafe is a kind of"})
    rows = [(mine["words"], mine["after"][15 + 2 * 6 + 4][0]), *((prepared["words"], a) for a in prepared["after"][4])]
    assert [text.split()[1] for text in after(page)] == [words[answer[2]] for words, answer in rows]
    page.get_by_label("remove").select_option(label="all but head 0 of layer 6")
    assert page.locator(".lens-explorer").get_attribute("aria-busy") == "false", "its layer is known"
