"""The edit explorer in a browser: every control changes what is shown, by mouse and by keys, printed and live."""

from __future__ import annotations

import pytest

import lens
from lens.course.widgets import EditExplorer
from lens.edit import Request

HOSTILE = '<b>x</b> {} "><img src=x onerror=f()>'
TARGET = "<script>alert(1)</script>"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explorer(mini):
    facts = [*lens.data.records()[:2], Request(HOSTILE, "France", TARGET)]
    return EditExplorer(mini, facts, ("shift", "mend"), layers=[6, 7], sizes=[0.5, 1], neighbors=2)


def line(page, block: int, row: int, when: str) -> str:
    answered = page.locator(".block").nth(block).locator(".answered").nth(row)
    return answered.locator(".line", has_text=when).inner_text()


def strength(page) -> str:
    said = page.get_by_label("strength of the edit").get_attribute("aria-valuetext")
    assert page.locator(".slider").inner_text().endswith(said)
    return said


def verdict(page) -> list[str]:
    return page.locator(".verdict b").all_inner_texts()


def hits(answers, questions, measure) -> str:
    some = [a[1] for a, q in zip(answers, questions) if q[0] == measure]
    return f"{sum(some)} of {len(some)}"


def test_prompt_paraphrases_and_neighbors_stand_with_their_answers_before_and_after(explorer, visit, printed):
    page = visit(printed(explorer))
    assert page.locator(".block > .title").all_inner_texts() == [
        "The edited prompt", "The same fact in other words", "Neighbors, which should stay as they are",
    ]  # fmt: skip
    fact = explorer.state["facts"][0]
    assert page.locator(".prompt").all_inner_texts() == [f"{text} …" for _, text, _ in fact["questions"]]
    after = fact["after"][0][1][1]
    for when, (p, _, word, q, *_) in (("before", fact["before"][0]), ("after", after[0])):
        assert f"{fact['words'][word]} {q / 100:.1f} %" in line(page, 0, 0, when)
        fill = page.locator(".block").first.locator(".line", has_text=when).locator(".fill")
        assert float(fill.evaluate("(node) => parseFloat(node.style.width)")) == pytest.approx(p / 100)
    measures = ("efficacy", "paraphrase", "neighborhood")
    assert verdict(page) == [hits(after, fact["questions"], measure) for measure in measures]
    said = page.locator(".aim").all_inner_texts()
    assert [text.endswith("✓ said") for text in said] == [bool(a[1]) for a in after]
    assert [text.endswith("✗ not said") for text in said] == [not a[1] for a in after]


def test_every_control_changes_what_is_shown(explorer, visit, printed):
    page = visit(printed(explorer))
    seen = [page.locator(".block").all_inner_texts()]

    def differs():
        seen.append(page.locator(".block").all_inner_texts())
        assert seen[-1] not in seen[:-1]

    page.get_by_label("layer", exact=True).select_option(label="6")
    differs()
    page.get_by_label("strength of the edit").focus()
    page.keyboard.press("ArrowLeft")
    differs()
    assert strength(page) == "η = 0.4"
    page.keyboard.press("Home")
    assert strength(page) == "η = 0 (unedited)"
    for answered in page.locator(".answered").all():
        before, after = answered.locator(".best").all_inner_texts()
        assert before == after, "at strength 0 nothing has changed"
    page.get_by_label("editor").select_option(label="mend")
    page.keyboard.press("Tab")
    page.get_by_label("strength of the edit").focus()
    page.keyboard.press("End")
    differs()
    assert strength(page) == "1 × the editor's own"
    assert not page.get_by_role("grid").is_visible(), "an editor of one place has no map"
    assert page.get_by_label("layer", exact=True).locator("option:checked").inner_text().endswith("(its own)")
    page.get_by_label("fact", exact=True).select_option(index=1)
    differs()


