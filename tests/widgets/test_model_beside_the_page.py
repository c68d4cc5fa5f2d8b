"""The model beside the page: asked for, loaded once, remembered, stopped, and never in the way of what was prepared."""

from __future__ import annotations

import json

import pytest

import lens
from lens.course.widgets import EditExplorer, LensExplorer, MaskExplorer, OverlapExplorer

pytestmark = pytest.mark.slow

PROGRAM = """
self.onmessage = ({ data: { open, request, settings, cancel } }) => {
    if (open || cancel) return open && self.postMessage({ opened: true });
    const until = Date.now() + (request.prompt === "slow" ? 20000 : 0);
    while (Date.now() < until);
    self.postMessage({ answer: { id: request.id, problem: `heard ${request.prompt} of ${settings.explorer}` } });
};
"""
BUTTON = "Use the model in this page (13 MB)"


@pytest.fixture(scope="module")
def explorer(mini):
    return LensExplorer(mini, [("The capital of France is", "Rome")], "ff2", 2)


@pytest.fixture
def beside(tmp_path, printed, visit):
    """``beside(explorer, …, program=)``: a page that its model lies beside, which is a program of the test's own."""

    def open_page(*explorers, program: str | None = PROGRAM, name="page.html", **more):
        text = printed(*explorers)
        told = "<script>globalThis.lensBeside = { mini: { address: 'mini.js', bytes: 13.1e6 } };</script>"
        (tmp_path / name).write_text(text.replace("<body>", f"<body>{told}"), encoding="utf-8")
        if program is not None:
            script = f"(globalThis.lensModels ??= {{}}).mini = {{ program: {json.dumps(program)} }};"
            (tmp_path / "mini.js").write_text(script, encoding="utf-8")
        return visit(tmp_path / name, **more)

    return open_page


def asked(page, prompt: str):
    page.get_by_label("your prompt").fill(prompt)
    page.get_by_role("button", name="Read").click()


def test_nothing_is_loaded_before_the_reader_asks_for_it(explorer, beside):
    page = beside(explorer)
    assert page.get_by_role("button", name=BUTTON).is_visible()
    assert page.get_by_text("To type your own prompt and target, use the model in this page").is_visible()
    assert not page.get_by_label("your prompt").is_visible()
    assert page.evaluate("globalThis.lensModels === undefined")


def test_the_model_answers_once_it_is_loaded_and_stops_when_it_is_told_to(explorer, beside, accessible):
    page = beside(explorer)
    accessible(page)
    page.get_by_role("button", name=BUTTON).click()
    asked(page, "a prompt")
    page.get_by_text("heard a prompt of lens").wait_for()
    assert page.get_by_role("button", name=BUTTON).count() == 0
    accessible(page)
    page.get_by_role("button", name="Stop the model").click()
    assert page.get_by_role("button", name=BUTTON).is_visible() and not page.get_by_label("your prompt").is_visible()


def test_all_explorers_of_a_page_have_one_model(explorer, beside):
    page = beside(explorer, explorer)
    page.get_by_role("button", name=BUTTON).first.click()
    page.get_by_role("button", name="Stop the model").nth(1).wait_for()
    for place in range(2):
        page.get_by_label("your prompt").nth(place).fill(f"prompt {place}")
        page.get_by_role("button", name="Read").nth(place).click()
    for place in range(2):
        page.get_by_text(f"heard prompt {place} of lens").wait_for()
    assert page.evaluate("Object.keys(lensRunning)") == ["mini"]


def test_another_page_loads_it_by_itself_until_the_reader_stops_it(explorer, beside):
    page = beside(explorer)
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("button", name="Stop the model").wait_for()
    page.reload()
    page.get_by_role("button", name="Stop the model").wait_for()
    page.get_by_role("button", name="Stop the model").click()
    page.reload()
    page.get_by_role("button", name=BUTTON).wait_for()
    assert page.evaluate("globalThis.lensModels === undefined")


