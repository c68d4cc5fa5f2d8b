"""Do the chapters say how long they take to read, in sentences of one thought, with symbols that *Notation* explains?"""
import re
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))
import reading  # noqa: E402

CHAPTERS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(BOOK.glob("*.ipynb"))}
OPENING = re.compile(r"(?s)\*\*Symbols\*\* \(\[Notation\]\(notation\.md\)\): (.*?)(?:\n\n|$)")
ROW = re.compile(r"(?m)^\| (\$[^|]+?\$) \|")


def stem(symbol):
    """A symbol without its index: p of p_t, E of E[t]."""
    return re.split(r"[_^\[(']", symbol)[0]


def test_the_minutes_of_a_text_are_those_of_its_words_lines_formulas_and_figures():
    words, lines = "One word. " * 120, "x = 1\n" * 24
    cells = [nbformat.v4.new_markdown_cell(f"# Title\n\n{words}\n\n| a | table |\n\n$$ x\n= 1 $$\n\n*Figure 1. A caption of six words.*"),
             nbformat.v4.new_code_cell(lines + "\n\n"), nbformat.v4.new_markdown_cell("## Exercises\n\n" + 99 * words)]
    one = reading.measure(nbformat.v4.new_notebook(cells=cells))
    assert (one.words, one.lines, one.formulas, one.figures) == (247, 24, 1, 1) and one.minutes == 5


def test_a_formula_and_a_link_do_not_end_a_sentence_and_an_item_of_a_list_does():
    text = "See [Meng et al. (2022)](bibliography.md#meng2022): with $x. Y$ and `a. B`, it holds.\n\n- one\n- two"
    assert [len(reading.WORD.findall(one)) for one in reading.sentences(text)] == [10, 1, 1]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_names_the_minutes_that_were_measured(name):
    source = CHAPTERS[name].cells[0].source
    assert int(reading.TIME.search(source)[1]) == reading.measure(CHAPTERS[name]).minutes, "python book/reading.py writes them"


@pytest.mark.parametrize("name", CHAPTERS)
def test_sentences_are_short(name):
    one = reading.measure(CHAPTERS[name])
    assert one.length <= 15 and one.long <= 0.03


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_with_its_symbols_and_notation_explains_each(name):
    rows = ROW.findall((BOOK / "notation.md").read_text(encoding="utf-8"))
    explained = {one for row in rows for formula in re.findall(r"\$(.+?)\$", row) for one in (formula, *formula.split(", "))}
    explained |= {stem(one) for one in explained}
    opening = OPENING.search(CHAPTERS[name].cells[0].source)[1]
    entries = " ".join(opening.split()).split(" · ")
    symbols = [symbol for entry in entries for symbol in entry.split("$")[1].split(", ")]
    assert symbols and [one for one in symbols if one not in explained and stem(one) not in explained] == []
    rest = "".join(cell.source for cell in CHAPTERS[name].cells[1:] if cell.cell_type == "markdown")
    assert [symbol for symbol in symbols if stem(symbol) not in rest] == [], "named in the opening and never used"