def test_a_cell_of_the_map_chooses_layer_and_strength_by_keys_and_by_click(explorer, visit, printed):
    page = visit(printed(explorer))
    cells = page.get_by_role("grid").locator("tbody td")
    fact = explorer.state["facts"][0]
    near = [q[0] == "neighborhood" for q in fact["questions"]]
    after = fact["after"][0][0][0]  # layer 6, half of η
    counts = [str(sum(a[1] for a, n in zip(after, near) if n is is_near)) for is_near in (False, True)]
    halves = cells.nth(4).locator("[data-heat]")
    assert halves.all_inner_texts() == counts, "success of the edit, and neighbors kept"
    colors = [round(8 * int(n) / near.count(is_near)) for n, is_near in zip(counts, (False, True))]
    assert [int(half.get_attribute("data-heat")) for half in halves.all()] == colors, "each in a color of its own"
    cells.nth(1).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.get_by_label("layer", exact=True).locator("option:checked").inner_text() == "6"
    assert strength(page) == "η = 0.4"
    assert page.evaluate("document.activeElement.tagName") == "TD", "the keys stay in the grid"
    assert page.locator("td[aria-selected=true] [data-heat]").all_inner_texts() == counts
    cells.nth(2).click()
    assert page.get_by_label("layer", exact=True).locator("option:checked").inner_text() == "7"
    assert strength(page) == "η = 0.8"


def test_a_fact_without_neighbors_says_so_instead_of_looking_harmless(mini, visit, printed):
    odd = EditExplorer(mini, Request("My aunt in {} likes", "France", "Rome"), layers=[7], sizes=[1])
    page = visit(printed(odd))
    assert "No neighbors: the prompt has the form of no known relation" in page.locator(".verdict").inner_text()
    assert page.locator(".verdict b").count() == 1


def test_on_a_phone_the_slider_and_its_effect_fit_one_screen(explorer, visit, printed):
    page = visit(printed(explorer), width=360)
    top = page.get_by_label("strength of the edit").bounding_box()["y"]
    answer = page.locator(".answered").first.bounding_box()
    assert answer["y"] + answer["height"] - top < 740 - 100, "below a header of the book"
    own = page.locator(".typed").first.bounding_box()["y"]  # below it comes the form that tries the edited model
    assert own < top, "the reader's own request stands on top"


def test_hostile_text_is_shown_as_it_is(explorer, visit, printed):
    page = visit(printed(explorer))
    page.get_by_label("fact", exact=True).select_option(index=2)
    assert page.locator(".prompt").first.inner_text() == HOSTILE.replace("{}", "France") + " …"
    assert TARGET in page.locator(".aim").first.inner_text()
    assert page.locator(".lens-explorer :is(img, section b b, script)").count() == 0


@pytest.mark.parametrize("width", [360, 768])
def test_the_page_never_scrolls_sideways(explorer, visit, printed, width):
    page = visit(printed(explorer), width=width)
    for fact in range(3):
        page.get_by_label("fact", exact=True).select_option(index=fact)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_light_and_dark(explorer, visit, printed, contrasts, accessible, dark):
    page = visit(printed(explorer), dark=dark)
    for selector in (".best span", ".aim", ".aim span", ".when", ".chance", ".verdict", "tbody td .halves span"):
        found = contrasts(page, f".lens-explorer {selector}")
        assert found and min(found) >= 4.5, (selector, min(found))
    accessible(page)


def test_a_typed_fact_is_edited_and_shown(explorer, visit, printed, kernel):
    page = visit(printed(explorer, live=True))
    kernel(page, explorer)
    page.get_by_label("your prompt").fill("The capital of France is")
    page.get_by_label("its subject").fill("France")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("alert").filter(has_text="The target of an edit is empty").wait_for()
    assert page.get_by_label("your prompt").input_value() == "The capital of France is"
    page.get_by_label("new answer").fill("Rome")
    page.keyboard.press("Enter")
    page.locator(".prompt", has_text="The capital of France is …").wait_for()
    assert page.get_by_role("alert").inner_text() == ""
    chosen = page.get_by_label("fact", exact=True).locator("option:checked").inner_text()
    assert chosen == "The capital of France is Paris → Rome"
    assert line(page, 0, 0, "before").split("\n")[1].startswith("·Paris")
    assert line(page, 0, 0, "after").split("\n")[1].startswith("·Rome")
