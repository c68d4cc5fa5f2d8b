"""Can every figure of the book be read, at a desk and on a phone?  Its smallest text, in pixels as the page shows it.

A figure's PNG names its smallest text (``lens.plot.style.SMALLEST``, in points of the 72nd inch, drawn at 100 dots to
the inch); a picture drawn by the page says its own.  Exponents and indices count with the text that they belong to.
"""

from __future__ import annotations

import pytest
from PIL import Image
from test_pages import CHAPTERS, PAGES, open_page

from lens.plot import style

LEAST = 9  # pixels
DOTS = 100 / 72  # of a page to a point

pytestmark = pytest.mark.slow


def smallest(path) -> float:
    """Pixels of the smallest text of a figure at its own size, of the width that a page gives it."""
    return DOTS * float(Image.open(path).text[style.SMALLEST])


FIGURES = """all => all.map(i => [
    decodeURI(i.src), i.getBoundingClientRect().width, parseFloat(i.style.width) || i.naturalWidth / 2])"""
DRAWN = """all => all.filter(t => t.getBoundingClientRect().width && t.textContent.trim())
    .map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"""
WIDER = """all => all.map(box => [
    [...box.querySelectorAll("img")].some(i => i.getBoundingClientRect().width > box.clientWidth + 1),
    getComputedStyle(box, "::after").content.includes("Swipe, or tap to open the figure")])"""
OPENED = """all => all.every(i => i.closest("a")?.href === i.src && i.alt)"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 360])
def test_the_smallest_text_of_a_pages_figures_is_legible_and_a_phone_says_where_one_goes_on(built, visit, name, width):
    page = open_page(visit, built / f"{name}.html", width)
    drawn = page.eval_on_selector_all(".bd-article svg text:not(mjx-container *)", DRAWN)
    assert min(drawn, default=LEAST) >= LEAST
    images = page.eval_on_selector_all(".bd-article :is(.cell_output, .cover) img", FIGURES)
    assert bool(images) == (name in [PAGES[0], *CHAPTERS])
    small = {src[-20:]: round(smallest(src.removeprefix("file://")) * shown / own, 1) for src, shown, own in images}
    assert min(small.values(), default=LEAST) >= LEAST, small
    if width == 360:
        boxes = page.eval_on_selector_all(".bd-article .cell_output:has(img[style])", WIDER)
        assert bool(boxes) == (name in CHAPTERS) and all(cue for scrolls, cue in boxes if scrolls), boxes
        assert page.eval_on_selector_all(".bd-article img[data-wide]", OPENED), "a link to its own file, named"


def test_a_figure_that_is_wider_than_a_phone_opens_by_its_link_with_all_its_pixels(built, visit):
    page = open_page(visit, built / "backward_lens.html", 360)
    figure = page.locator(".bd-article a:has(> img[data-wide])").first
    file, shown = figure.locator("img").evaluate("i => [i.src, i.getBoundingClientRect().width]")
    figure.press("Enter")
    page.wait_for_url(file)
    assert page.locator("img").evaluate("i => i.naturalWidth") > 2 * shown
