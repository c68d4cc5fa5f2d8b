"""How does the built book become one PDF to print?

    python book/pdf.py

A browser prints every page of `_toc.yml` in order, by the page's own rules for print; the parts are joined behind a cover
and a table of contents, with page numbers and an outline, and links between pages lead to the page in the PDF. Needs
the built book (`make book`) and Chromium.
"""
import base64
import html
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from build import pages
from execute import BOOK, BUILD, BuildError
from program import end

HTML = BUILD / "html"
PDF = BUILD / "book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIDES = dict(top="18mm", bottom="18mm", left="18mm", right="18mm")
PAPER = dict(format="A4", print_background=True)
LOOK = """<style>
body { font: 12pt/1.5 Georgia, serif; margin: 0; color: #1f2430 }
h1 { font-size: 26pt; line-height: 1.2; margin: 40mm 0 8mm } img { display: block; width: 110mm; margin: 8mm auto 0 }
h2 { font-size: 18pt } h3 { font-size: 12pt; margin: 5mm 0 1mm; color: #0b5c8c }
.cover, .numbered { break-after: page } .numbered { height: 296.9mm; position: relative }
.entry { display: flex; gap: 3mm } .entry span { margin-left: auto }
.numbered p { position: absolute; bottom: 4mm; width: 100%; text-align: center; font-size: 9pt; color: #5b616e }
</style>"""


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
            page.wait_for_function("!document.querySelector('.math') || document.querySelector('mjx-container')")
            page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.pdf(path=folder / f"{name}.pdf", margin=SIDES, **PAPER)
            page.close()
            print(f"  {name}", flush=True)
        chromium.close()


def front(parts, titles, first):
    """Cover and contents as HTML: `parts` are (caption, names), `first` the page of each name."""
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    files = [BOOK / "_static" / f"cover_{half}.png" for half in ("forward", "backward")]
    pictures = [base64.b64encode(file.read_bytes()).decode() for file in files]
    text = [f'<div class="cover"><h1>{html.escape(config["title"])}</h1><p>{html.escape(config["author"])}</p>'
            + "".join(f'<img alt="" src="data:image/png;base64,{picture}">' for picture in pictures)
            + "</div><h2>Contents</h2>"]
    for caption, names in parts:
        text.append(f"<h3>{html.escape(caption)}</h3>")
        text += [f'<div class="entry">{html.escape(titles[name])}<span>{first[name] + 1}</span></div>' for name in names]
    return "".join(text)


def print_sheets(texts, folder):
    """{name: (HTML, margins)}: each as the PDF of that name."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = browser(driver)
        for name, (text, margin) in texts.items():
            page = chromium.new_page()
            page.set_content(LOOK + text)
            page.pdf(path=folder / f"{name}.pdf", margin=margin, **PAPER)
        chromium.close()


def join(parts, folder, target):
    """One file of all pages of `parts`, (caption, names): cover, contents, numbers, an outline, links that lead there."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import ArrayObject, NameObject, NumberObject

    names = [name for _, found in parts for name in found]
    read = {name: PdfReader(folder / f"{name}.pdf") for name in names}
    titles = {name: (part.metadata.title or name).split(" \u2014 ")[0] for name, part in read.items()}
    before = dict.fromkeys(names, 0)
    for _ in range(2):  # once to see how many pages the contents take, once with the numbers that follow
        print_sheets({"front": (front(parts, titles, before), SIDES)}, folder)
        read["front"] = PdfReader(folder / "front.pdf")
        count = len(read["front"].pages)
        for name in names:
            before[name], count = count, count + len(read[name].pages)
    sheets = "".join(f'<div class="numbered"><p>{number}</p></div>' for number in range(1, count + 1))
    print_sheets({"numbers": (sheets, None)}, folder)

    writer, numbers = PdfWriter(), PdfReader(folder / "numbers.pdf")
    for name in ["front", *names]:
        writer.append(read[name], import_outline=False)
        if name in titles:
            writer.add_outline_item(title=titles[name], page_number=before[name])
    for place, page in enumerate(writer.pages):
        if place:  # a cover has no number
            page.merge_page(numbers.pages[place])
        for reference in page.get("/Annots") or []:
            link = reference.get_object()
            address = urlsplit(str(link.get("/A", {}).get("/URI", "")))
            name = Path(unquote(address.path)).stem
            if address.scheme == "file":  # on the machine that prints; one to a figure's own file is dropped
                del link[NameObject("/A")]
                if name in before:
                    to = writer.pages[before[name]].indirect_reference
                    link[NameObject("/Dest")] = ArrayObject([to, NameObject("/XYZ")] + [NumberObject(0)] * 3)
    new = target.with_name(target.name + ".new")
    writer.write(new)
    new.replace(target)
    return len(writer.pages)


def main():
    """Print the book; what it answers is for `end`."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    names = pages(toc)
    parts = [("", names[:1])] + [(part["caption"], [entry["file"] for entry in part["chapters"]]) for part in toc["parts"]]
    folder = BUILD / "pdf"
    missing = [name for name in names if not (HTML / f"{name}.html").exists()]
    if missing:
        raise BuildError(f"the built book has no page {missing[0]}; run 'make book' first.")
    folder.mkdir(exist_ok=True)
    print("Printing the pages", flush=True)
    try:
        print_pages(names, folder)
        count = join(parts, folder, PDF)
    except ImportError as error:
        raise BuildError(f"{error.name} is missing; install it: pip install -r book/requirements.txt.") from error
    return f"The book on paper, {count} pages: {PDF}"


if __name__ == "__main__":
    sys.exit(end(main, BuildError))
