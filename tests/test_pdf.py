"""Is the printed book whole: formulas set, no line of code cut off, links that lead somewhere, an outline?"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
NAMES = ["intro", "backward_lens", "bibliography"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def printed(built, tmp_path_factory, module_patch):
    """Three pages of the book, printed and joined."""
    pypdf = pytest.importorskip("pypdf", reason="pip install pypdf")
    pytest.importorskip("playwright", reason="pip install playwright")
    module_patch.syspath_prepend(str(BOOK))
    import pdf

    folder = tmp_path_factory.mktemp("pdf")
    try:
        pdf.print_pages(NAMES, folder)
    except pdf.BuildError as error:
        pytest.skip(str(error))
    count = pdf.join([("", NAMES[:1]), ("Backward", NAMES[1:])], folder, folder / "book.pdf")
    read = pypdf.PdfReader(folder / "book.pdf")
    assert len(read.pages) == count and sorted(p.suffix for p in folder.iterdir()) == [".pdf"] * 6
    return read


def test_the_outline_names_every_page_of_the_book(printed):
    titles = [entry["/Title"] for entry in printed.outline]
    assert len(titles) == len(NAMES) and titles[1].startswith("The backward lens") and titles[2] == "Bibliography"


def test_it_opens_with_a_cover_and_contents_whose_numbers_are_those_at_the_foot_of_the_pages(printed):
    texts = [page.extract_text() for page in printed.pages]
    assert "How language models learn" in texts[0] and "Contents" in texts[1]
    title = "The backward lens"
    number = int(texts[1].split(title, 1)[1].split("\n", 1)[0].split()[-1] if title in texts[1] else 0)
    assert title in texts[number - 1] and texts[number - 1].split()[-1] == str(number)


def test_no_line_of_code_is_cut_off(printed):
    text = "".join("".join(page.extract_text() for page in printed.pages).split())
    cells = nbformat.read(BOOK / f"{NAMES[1]}.ipynb", as_version=4).cells
    longest = max((line for c in cells if c.cell_type == "code" for line in c.source.splitlines()), key=len)
    assert len(longest) > 90 and "".join(longest.split()) in text


def test_links_between_pages_lead_to_a_page_of_the_pdf(printed):
    inside, outside = 0, []
    for page in printed.pages:
        for reference in page.get("/Annots") or []:
            link = reference.get_object()
            inside += "/Dest" in link
            if address := str(link.get("/A", {}).get("/URI", "")):
                outside.append(address)
    assert inside > 5
    assert not [address for address in outside if address.startswith("file:")], "nothing of the machine that printed it"


def test_without_the_built_book_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BOOK))
    import pdf

    monkeypatch.setattr(pdf, "HTML", tmp_path)
    assert pdf.end(pdf.main, pdf.BuildError) == 1
    assert capsys.readouterr().err == "lens: the built book has no page intro; run 'make book' first.\n"


def lowest(page) -> float:
    """Where the lowest thing on a page stands, as a share of its height; the number in the margin does not count."""
    height, found = float(page.mediabox.height), [1.0]

    def text(shown, cm, tm, font, size):
        if shown.strip():
            found.append((tm[4] * cm[1] + tm[5] * cm[3] + cm[5]) / height)

    def picture(operator, operands, cm, tm):
        if operator == b"Do":
            found.append(min(cm[5], cm[5] + cm[3]) / height)

    page.extract_text(visitor_text=text, visitor_operand_before=picture)
    return min(share for share in found if share > 0.04)


def test_no_page_is_left_half_empty_but_the_last_of_a_chapter(printed):
    begins = [printed.get_destination_page_number(entry) for entry in printed.outline]
    last = {begin - 1 for begin in begins} | {len(printed.pages) - 1}
    shares = {n + 1: lowest(page) for n, page in enumerate(printed.pages) if n >= begins[0] and n not in last}
    assert len(shares) > 15 and not {n: share for n, share in shares.items() if share > 0.5}