def test_a_new_question_does_not_wait_for_the_old_one(explorer, beside):
    page = beside(explorer)
    page.get_by_role("button", name=BUTTON).click()
    asked(page, "slow")
    asked(page, "slower")
    asked(page, "newest")
    page.get_by_text("heard newest of lens").wait_for(timeout=5000)  # the slow one alone takes 20 seconds
    asked(page, "and another")
    page.get_by_text("heard and another of lens").wait_for(timeout=5000)


def test_the_page_stays_awake_while_the_model_computes(explorer, beside):
    page = beside(explorer)
    page.get_by_role("button", name=BUTTON).click()
    page.evaluate(
        """() => { window.longest = 0;
            new PerformanceObserver((list) => list.getEntries().forEach((e) => (longest = Math.max(longest, e.duration))))
                .observe({ entryTypes: ["longtask"] }); }"""
    )
    asked(page, "slow")
    page.wait_for_timeout(1500)
    assert page.locator(".lens-explorer").get_attribute("aria-busy") == "true"
    assert page.evaluate("longest") <= 50
    page.get_by_label("words", exact=True).select_option("top")


def test_a_file_that_is_missing_is_named_and_may_come_later(explorer, beside, tmp_path, chromium):
    beside(explorer, program=None)
    page = chromium.new_page(base_url=tmp_path.as_uri())  # a page that may complain
    page.goto((tmp_path / "page.html").as_uri())
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("alert").filter(has_text="The file mini.js could not be read").wait_for()
    assert page.get_by_role("grid").is_visible() and not page.get_by_label("your prompt").is_visible()
    script = f"(globalThis.lensModels ??= {{}}).mini = {{ program: {json.dumps(PROGRAM)} }};"
    (tmp_path / "mini.js").write_text(script, encoding="utf-8")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Stop the model").wait_for()
    page.close()


@pytest.mark.parametrize(
    "program, sentence",
    [("self.onmessage = () => self.postMessage({ problem: 'The weights are torn.' })",
      "The model could not be opened: The weights are torn."),
     ("self.onmessage = ({ data }) => { if (data.open) throw new Error('It is broken.') }", "It is broken.")],
)  # fmt: skip
def test_a_model_that_cannot_be_opened_says_why_and_the_prepared_prompts_stay(explorer, beside, program, sentence):
    page = beside(explorer, program=program)
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("alert").filter(has_text=sentence).wait_for()
    assert page.get_by_role("grid").is_visible() and not page.get_by_label("your prompt").is_visible()
    assert page.get_by_role("button", name="Try again").is_visible()


def test_a_model_that_stops_amid_a_question_says_so(explorer, beside):
    program = PROGRAM.replace("const until", "if (request.prompt === 'die') setTimeout(() => { throw new Error('No memory.') });\n    const until").replace(
        "self.postMessage({ answer", "if (request.prompt !== 'die') self.postMessage({ answer"
    )
    page = beside(explorer, program=program)
    page.get_by_role("button", name=BUTTON).click()
    asked(page, "die")
    page.get_by_role("alert").filter(has_text="No memory.").first.wait_for()
    assert page.locator(".lens-explorer").get_attribute("aria-busy") == "false"
    page.get_by_role("button", name="Try again").click()
    asked(page, "alive")
    page.get_by_text("heard alive of lens").wait_for()


@pytest.mark.parametrize("name", ["Worker", "Blob", "BigInt"])
def test_a_browser_that_cannot_run_it_says_so_and_the_prepared_prompts_stay(explorer, beside, name):
    page = beside(explorer)
    page.evaluate(f"globalThis.{name} = undefined")
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_text(f"This browser has no {name}, which the model needs; the prepared prompts stay.").wait_for()
    assert page.get_by_role("grid").is_visible()


# Links


HOSTILE = '<script>f()</script> "><img src=x onerror=f()>'


