"""The lens explorer in a browser: printed, without a network, by mouse, keys, in the dark and on a phone; and live."""

from __future__ import annotations

import pytest

from lens.course.widgets import LensExplorer

HOSTILE = '<b>x</b> "><img src=x onerror=f()>'
PROMPTS = [("The capital of France is", "Rome"), ("The capital of Spain is", "Oslo"), (HOSTILE, "Rome")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(mini):
    return LensExplorer(mini, PROMPTS)


@pytest.fixture(scope="module")
def two(mini):
    return LensExplorer(mini, PROMPTS, ("ff1", "ff2"))


def choose(page, label: str, option: str, place: int = 0):
    page.get_by_label(label, exact=True).nth(place).select_option(label=option)


def cells(page, place: int = 0) -> list[str]:
    return page.get_by_role("grid").nth(place).locator("tbody td").all_inner_texts()


def test_the_grid_is_there_layers_upward_with_a_word_in_every_cell(one, visit, printed):
    page = visit(printed(one))
    grid = page.get_by_role("grid")
    assert grid.locator("tbody th[scope=row]").all_inner_texts() == [str(layer) for layer in range(7, -1, -1)]
    assert grid.locator("thead th[scope=col]").all_inner_texts() == ["The", "·capital", "·of", "·France", "·is"]
    assert len(cells(page)) == 40 and all(cells(page)) and cells(page)[4] == "·Paris"
    label = grid.locator("tbody td").nth(4).get_attribute("aria-label")
    assert label.startswith("layer 7, token ·is, top word ·Paris, length ‖h‖ ")
    assert label.endswith("rank of ·Rome from the top: 5 of 6,143")


def test_every_control_changes_the_grid(two, visit, printed):
    page = visit(printed(two))
    assert page.get_by_role("grid").count() == 2
    seen = [cells(page, 0), cells(page, 1)]
    choose(page, "words", "top of LL(δ): removed", place=1)
    assert cells(page, 0) == seen[0] and cells(page, 1) != seen[1], "the other end of one panel"
    choose(page, "prompt", "The capital of Spain is → Oslo")
    assert cells(page, 0) != seen[0]
    whole = cells(page, 1)
    choose(page, "layers", "only layer 4")
    column = page.get_by_role("grid").nth(1).locator("tbody tr td:last-child").all_inner_texts()
    assert len(column) == 10 and column[0] == whole[4 + 5 * 3], "the ten words of one layer, the nearest first"
    heat = "(all) => all.map((cell) => cell.dataset.heat)"
    before = page.eval_on_selector_all("tbody td", heat)
    choose(page, "color", "rank of the target")
    assert page.eval_on_selector_all("tbody td", heat) != before


def test_more_than_two_quantities_are_chosen_by_module(mini, visit, printed):
    page = visit(printed(LensExplorer(mini, PROMPTS[:1], ("stream", "ff1", "ff2", "attn_out"), k=3)))
    seen = cells(page, 0)
    choose(page, "module", "attention out: VJP δ")
    assert cells(page, 0) != seen
    assert page.get_by_label("words").first.input_value() == "bottom", "the end that training adds"


def test_hover_and_focus_show_ten_words_from_either_end(two, visit, printed):
    page = visit(printed(two))
    page.get_by_role("grid").nth(0).locator("tbody tr").nth(3).locator("td").nth(2).hover()
    for details in page.locator(".details").all():
        assert "layer 4, token ·of" in details.inner_text()
        assert [ol.locator("li").count() for ol in details.locator("ol").all()] == [10, 10]
    cell = page.get_by_role("grid").nth(1).locator("tbody tr").nth(0).locator("td").nth(4)
    cell.focus()
    assert page.locator(".details").nth(1).locator("li").first.inner_text().split() == ["1", "·Rome"]
    assert page.locator(".details").nth(1).locator("li.marked").count() == 1
    page.keyboard.press("Home")
    assert "length zero" in page.locator(".details").nth(1).inner_text()


def test_the_grid_is_walked_pinned_and_let_go_by_keys(one, visit, printed):
    page = visit(printed(one))
    page.get_by_label("color").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    spot = "() => [document.activeElement.parentElement.rowIndex, document.activeElement.cellIndex]"
    assert page.evaluate(spot) == [1, 5], "one stop: the cell that is shown"
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate(spot) == [3, 4]
    details = page.locator(".details")
    assert "layer 5, token ·France" in details.inner_text()
    page.keyboard.press("Enter")
    page.keyboard.press("Home")
    assert page.locator("td[aria-selected=true]").count() == 1
    assert "layer 5, token ·France" in details.inner_text() and "pinned" in details.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("td[aria-selected=true]").count() == 0
    assert "layer 5, token The" in details.inner_text()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") != "TD", "one Tab leaves the grid"


def test_a_click_pins_and_another_click_lets_go(one, visit, printed):
    page = visit(printed(one))
    cell = page.locator("tbody td").nth(7)
    cell.click()
    assert cell.get_attribute("aria-selected") == "true"
    cell.click()
    assert cell.get_attribute("aria-selected") == "false"


def test_hostile_text_is_shown_as_it_is(one, visit, printed):
    page = visit(printed(one))
    choose(page, "prompt", f"{HOSTILE} → Rome")
    tokens = page.locator("thead th").all_inner_texts()
    assert "".join(tokens).replace("·", " ").strip() == HOSTILE
    assert page.locator(".lens-explorer img, .lens-explorer b, .lens-explorer script").count() == 0


@pytest.mark.parametrize("width", [360, 768])
def test_the_page_never_scrolls_sideways(one, two, visit, printed, width):
    page = visit(printed(one, two), width=width)
    for prompt in (0, 2):
        for field in page.get_by_label("prompt", exact=True).all():
            field.select_option(index=prompt)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".scroll").first
    assert box.evaluate("(node) => node.scrollWidth > node.clientWidth"), "the grid of a long prompt scrolls instead"


