"""Do the slides follow the teaching notes' one lecture, with figures, explorers and notes, offline and on paper?"""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bs4")
pytest.importorskip("nbgrader")
BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))

import notebooks  # noqa: E402
import slides  # noqa: E402
from execute import BuildError  # noqa: E402

NOTES = (BOOK / "teaching.md").read_text(encoding="utf-8")
ROWS, BELOW = slides.lecture(NOTES)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deck(built):
    """The deck beside the built pages, as `make slides` writes it."""
    slides.DECK.write_text(slides.deck(), encoding="utf-8")
    yield slides.DECK
    slides.DECK.unlink()


def test_the_lecture_is_read_from_the_notes_and_a_table_that_is_gone_is_told():
    assert sum(minutes for minutes, _, _ in ROWS) == 90 and [name for _, names, _ in ROWS for name in names][0] == "logit_lens"
    assert any("Do not leave out the controls" in note for note in BELOW)
    with pytest.raises(BuildError, match="One lecture"):
        slides.lecture("# Teaching notes\n")


def test_a_deck_shows_claim_figures_explorer_and_summary_of_each_chapter_in_order(deck, visit):
    page = visit(deck)
    heads = page.locator(".slide h2").all_inner_texts()
    places = []
    for _, names, what in ROWS:
        for name in names:
            title = notebooks.short_title(notebooks.read(BOOK / f"{name}.ipynb"))
            places += [next(i for i, head in enumerate(heads) if head.startswith(title)), heads.index(f"Summary: {title}")]
            assert f"Play: {title}" in heads
    assert places == sorted(places)
    page.wait_for_selector("mjx-container", timeout=60_000)
    assert page.locator("figure img").evaluate_all("all => all.every(one => one.complete && one.naturalWidth && one.alt)")
    assert page.locator(".lens-explorer-root").count() == sum(len(names) for _, names, _ in ROWS)
    page.wait_for_function("[...document.querySelectorAll('.lens-explorer-root')].every(one => one.querySelector('table, svg'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    shown = page.locator(".notes").all_inner_texts()
    assert page.locator(".notes").first.is_hidden() and len(shown) > len(ROWS)
    page.keyboard.press("n")
    assert page.locator(".notes").first.is_visible()
    text = " ".join(page.locator(".notes").all_inner_texts())
    assert all(f"{minutes} minutes: {what}" in text for minutes, _, what in ROWS)


def test_keys_go_from_slide_to_slide_and_leave_the_explorer_alone(deck, visit):
    page = visit(deck)
    top = "n => Math.round(document.querySelectorAll('.slide')[n].getBoundingClientRect().top)"
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"({top})(1) === 0")
    page.keyboard.press("PageDown")
    page.wait_for_function(f"({top})(2) === 0")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"({top})(1) === 0")
    control = page.locator(".lens-explorer-root :is(select, button)").first
    control.scroll_into_view_if_needed()
    control.focus()
    before = page.evaluate("scrollY")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)
    assert abs(page.evaluate("scrollY") - before) < 5


def test_a_deck_is_printed_one_slide_a_page(deck, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    pytest.importorskip("playwright")
    order = f"import sys; sys.path.insert(0, {str(BOOK)!r}); import slides; slides.print_deck(sys.argv[1])"
    # A process of its own: this one may have a browser's driver open, and a thread can have one.
    done = subprocess.run([sys.executable, "-c", order, str(tmp_path / "slides.pdf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = pypdf.PdfReader(tmp_path / "slides.pdf").pages
    assert len(pages) == deck.read_text(encoding="utf-8").count('<section class="slide">')
    assert pages[0].mediabox.width > pages[0].mediabox.height


def test_a_figure_that_the_notes_name_and_the_chapter_lacks_is_told(built):
    with pytest.raises(BuildError, match="names Figure 99 of logit_lens"):
        list(slides.of_chapter("logit_lens", [99], ""))
