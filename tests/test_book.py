"""Is the built book complete, readable with the network unplugged, and free of warnings?"""
import base64
import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
HTML = BOOK / "_build" / "html"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"]] + [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
CHAPTERS = [name for name in PAGES if (BOOK / f"{name}.ipynb").exists()]
FETCHED = {"script": ["src"], "img": ["src", "srcset"], "iframe": ["src"], "source": ["src"], "video": ["src", "poster"], "audio": ["src"],
           "object": ["data"], "embed": ["src"]}

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), its ids and its language."""

    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self):
        return {attributes["id"] for _, attributes in self.elements if "id" in attributes}

    def fetched(self):
        """Everything that a browser loads in order to show the page."""
        for tag, attributes in self.elements:
            if tag == "link" and set(attributes.get("rel", "").split()) & {"stylesheet", "icon", "preload", "modulepreload", "preconnect"}:
                yield attributes.get("href", "")
            for name in FETCHED.get(tag, []):
                if attributes.get(name):
                    yield attributes[name]


@pytest.fixture(scope="module")
def book(built):
    return {name: Page(built / f"{name}.html") for name in PAGES}


def test_every_page_is_there_and_names_its_language(book):
    for name, page in book.items():
        assert page.all("html")[0].get("lang") == "en", name
        assert page.all("h1"), name
    assert f"url={TOC['root']}.html" in (HTML / "index.html").read_text(encoding="utf-8")


def test_sphinx_did_not_warn(book):
    log = (BOOK / "_build" / "sphinx.log").read_text(encoding="utf-8")
    assert "build succeeded" in log and "WARNING" not in log


def test_no_formula_reaches_a_page_as_its_source(book):
    for name, page in book.items():
        article = page.text[page.text.index("<article") : page.text.index("</article>")]
        text = re.sub(r'(?s)<(pre|code|script|style)\b.*?</\1>|<(span|div) class="math\b.*?</\2>|<[^>]+>', " ", article)
        assert re.findall(r".{0,40}(?:\$|\\[a-z]{2,}).{0,40}", text) == [], f"{name}.html"


def test_a_table_that_a_cell_shows_is_a_table(book):
    for name, page in book.items():
        assert not re.findall(r"<p>\|.{0,60}", page.text), f"{name}.html"
        if name in CHAPTERS and "lens.claims.table(" in re.sub("<[^>]+>", "", page.text):
            assert re.search(r'<div class="cell_output[^"]*">\s*(<div[^>]*>\s*)*<table', page.text), f"{name}.html"


def test_pages_load_nothing_from_the_network(book):
    for path in HTML.glob("*.html"):
        for address in Page(path).fetched():
            assert address.startswith("data:") or not urlsplit(address).netloc, f"{path.name} loads {address}"
    for path in (HTML / "_static").glob("**/*.css"):
        remote = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]+", path.read_text(encoding="utf-8", errors="replace"))
        assert not remote, f"{path.name} loads {remote}"


def test_scripts_know_no_thebe_and_no_require(book):
    for path in HTML.glob("*.html"):
        assert "unpkg.com" not in path.read_text(encoding="utf-8") and "cdnjs" not in path.read_text(encoding="utf-8"), path.name


def test_local_files_and_anchors_that_pages_point_to_exist(book):
    ids = {path.name: Page(path).ids() for path in HTML.glob("*.html")}
    for name, page in book.items():
        targets = list(page.fetched()) + [attributes["href"] for attributes in page.all("a") if attributes.get("href")]
        for target in targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = unquote(parts.path) or f"{name}.html"
            assert (HTML / file).exists(), f"{name}.html points to {target}"
            if file.endswith(".html") and parts.fragment:
                assert unquote(parts.fragment) in ids[file], f"{name}.html points to {target}"


def test_mathjax_is_local(book):
    sources = [attributes["src"] for page in book.values() for attributes in page.all("script") if "mathjax" in attributes.get("src", "").lower()]
    assert sources and all(source.startswith("_static/") for source in sources)
    assert list((HTML / "_static").glob("**/output/chtml/fonts/woff-v2/*.woff")), "the fonts of the formulas are missing"


def test_every_image_has_alt_text(book):
    for name, page in book.items():
        for image in page.all("img"):
            assert image.get("alt", "").strip(), f"{name}.html: {image.get('src')}"
            assert not image["alt"].startswith("_images/"), f"{name}.html: the alt text of {image['src']} is its file name"


def test_every_chapter_opens_in_colab(book):
    address = re.search(r'Repository = "https://github.com/([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    for name in CHAPTERS:
        links = [attributes.get("href") for attributes in book[name].all("a")]
        assert f"https://colab.research.google.com/github/{address}/blob/notebooks/{name}.ipynb" in links, name


def test_every_chapter_shows_outputs_and_no_error(book):
    for name in CHAPTERS:
        assert "cell_output" in book[name].text, name
        assert "Traceback (most recent call last)" not in book[name].text, name


def test_chapters_train_nothing_that_comes_with_the_book(book):
    shown = " ".join(page.text for page in book.values())
    for path in (ROOT / "data" / "runs" / "mini" / "short").iterdir():
        assert f"{path.stem.replace('-', ' ')}: the run that comes with the book" in shown, path.name


def test_no_page_shows_what_is_for_graders(book):
    for name in {*book} - {"api"}:  # which says what a verdict's require() does
        page = book[name]
        shown = re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|require\(\)|&lt;!-- |\.require</span>", page.text)
        assert not shown, f"{name}.html shows {shown[0]}"


def test_a_chapter_with_exercises_offers_its_notebook_without_solutions(book):
    for name in CHAPTERS:
        source = (BOOK / f"{name}.ipynb").read_text(encoding="utf-8")
        offered = (HTML / "_sources" / f"{name}.ipynb").read_text(encoding="utf-8")
        assert "BEGIN SOLUTION" not in offered and '"teacher"' not in offered, name
        links = [a["href"] for a in book[name].all("a") if a.get("download") == f"{name}.ipynb"]
        assert all(base64.b64decode(link.partition(";base64,")[2]).decode() == offered for link in links), name
        has = "BEGIN SOLUTION" in source  # then the page itself offers the notebook, beside the theme's button
        assert has == ("# your turn" in offered) == (len(links) == 2) and links, name


def test_landing_and_status_pages_name_every_chapter_with_its_measured_time(book):
    for page, each, time in (
        (TOC["root"], r'(?s)<div class="card .*?</div>', r"run time \d+ s"),
        ("status", r"(?s)<tr.*?</tr>", r"<p>[\d.]+ s</p>"),
    ):
        rows = re.findall(each, book[page].text)
        for name in CHAPTERS:
            assert any(f'href="{name}.html"' in row and re.search(time, row) for row in rows), (page, name)
    for fact in ("torch", "transformers", "numpy", "jupyter-book", "Python", "machine"):
        assert f"<p>{fact}</p>" in book["status"].text


def test_pages_can_be_searched_and_shown_in_the_dark(book):
    assert (HTML / "searchindex.js").exists()
    for name, page in book.items():
        assert "theme-switch-button" in page.text and "search-button" in page.text, name


def test_a_second_build_runs_no_chapter_again(book):
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, 'book'); import execute as e\n"
                           f"for c in {CHAPTERS!r}: assert e.load(e.executed_copy(c), e.key(e.BOOK / (c + '.ipynb'))), c"],
                          cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_chapters_claim_stands_on_one_page_with_both_models(book, monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK))
    import claims
    import execute

    names = [name for name in CHAPTERS if name not in execute.STAY]
    executed = {name: execute.nbformat.read(execute.executed_copy(name), 4) for name in names}
    found = claims.collected(executed)
    real = claims.edition("smollm2-135m")
    assert {key[0] for key in found} == set(executed) - {"kernels", "scaling_up"}  # these claim nothing
    assert set(found) == set(real)
    assert all(one.control is not None for one in found.values())
    text = re.sub(r"<[^>]+>", "", book["carries_over"].text).replace("&quot;", '"')
    for key, one in found.items():
        assert one.numbers in text and (key not in real or real[key].numbers in text), key
        assert one.verdict == claims.edition("mini")[key].verdict, f"data/claims/mini.json says otherwise of {key}"


def test_the_api_reference_has_every_public_name_once(book):
    """Whatever `lens` and its rooms list as public: each in one place, with its docstring."""
    sys.path.insert(0, str(ROOT / "book"))
    import api
    import lens

    shown = re.findall(r'<dt class="[^"]*" id="(lens\.[\w.]+)"', book["api"].text)
    assert len(shown) == len(set(shown))
    values = [importlib.import_module(f"lens.{room}") for room in api.ROOMS]
    public = {id(getattr(module, name)): name for module in [lens, *values] for name in module.__all__
              if not inspect.ismodule(getattr(module, name))}
    names = {name.split(".")[-1] for name in shown}
    assert set(public.values()) <= names