@pytest.mark.parametrize("theme", ["light", "dark", "book", "jupyterlab", "vscode", "colab"])
def test_every_word_can_be_read_in_every_theme(two, visit, printed, contrasts, accessible, theme):
    page = visit(printed(two), dark=theme == "dark")
    hosts = {"book": "html.dataset.theme = 'dark'", "jupyterlab": "body.dataset.jpThemeLight = 'false'",
             "vscode": "body.className = 'vscode-dark'", "colab": "html.setAttribute('theme', 'dark')"}  # fmt: skip
    page.evaluate(f"const html = document.documentElement, body = document.body; {hosts.get(theme, '')}")
    scheme = page.locator(".lens-explorer").evaluate("(node) => getComputedStyle(node).colorScheme")
    assert scheme == ("light" if theme == "light" else "dark")
    steps = set(page.eval_on_selector_all("td[data-heat]", "(all) => all.map((cell) => cell.dataset.heat)"))
    assert len(steps) >= 8, "nearly every color of the ramp is tried"
    for selector in ("tbody td .word", "thead th", ".words li span", ".name", ".note", "select", ".legend"):
        found = contrasts(page, f".lens-explorer {selector}")
        assert found and min(found) >= 4.5, (selector, min(found))
    accessible(page)


# With a kernel, which the test plays

KERNEL = """(answer) => {
    const { model } = document.querySelector(".lens-explorer-root");
    window.requests = [];
    model.on("change:request", () => {
        const request = model.get("request");
        window.requests.push(request);
        window.reply = (extra) => { model.set("answer", { id: request.id, ...extra }); model.save_changes(); };
    });
}"""


def ask(page, prompt, target):
    page.get_by_label("your prompt").fill(prompt)
    page.get_by_label("target", exact=False).last.fill(target)
    page.get_by_role("button", name="Read").click()


def test_a_typed_prompt_is_asked_for_and_shown(two, visit, printed):
    page = visit(printed(two, live=True))
    page.evaluate(KERNEL)
    ask(page, "The capital of Italy is", "Oslo")
    assert page.locator(".lens-explorer").get_attribute("aria-busy") == "true"
    assert page.get_by_role("status").first.inner_text() == "computing…"
    request = page.evaluate("window.requests[0]")
    assert (request["prompt"], request["target"]) == ("The capital of Italy is", "Oslo")
    two.request = request
    page.evaluate("(answer) => window.reply({ case: answer.case })", two.answer)
    assert page.locator(".lens-explorer").get_attribute("aria-busy") == "false"
    assert page.get_by_label("prompt", exact=True).locator("option:checked").inner_text() == (
        "The capital of Italy is → Oslo"
    )
    assert page.locator(".details").nth(1).locator("li").first.inner_text().split() == ["1", "·Oslo"]


def test_a_problem_is_said_beside_the_field_and_nothing_is_lost(two, visit, printed):
    page = visit(printed(two, live=True))
    page.evaluate(KERNEL)
    before = cells(page)
    ask(page, "", "Oslo")
    two.request = page.evaluate("window.requests[0]")
    page.evaluate("(answer) => window.reply({ problem: answer.problem })", two.answer)
    assert page.get_by_role("alert").inner_text() == "The prompt is empty: type at least one word."
    assert cells(page) == before and page.get_by_label("target", exact=False).last.input_value() == "Oslo"


def test_an_answer_to_somebody_else_s_question_is_not_shown(two, visit, printed):
    page = visit(printed(two, live=True))
    page.evaluate(KERNEL)
    ask(page, "The capital of Italy is", "Oslo")
    page.evaluate("window.reply({ id: 'another', problem: 'Not for you.' })")
    assert page.get_by_role("alert").inner_text() == ""


def test_a_printed_page_says_where_one_could_type(one, visit, printed):
    page = visit(printed(one))
    assert not page.get_by_label("your prompt").is_visible()
    assert page.get_by_text("In a running notebook you can type your own prompt and target.").is_visible()
