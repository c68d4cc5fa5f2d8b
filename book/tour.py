"""How is the moving picture on the README made?  ``python book/tour.py``, from the built landing page (`make book`).

A browser opens the page, looks through the gradient's words from the lowest layer to the top, writes a step into one
matrix, and makes it longer: the pictures of these moments, one after the other, again and again.
"""
import sys
from io import BytesIO

from execute import BOOK, BuildError
from pdf import HTML, browser
from program import end

TARGET = BOOK / "_static" / "explorer.webp"
HEIGHT = 900  # of the picture, at most
LONG, SHORT = 1800, 550  # ms that a moment is shown


def moments(page):
    """Lead the explorer through its moments; gives how long each is to be seen, in ms."""
    explorer = page.locator(".lens-explorer").first
    step = explorer.locator("input[type=range]").first

    def size(place):
        change = "(one, to) => { one.value = to; one.dispatchEvent(new Event('input', { bubbles: true })); }"
        step.evaluate(change, place)

    size(0)
    yield LONG
    rows = explorer.locator("table[role=grid] tbody tr")
    for row in reversed(range(rows.count())):  # the last layer stands on top
        rows.nth(row).locator("td").last.hover()
        yield SHORT
    yield LONG - SHORT
    for place in range(1, int(step.get_attribute("max")) + 1):
        size(place)
        yield 2 * SHORT
    yield LONG
    explorer.locator(".tries button").nth(1).click()
    yield LONG


def pictures(path):
    """[(picture, ms)] of the page at ``path``."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = browser(driver)
        page = chromium.new_page(offline=True, color_scheme="light", viewport={"width": 1280, "height": 1200})
        page.set_default_timeout(120_000)  # a machine may be busy
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        page.evaluate("document.documentElement.dataset.theme = 'light'")
        explorer = page.locator(".lens-explorer").first
        explorer.evaluate("one => one.scrollIntoView()")
        box = explorer.bounding_box()
        clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": min(box["height"], HEIGHT)}
        found = []
        for ms in moments(page):
            page.wait_for_timeout(150)
            found.append((Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB"), ms))
        chromium.close()
    return found


def main():
    """Make the picture; what it answers is for `end`."""
    page = HTML / "intro.html"
    if not page.exists():
        raise BuildError("the built book has no page intro; run 'make book' first.")
    try:
        (first, _), *rest = found = pictures(page)
    except ImportError as error:
        raise BuildError(f"{error.name} is missing; install it: pip install -r book/requirements.txt.") from error
    first.save(TARGET, save_all=True, append_images=[picture for picture, _ in rest], duration=[ms for _, ms in found],
               loop=0, quality=70, method=6)
    return f"{len(found)} moments, {TARGET.stat().st_size / 1e6:.2f} MB: {TARGET}"


if __name__ == "__main__":
    sys.exit(end(main, BuildError))
