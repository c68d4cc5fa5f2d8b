"""Is every built page pleasant in a real browser: no network, light and dark, desk and phone, with a screen reader?"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from browsing import slowness, visiting

import lens

BOOK = Path(__file__).resolve().parents[1] / "book"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"]] + [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
CHAPTERS = [name for name in PAGES if (BOOK / f"{name}.ipynb").exists()]
MEGABYTE = 2**20
WIDGETS = 600 * 2**10  # bytes that the explorers of one page may take
LOUD = {"serious", "critical"}

pytestmark = pytest.mark.slow
BY_THEME = ["color-contrast", "link-in-text-block"]  # what axe-core asks of colors: the rest is the same in the dark

CUT = """() => [...document.querySelectorAll(".bd-article :is(mjx-container, div.math, pre:not(.output pre))")]
  .filter((e) => e.scrollWidth > e.clientWidth && e.clientWidth && getComputedStyle(e).overflowX !== "visible")
  .map((e) => `${e.scrollWidth} in ${e.clientWidth}: ${e.textContent.slice(0, 60)}`)"""

FILLED = """i => i.decode().then(() => {
    const box = i.getBoundingClientRect(), scale = Math.min(box.width / i.naturalWidth, box.height / i.naturalHeight);
    return scale * Math.max(i.naturalWidth / innerWidth, i.naturalHeight / innerHeight);
})"""  # the larger of the shares of the screen's width and height that a picture takes


def open_page(visit, path, width=1280):
    page = visit(path, width=width)
    show(page, dark=False)
    return page


@pytest.fixture(scope="module")
def desk(request, built, chromium, tmp_path_factory):
    """A page on a desk, opened once for the tests that look at it, which find it as the one before left it."""
    with visiting(chromium, tmp_path_factory.mktemp("desk")) as visit:
        yield open_page(visit, built / f"{request.param}.html")


def on_a_desk(names):
    """A test of these pages, as ``desk``, each with its ``name``."""
    return pytest.mark.parametrize(
        "desk, name", [(name, name) for name in names], indirect=["desk"], ids=names, scope="module"
    )


def show(page, dark: bool) -> None:
    """The page in the light or in the dark, as the reader's system and the page's own switch say it."""
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.evaluate("mode => { document.documentElement.dataset.theme = mode }", "dark" if dark else "light")
    page.evaluate("document.getAnimations().filter(a => a instanceof CSSTransition).forEach(a => a.finish())")


def ready(page) -> float:
    """Seconds of processor time from opening a page to its scripts having run: a suite shares its cores."""
    chromium = page.context.new_cdp_session(page)
    chromium.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload(wait_until="domcontentloaded")
    metrics = {metric["name"]: metric["value"] for metric in chromium.send("Performance.getMetrics")["metrics"]}
    return metrics["TaskDuration"]


def weight(html: Path) -> int:
    """Bytes of a page and of its own figures."""
    text = html.read_text(encoding="utf-8")
    figures = [path for path in (html.parent / "_images").glob("*") if path.name in text]
    return len(text.encode()) + sum(path.stat().st_size for path in figures)


def leave_out(page, code: bool, rooms: bool) -> None:
    """Take from the page what axe-core is not asked about: it looks at every element, also at one that it is to skip.

    Formulas are left to MathJax, ``code`` is looked at on one page, and of the API reference's ``rooms`` the first two:
    each is thousands of elements of few kinds.
    """
    some = ["mjx-container"] + [".highlight pre"] * (not code) + ["section section:nth-of-type(n+3)"] * rooms
    page.evaluate("some => document.querySelectorAll(some).forEach(e => e.remove())", ", ".join(some))


def barriers(page, dark: bool) -> list[str]:
    """What axe-core calls serious or critical; in the dark, of what depends on colors."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    options = {"preload": False, "resultTypes": ["violations"]} | ({"runOnly": BY_THEME} if dark else {})
    found = axe.Axe().run(page, options=options).response["violations"]
    return [f"{v['id']}: {[node['html'][:200] for node in v['nodes']][:3]}" for v in found if v["impact"] in LOUD]


