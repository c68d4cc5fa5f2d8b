"""How does the built book become one PDF to print?

    python book/pdf.py

A browser prints every page of `_toc.yml` in order; the parts are joined, with an outline, and links between pages lead
to the page in the PDF. Needs the built book (`make book`) and Chromium.
"""
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from build import pages
from execute import BOOK, BUILD, BuildError

HTML = BUILD / "html"
PDF = BUILD / "book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIDES = dict(top="18mm", bottom="18mm", left="18mm", right="18mm")
PAPER = dict(format="A4", margin=SIDES, scale=0.8, print_background=True)
# On paper: the text's full width, nothing to click or to scroll, and no page break inside a figure.
PRINT = """
pre, pre code { white-space: pre-wrap !important; overflow-wrap: anywhere; overflow: visible !important }
figure img, .wide { min-width: 0 !important; max-width: 100% !important }
.bd-header-article, .bd-sidebar-secondary, .prev-next-area, .bd-footer-content { display: none !important }
.headerlink, .copybtn { display: none !important }
.bd-main, .bd-article-container, .bd-content { max-width: 100% !important; overflow: visible !important }
figure, img, table, .lens-explorer, .cell { break-inside: avoid }
h1, h2, h3 { break-after: avoid }
"""


def browser(driver):
    """This machine's own browser, or the one that playwright installs."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None and not Path(driver.chromium.executable_path).exists():
        raise BuildError("there is no Chromium; install it: python -m playwright install chromium.")
    return driver.chromium.launch(executable_path=path, args=["--no-sandbox"])


def print_pages(names, folder):
    """Every page as a PDF of its own, formulas set."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = browser(driver)
        context = chromium.new_context(offline=True, color_scheme="light")
        for name in names:
            page = context.new_page()
            page.goto((HTML / f"{name}.html").as_uri())
            page.evaluate("document.documentElement.dataset.theme = 'light'")
            page.add_style_tag(content=PRINT)
            page.wait_for_function("!document.querySelector('.math') || document.querySelector('mjx-container')")
            page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.pdf(path=folder / f"{name}.pdf", **PAPER)
            page.close()
            print(f"  {name}", flush=True)
        chromium.close()


def join(names, folder, target):
    """One file of all, with an outline; a link to another page of the book leads there."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import ArrayObject, NameObject, NumberObject

    writer, first = PdfWriter(), {}
    for name in names:
        part = PdfReader(folder / f"{name}.pdf")
        first[name] = len(writer.pages)
        writer.append(part, import_outline=False)
        title = part.metadata.title.split(" — ")[0] if part.metadata.title else name
        writer.add_outline_item(title=title, page_number=first[name])
    for page in writer.pages:
        for reference in page.get("/Annots") or []:
            link = reference.get_object()
            address = urlsplit(str(link.get("/A", {}).get("/URI", "")))
            name = Path(unquote(address.path)).stem
            if address.scheme == "file" and name in first:
                del link[NameObject("/A")]
                place = writer.pages[first[name]].indirect_reference
                link[NameObject("/Dest")] = ArrayObject([place, NameObject("/XYZ")] + [NumberObject(0)] * 3)
    new = target.with_name(target.name + ".new")
    writer.write(new)
    new.replace(target)
    return len(writer.pages)


def main():
    sys.stdout.reconfigure(errors="backslashreplace")  # a code page may lack a letter of a path
    names = pages(yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8")))
    folder = BUILD / "pdf"
    try:
        missing = [name for name in names if not (HTML / f"{name}.html").exists()]
        if missing:
            raise BuildError(f"the built book has no page {missing[0]}; run 'make book' first.")
        folder.mkdir(exist_ok=True)
        print("Printing the pages", flush=True)
        print_pages(names, folder)
        count = join(names, folder, PDF)
    except ImportError as error:
        print(f"lens: {error.name} is missing; install it: pip install -r book/requirements.txt.", file=sys.stderr)
        return 1
    except BuildError as error:
        print(f"lens: {error}", file=sys.stderr)
        return 1
    print(f"The book on paper, {count} pages: {PDF}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
