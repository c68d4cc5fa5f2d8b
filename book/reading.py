"""How long does a chapter take to read, and how long are its sentences?

Counted is what stands before the questions and the exercises, which name their own minutes:

    minutes = words / 120 + lines of code / 12 + displayed formulas / 2 + figures, to the nearest five.

Readers of three chapters took 45, 60 and 95 minutes; their pace is the one above. A sentence of more than 30 words is
called long. `python book/reading.py` prints the table of the status page and writes each chapter's minutes into its
first cell.
"""
import re
from dataclasses import dataclass

import nbformat
from notebooks import heading_and_claim

LONG = 30  # words
TIME = re.compile(r"(?m)^\| Time \| (\d+) minutes to read")
FORMULA = re.compile(r"\$\$.*?\$\$", re.DOTALL)
NO_PROSE = re.compile(r"(?m)(?s:```.*?```|<!--.*?-->)|<[^>]+>|^\|.*|^#.*|^\(.*\)=$")
ONE_WORD = re.compile(r"`[^`]*`|\$[^$]+\$")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
PARAGRAPH = re.compile(r"\n\s*\n|\n\s*(?:[-*]|\d+\.)\s")  # or an item of a list
SENTENCE = re.compile(r"(?<=[.!?])[\"”*)]*\s+(?=[\"“*(\[]*[A-Z])")
WORD = re.compile(r"[^\W\d_][\w’'-]*")


@dataclass(frozen=True)
class Reading:
    """What a reader has before them: numbers of words, lines, formulas, figures, and the words of each sentence."""

    words: int
    lines: int
    formulas: int
    figures: int
    sentences: tuple[int, ...]

    @property
    def minutes(self):
        return 5 * round((self.words / 120 + self.lines / 12 + self.formulas / 2 + self.figures) / 5)

    @property
    def length(self):
        """Mean number of words in a sentence."""
        return sum(self.sentences) / len(self.sentences)

    @property
    def long(self):
        """Share of sentences with more than 30 words."""
        return sum(words > LONG for words in self.sentences) / len(self.sentences)


def sentences(markdown):
    """The sentences of a Markdown text, formulas and code as one word each; headings and tables are none."""
    text = ONE_WORD.sub(" x ", LINK.sub(r"\1", NO_PROSE.sub("\n\n", FORMULA.sub(" x ", markdown))))
    found = (one for paragraph in PARAGRAPH.split(text) for one in SENTENCE.split(paragraph))
    return [" ".join(one.split()) for one in found if WORD.search(one)]


def measure(notebook):
    """A `Reading` of a chapter, up to its questions and exercises."""
    cells = notebook.cells
    end = next((i for i, cell in enumerate(cells) if cell.source.startswith(("## Questions", "## Exercises"))), len(cells))
    texts = [cell.source for cell in cells[:end] if cell.cell_type == "markdown"]
    code = [cell.source for cell in cells[:end] if cell.cell_type == "code"]
    counts = [len(WORD.findall(one)) for text in texts for one in sentences(text)]
    return Reading(
        words=sum(counts),
        lines=sum(bool(line.strip()) for source in code for line in source.splitlines()),
        formulas=sum(len(FORMULA.findall(text)) for text in texts),
        figures=sum(len(re.findall(r"(?m)^\*Figure \d+", text)) for text in texts),
        sentences=tuple(counts),
    )


def table(chapters):
    """Markdown: a row for each chapter of {name: notebook}."""
    rows = ["| chapter | minutes | words | code | formulas | figures | words in a sentence | long sentences |",
            "|---|---|---|---|---|---|---|---|"]
    for name, notebook in chapters.items():
        one = measure(notebook)
        rows.append(f"| [{heading_and_claim(notebook)[0]}]({name}.ipynb) | {one.minutes} | {one.words} | {one.lines} "
                    f"| {one.formulas} | {one.figures} | {one.length:.1f} | {one.long:.0%} |")
    return "\n".join(rows)


def main():
    from execute import BOOK, write

    chapters = {path.stem: nbformat.read(path, as_version=4) for path in sorted(BOOK.glob("*.ipynb"))}
    for name, notebook in chapters.items():
        minutes = measure(notebook).minutes
        source = (BOOK / f"{name}.ipynb").read_text(encoding="utf-8")
        write(BOOK / f"{name}.ipynb", re.sub(r"\| Time \| \d+ minutes", f"| Time | {minutes} minutes", source))
    print(table(chapters))


if __name__ == "__main__":
    main()