def fits_and_is_in_order(page, width: int) -> None:
    for dark in (True, False):
        show(page, dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(ground[:3]) < 64) if dark else (min(ground[:3]) > 192)
    heads = page.eval_on_selector_all(
        ".bd-article thead", "all => all.map(h => [h.textContent.trim() !== '', getComputedStyle(h).display])"
    )
    assert all((display == "none") != says for says, display in heads), "a table's header is shown, if it says anything"
    levels = page.eval_on_selector_all(
        ".bd-article :is(h1,h2,h3,h4,h5,h6)", "all => all.map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:])), levels


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_in_the_light_and_in_the_dark(built, visit, name):
    fits_and_is_in_order(open_page(visit, built / f"{name}.html", 360), 360)


@on_a_desk(PAGES)
def test_a_page_fits_a_desk_in_the_light_and_in_the_dark(desk, name):
    fits_and_is_in_order(desk, 1280)
    assert desk.evaluate(CUT) == [], "formulas or code that only a scroll bar shows whole"


@on_a_desk(CHAPTERS)
def test_a_chapters_explorers_answer_its_solutions_fold_and_colab_opens_the_one_without(desk, name):
    states = desk.eval_on_selector_all(
        '.lens-explorer-root > script[type="application/json"]', "all => all.map(s => s.textContent.length)"
    )
    assert states and sum(states) < WIDGETS
    assert desk.get_by_text("To run this cell yourself: make lab").count() == len(states)
    (link,) = desk.eval_on_selector_all('a[href*="colab.research.google.com"]', "all => all.map(a => a.href)")
    assert link.endswith(f"/blob/notebooks/{name}.ipynb")
    for i in range(len(states)):
        answers_without_a_kernel(desk.locator(".lens-explorer-root").nth(i).locator(".lens-explorer"))
    if name in lens.check.CHAPTERS:
        folds_solutions_and_shows_checks(desk)


def answers_without_a_kernel(explorer) -> None:
    assert explorer.count() == 1, "the explorer was not drawn"
    seen = {explorer.inner_text()}
    for control in explorer.locator("select").all():
        if not control.is_visible():
            continue
        options = control.locator("option").all()
        for option in options[:3]:
            control.select_option(value=option.get_attribute("value"))
            seen.add(explorer.inner_text())
    assert len(seen) > 1, "no control changes what is shown"


def folds_solutions_and_shows_checks(page) -> None:
    solutions = page.locator("#exercises details:has(summary:has-text('Show the solution'))")
    assert 3 <= solutions.count() <= 5
    for solution in solutions.all():
        assert solution.get_attribute("open") is None
        solution.locator("summary").first.click()
        assert solution.locator("pre").first.is_visible()
    text = page.locator("#exercises").inner_text()
    assert "SOLUTION" not in text and "HIDDEN" not in text
    assert text.count("✓") >= solutions.count()


@pytest.mark.parametrize("name", CHAPTERS[:2])
def test_a_keyboard_reaches_the_explorer_in_a_few_steps_from_the_top_of_a_chapter(built, visit, name):
    page = open_page(visit, built / f"{name}.html")
    page.get_by_role("link", name="The explorer").press("Enter")
    inside = "document.activeElement.closest('.lens-explorer') !== null"
    steps = 0
    while not page.evaluate(inside) and steps < 10:
        page.keyboard.press("Tab")
        steps += 1
    assert page.evaluate(inside), "in less than ten"


def test_the_notebook_without_solutions_is_downloaded_also_from_a_folder(built, visit):
    page = open_page(visit, built / f"{CHAPTERS[0]}.html")
    with page.expect_download() as download:
        page.get_by_role("link", name="The notebook without solutions").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename == f"{CHAPTERS[0]}.ipynb" and "# your turn" in text


def test_the_search_shows_excerpts_also_from_a_folder(built, visit):
    page = open_page(visit, built / "search.html")
    page.goto(f"{page.url}?q=imprint")
    found = page.locator("ul.search li:has(.context)")
    found.first.wait_for()
    assert "imprint" in found.first.locator(".context").inner_text().lower()


def test_the_landing_page_has_its_cover_a_working_lens_the_graph_and_a_card_for_every_chapter(built, visit):
    page = open_page(visit, built / f"{TOC['root']}.html")
    widths = page.eval_on_selector_all(".cover img", "all => all.map(i => i.complete && i.naturalWidth && i.width)")
    assert len(widths) == 2 and min(widths) > 300
    assert page.locator(".lens-explorer td").count() > 20
    links = page.eval_on_selector_all(".prerequisites a", "all => all.map(a => a.getAttribute('href'))")
    assert sorted(links) == sorted(f"{name}.html" for name in CHAPTERS)
    cards = page.locator(".cards .card")
    assert cards.count() == len(CHAPTERS)
    for name, card in zip(CHAPTERS, cards.all()):
        card.scroll_into_view_if_needed()
        assert card.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 200
        assert card.locator(f'a[href="{name}.html"]').count() >= 1
        assert len(card.inner_text()) > 100, "its claim"


@on_a_desk(CHAPTERS)
def test_lecture_mode_shows_each_figure_and_asks_for_a_vote_before_a_claims_numbers(desk, name):
    page = desk  # which moves an explorer to the lecture and back
    figures = page.locator(".bd-article .cell_output img").count()
    explorers = page.locator(".lens-explorer-root").count()
    claims = page.evaluate("JSON.parse(document.querySelector('script.lens-claims')?.textContent ?? '[]')")
    page.keyboard.press("l")
    dialog = page.locator("dialog.lecture[open]")
    dialog.wait_for()
    slides = 1 + figures + len(claims) + explorers
    assert dialog.locator("p.at").inner_text() == f"1 of {slides}"
    for _ in range(figures):
        page.keyboard.press("ArrowRight")
        assert dialog.locator(".slide > img").evaluate(FILLED) > 0.55, "a figure is as large as the screen allows"
    for claim in claims:
        page.keyboard.press("ArrowRight")
        assert dialog.locator("h2").inner_text() == claim["says"] and not dialog.locator(".reveal").count()
        size = dialog.locator("h2").evaluate("node => parseFloat(getComputedStyle(node).fontSize)")
        assert size > 30, "legible from the back of the room"
        page.keyboard.press("1")
        assert claim["value"] in dialog.locator(".reveal").inner_text()
        assert dialog.locator("button[aria-pressed=true]").inner_text().endswith("holds")
    for _ in range(explorers):
        page.keyboard.press("ArrowRight")
        assert dialog.locator(".lens-explorer").count() == 1
    assert dialog.locator("p.at").inner_text() == f"{slides} of {slides}"
    dialog.get_by_role("button", name="end").click()
    assert page.locator(".bd-article .lens-explorer-root .lens-explorer").count() == explorers, (
        "it is back in its place"
    )


@on_a_desk(CHAPTERS)
def test_a_chapter_is_light_and_soon_ready(built, desk, name):
    assert weight(built / f"{name}.html") < 3 * MEGABYTE
    assert any(0 < ready(desk) < 2 * slowness(desk.evaluate) for _ in range(3)), "the fastest of three"


@pytest.mark.long
@on_a_desk(PAGES)
def test_a_page_has_no_serious_barrier_in_the_light_and_in_the_dark(desk, name):
    """The last to look at a page, which it takes apart."""
    desk.wait_for_load_state()
    leave_out(desk, code=name == CHAPTERS[0], rooms=name == "api")
    for dark in (False, True):
        show(desk, dark)
        assert not (found := barriers(desk, dark)), found
