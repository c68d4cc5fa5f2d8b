"""How does the built book become a lecture's slides?

    python book/slides.py

The teaching notes' *One lecture* says which chapters in which order, and what to do; a figure that it names is shown,
else a chapter's first. Each chapter gives its claim, first formulas, the figures, its live explorer and its summary.
What the notes and the text beside a figure say are speaker notes. The deck lies beside the built pages and uses their
figures and scripts (`make book`), so it works offline; a browser prints it, one slide a page.
"""
import html
import re
import sys

import yaml
from execute import BOOK, BUILD, BuildError
from pdf import HTML, browser
from program import end

DECK, PDF = HTML / "slides.html", BUILD / "slides.pdf"
ROW = re.compile(r"(?m)^\| (\d+) \| (.+?) \| (.+?) \|$")
CHAPTER = re.compile(r"\]\((\w+)\.ipynb\)")
FIGURE = re.compile(r"Figure (\d+)")
SCRIPTS = re.compile(r"(?s)<script[^>]*(?:mathjax|beside\.js)[^>]*>.*?</script>|<script>\s*window\.MathJax.*?</script>")
FORMULAS = 4  # of a chapter, for the board
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
{style}</style>
{scripts}
<script>
{keys}</script></head>
<body><main>
{slides}
</main></body></html>
"""


def lecture(notes):
    """([(minutes, chapters, what to do)], what stands below the table) of the teaching notes' *One lecture*."""
    part = notes.partition("### One lecture\n")[2].partition("\n### ")[0]
    rows = [(int(minutes), CHAPTER.findall(chapters), what) for minutes, chapters, what in ROW.findall(part)]
    if not rows or not all(chapters for _, chapters, _ in rows):
        raise BuildError("teaching.md has no table '### One lecture' of minutes, chapters and what to do.")
    below = part.rpartition("|\n")[2]
    return rows, [" ".join(paragraph.split()) for paragraph in below.split("\n\n") if paragraph.strip()]


def slide(heading, body, notes):
    """One slide; `body` is HTML, `notes` are texts."""
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes if note)
    aside = f'<aside class="notes" aria-label="speaker notes">{said}</aside>' if said else ""
    return f'<section class="slide"><div class="sheet"><h2>{heading}</h2>{body}</div>{aside}</section>'


def of_chapter(name, wanted, to_do):
    """The slides of a chapter: claim, formulas, figures (those wanted by number, else the first), explorer, summary."""
    from bs4 import BeautifulSoup

    path = HTML / f"{name}.html"
    if not path.exists():
        raise BuildError(f"the built book has no page {name}; run 'make book' first.")
    article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
    for link in article.select("a.headerlink"):
        link.decompose()
    for tag in article.select("[id]"):
        if not tag.find_parent(class_="lens-explorer-root") and tag.name in ("section", "p", "figure", "span"):
            del tag["id"]  # of several chapters on one page
    title = article.h1.get_text().strip()
    yield slide(html.escape(title), str(article.find("p")), [to_do])

    formulas = [one for one in article.select("section > div.math") if not one.find_parent("details")][:FORMULAS]
    if formulas:
        around = {_heading(one): one.find_previous("p") for one in formulas}
        notes = [" ".join(p.get_text().split()) for p in around.values() if p]
        yield slide("On the board", "".join(map(str, formulas)), [f"{title}: {', '.join(around)}.", *notes])

    captions = {}
    for paragraph in article.find_all("p"):
        if found := re.match(r"Figure (\d+)\.", paragraph.get_text()):
            captions.setdefault(int(found[1]), paragraph)
    missing = [number for number in wanted if number not in captions]
    if missing:
        raise BuildError(f"teaching.md names Figure {missing[0]} of {name}, which has {len(captions)} figures.")
    for number in wanted or sorted(captions)[:1]:
        caption = captions[number]
        read = [p for p in caption.find_next_siblings(["p", "section"]) if p.name == "p"][:2]
        body = f'<figure>{caption.find_previous("img")}<figcaption>{caption.decode_contents()}</figcaption></figure>'
        yield slide(html.escape(_heading(caption)), body, [" ".join(p.get_text().split()) for p in read])

    if explorer := article.select_one(".lens-explorer-root"):
        play = explorer.find_parent("section")
        texts = [" ".join(one.get_text().split()) for one in play.find_all(["p", "li"], recursive=True)
                 if not one.find_parent(class_="cell")]
        alive = explorer.parent.decode_contents().replace(explorer["id"], f"{name}-explorer")  # pages count alike
        yield slide(f"Play: {html.escape(title.split(':')[0])}", alive, texts)

    heads = article.find_all("h2")
    summary = next(head.find_parent("section") for head in heads if head.get_text().strip().startswith("Summary"))
    yield slide(f"Summary: {html.escape(title.split(':')[0])}", str(summary.ul), [])


def _heading(tag):
    return tag.find_parent("section").find(["h1", "h2", "h3"]).get_text().strip()


def deck():
    """The whole lecture as HTML."""
    rows, below = lecture((BOOK / "teaching.md").read_text(encoding="utf-8"))
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    minutes = sum(row[0] for row in rows)
    slides = [slide(html.escape(config["title"]), f"<p>One lecture of {minutes} minutes.</p>", below)]
    for length, chapters, what in rows:
        named = [int(number) for number in FIGURE.findall(what)]
        for chapter in chapters:
            slides += of_chapter(chapter, named if len(chapters) == 1 else [], f"{length} minutes: {what}.")
    page = (HTML / f"{rows[0][1][0]}.html").read_text(encoding="utf-8")
    scripts = SCRIPTS.findall(page)
    style, keys = ((BOOK / f"slides.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return PAGE.format(title=html.escape(f"{config['title']}: slides"), style=style, keys=keys,
                       scripts="\n".join(scripts), slides="\n".join(slides))


def print_deck(target):
    """The deck as a PDF, a slide a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = browser(driver)
        page = chromium.new_context(offline=True, color_scheme="light").new_page()
        page.set_default_timeout(120_000)  # a machine may be busy
        page.goto(DECK.as_uri())
        page.wait_for_function("!document.querySelector('.math') || document.querySelector('mjx-container')")
        page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.pdf(path=target, prefer_css_page_size=True, print_background=True)
        chromium.close()


def main():
    """Make the slides; what it answers is for `end`."""
    DECK.write_text(deck(), encoding="utf-8")
    try:
        print_deck(PDF)
    except ImportError as error:
        raise BuildError(f"{error.name} is missing; install it: pip install -r book/requirements.txt.") from error
    return f"The slides: {DECK} (arrow keys; n shows the speaker notes)\nThe same on paper: {PDF}"


if __name__ == "__main__":
    sys.exit(end(main, BuildError))