def test_a_link_brings_what_is_shown(explorer, beside):
    page = beside(explorer, LensExplorer(explorer._lm, [("Water is", None), ("Paris is", "big")]), name="a.html")
    second = page.locator(".lens-explorer-root").nth(1)
    second.get_by_label("prompt", exact=True).select_option(label="Paris is → big")
    second.get_by_label("layers", exact=True).select_option("3")
    second.get_by_role("button", name="Copy link").click()
    second.get_by_text("The link").wait_for()
    address = page.evaluate("location.href")
    assert "#explorer=2&prompt=Paris+is&target=big&layer=3" in address
    page.goto("about:blank")
    page.goto(address)
    chosen = page.locator(".lens-explorer-root").nth(1)
    page.wait_for_function("document.querySelectorAll('select')[4].value === '1'")
    assert chosen.get_by_label("layers", exact=True).input_value() == "3"
    first = page.locator(".lens-explorer-root").nth(0)
    assert first.get_by_label("layers", exact=True).input_value() == "all"


def test_a_link_with_a_prompt_of_its_sender_is_asked_once_the_model_is_there(explorer, beside):
    page = beside(explorer)
    page.evaluate("(text) => { location.hash = new URLSearchParams({ explorer: 1, prompt: text, target: 'x', layer: 99 }) }", HOSTILE)
    page.get_by_text("This link brings a question of its sender").wait_for()
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("alert").filter(has_text=f"heard {HOSTILE} of lens").wait_for()
    assert page.locator(".lens-explorer img, .lens-explorer script").count() == 0
    assert page.get_by_label("your prompt").input_value() == HOSTILE
    assert page.get_by_label("layers", exact=True).input_value() == "all", "there is no layer 99"


@pytest.fixture(scope="module")
def others(mini):
    """The explorers that are not the lens explorer, and controls of each with a choice that is not the first."""
    facts = [lens.Request("The capital of {} is", *names) for names in (("France", "Rome"), ("Japan", "Lima"))]
    masks = {(name, seed): lens.mask.shipped(name, seed) for name, seed in (("building", 0), ("fruit", 0), ("fruit", 1))}
    edits = EditExplorer(mini, facts, ("shift", "sgd_step"), layers=[6, 7], sizes=[0.5, 1], neighbors=1)
    return {
        "edit": (edits, {"fact": "1", "editor": "1", "layer": "0", "strength of the edit": "1"}),
        "mask": (MaskExplorer(mini, masks), {"facts to forget": "fruit", "found with": "2", "remove": "13"}),
        "overlap": (OverlapExplorer(masks, mini), {"first": "1", "second": "2", "third": "0", "layers and sites": "3"}),
    }


def chosen(page, controls) -> dict[str, str]:
    return {label: page.get_by_label(label, exact=True).input_value() for label in controls}


@pytest.mark.parametrize("kind", ["edit", "mask", "overlap"])
def test_a_link_of_another_explorer_brings_what_is_shown(others, beside, kind):
    explorer, controls = others[kind]
    page = beside(explorer)
    for label, value in controls.items():
        control = page.get_by_label(label, exact=True)
        control.fill(value) if control.get_attribute("type") == "range" else control.select_option(value)
    assert chosen(page, controls) == controls
    shown = page.locator(".lens-explorer").inner_text()
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("The link").wait_for()
    address = page.evaluate("location.href")
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_timeout(500)
    assert chosen(page, controls) == controls and page.locator(".lens-explorer").inner_text() == shown


@pytest.mark.parametrize("kind", ["edit", "mask", "overlap"])
def test_what_a_link_says_to_another_explorer_is_data_and_asked_once_the_model_is_there(others, beside, kind):
    explorer, controls = others[kind]
    page = beside(explorer)
    before = chosen(page, controls)
    fields = ("fact", "editor", "layer", "facts", "seed", "part", "first", "second", "third", "subject", "target")
    page.evaluate(
        "(fields) => { location.hash = new URLSearchParams({ explorer: 1, ...fields }) }",
        {**dict.fromkeys(fields, HOSTILE), "eta": "NaN", "prompt": HOSTILE},
    )
    page.get_by_text("This link brings a question of its sender").wait_for()
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("alert").filter(has_text=f"heard {HOSTILE} of {kind}").wait_for()
    assert page.locator(".lens-explorer img, .lens-explorer script").count() == 0
    assert chosen(page, controls) == before, "no such choice"
