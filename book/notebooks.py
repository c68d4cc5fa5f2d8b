"""How does one source notebook become the page, the student's, the teacher's and the graded notebook?

A chapter is written once, with solutions and hidden tests between nbgrader's markers and teacher notes in cells
tagged `teacher`. Each function here takes such a notebook and returns a new one; `read` refuses one whose markers
would make a version that is not what it says.
"""
import copy
import re
import sys
from dataclasses import dataclass
from functools import partial

import nbformat
import questions
from grading import fresh

try:
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions
    from nbgrader.utils import is_grade, is_solution
except ModuleNotFoundError as missing:
    sys.exit(f"lens: {missing.name.split('.')[0]} is missing, with which exercises are prepared; "
             "run `make book` or `make course`, or pip install -r book/requirements.txt.")

PLAIN = ("kernelspec", "language_info")  # what any notebook says about itself
TURN = "...  # your turn"
LAB = "To run this cell yourself: `make lab`, in a copy of the repository, opens this chapter in JupyterLab."
FOLD = "# @title Solution: unfold to see it\n"  # Colab shows this line in its place
MARKER = re.compile(r"(?m)^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*\n?")
REGIONS = {"SOLUTION": is_solution, "HIDDEN TESTS": is_grade}
HEADING = re.compile(r"### Exercise (\d+)\. (.+)\n")
EXERCISE = re.compile(HEADING.pattern + r"\s*((?:[●○] ?){3}) ?· (\d+) minutes")
FOLDED = re.compile(r"<details>\s*<summary>For teachers</summary>\s*(.*?)\s*</details>", re.DOTALL)
# A link to another file of the book's folder: [text](name.ipynb#part)
LOCAL_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")


class NotebookError(Exception):
    """One sentence: which cell of which notebook is wrong, and how to put it right."""


@dataclass(frozen=True)
class Exercise:
    """An exercise as its heading announces it: `difficulty` is 1, 2 or 3, `points` the sum over its checks."""

    number: int
    title: str
    difficulty: int
    minutes: int
    points: float

    @property
    def dots(self):
        return " ".join("●" * self.difficulty + "○" * (3 - self.difficulty))


def read(path):
    """The chapter at `path`, or `NotebookError` if its markers or its exercises' headings are not in order."""
    nb = nbformat.read(path, as_version=4)
    names = set()
    for number, cell in enumerate(nb.cells, 1):
        place = f"{path.name}, cell {number}:"
        for region, marked in REGIONS.items():
            found = re.findall(rf"(BEGIN|END) {region}", cell.source)
            if found != ["BEGIN", "END"] * (len(found) // 2):
                raise NotebookError(f"{place} ### BEGIN {region} and ### END {region} must come in pairs, and here are "
                                    f"{', '.join(found)}; add or remove the odd one.")
            if found and not marked(cell):
                raise NotebookError(f"{place} it has a region {region}, but its metadata do not call it a "
                                    f"{'solution' if marked is is_solution else 'graded'} cell of nbgrader; add them.")
        if is_grade(cell) or is_solution(cell):
            name = cell.metadata.nbgrader.grade_id
            if name in names:
                raise NotebookError(f"{place} the grade_id {name!r} is that of an earlier cell; give it another.")
            names.add(name)
        if questions.is_questions(cell):
            try:
                questions.parse(cell.source)
            except ValueError as error:
                raise NotebookError(f"{place} {error}") from None
        if HEADING.match(cell.get("source", "")) and not EXERCISE.match(cell.source):
            raise NotebookError(f"{place} below its heading an exercise says how hard and how long it is, as in "
                                "'● ● ○ · 10 minutes'; add that line.")
    return nb


def heading_and_claim(nb):
    """A chapter's title and its first paragraph, which states its one claim."""
    text = next(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    title, _, rest = text.strip().partition("\n")
    claim = " ".join(rest.strip().split("\n\n")[0].split())
    return title.lstrip("# "), claim


def short_title(nb):
    """A chapter's title without what follows its colon."""
    return heading_and_claim(nb)[0].split(":")[0]


def exercises(nb):
    """The exercises of a chapter, in order."""
    found = []
    for cell in nb.cells:
        match = EXERCISE.match(cell.source)
        if match:
            found.append([int(match[1]), match[2].strip(), match[3].count("●"), int(match[4]), 0])
        elif is_grade(cell) and found:
            found[-1][-1] += cell.metadata.nbgrader.points
    return [Exercise(*facts) for facts in found]


def page(nb, download=None):
    """What the reader sees: exercise, starting point, folded solution, check; `download` is the student's notebook, if any."""
    nb = _cleared(nb, ClearHiddenTests())
    cells = []
    for cell, begun in zip(nb.cells, _stubs(nb).cells):
        if is_solution(cell):
            cells.append(nbformat.v4.new_markdown_cell(f"**Starting point**\n\n```python\n{begun.source}\n```",
                                                       id=f"{cell.id[:50]}-start"))
            cell.source = MARKER.sub("", cell.source)
        cells.append(cell)
        shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
        if any("lens-explorer-root" in html for html in shown):
            cells.append(nbformat.v4.new_markdown_cell(LAB, id=f"{cell.id[:50]}-lab"))
    nb.cells = cells
    if download and exercises(nb):
        nb.cells[0].source += f'\n\n<a href="{download}">The notebook without solutions</a>, to work in.'
        if any(cell.source.startswith("## Play") for cell in nb.cells):
            nb.cells[0].source += ' <a href="#play">The explorer</a>, to play with.'
    return nb


def student(nb, address):
    """The whole chapter to work in: no solution, hidden test or teacher note; plain metadata, so it runs anywhere."""
    nb = _stubs(_cleared(nb, ClearHiddenTests()))
    return _bare(nb, [cell for cell in nb.cells if not _is_teachers(cell)], address)


def instructor(nb, address):
    """The whole chapter with solutions (which Colab folds), hidden tests between their markers, and teacher notes."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if is_solution(cell):
            cell.source, cell.metadata["cellView"] = FOLD + cell.source, "form"
        if _is_teachers(cell):
            cell.source = FOLDED.sub(r"**For teachers.** \1", cell.source)
        if questions.is_questions(cell):
            cell.source = questions.unfolded(cell.source)
    return _bare(nb, nb.cells, address, keep={"cellView"})


def assignment(nb, name, address):
    """nbgrader's source: title and claim, the setup cells, the section *Exercises* with its markers and metadata.

    Its hidden tests load the checks themselves (`grading.fresh`).
    """
    nb = copy.deepcopy(nb)
    title, claim = heading_and_claim(nb)
    setup = [cell for cell in nb.cells if cell.cell_type == "code"][:2]  # the model's name, then loading it
    sections = [number for number, cell in enumerate(nb.cells) if cell.source.startswith("## ")]
    start = next(number for number in sections if nb.cells[number].source.startswith("## Exercises"))
    end = min((number for number in sections if number > start), default=len(nb.cells))
    intro = nbformat.v4.new_markdown_cell(f"# Exercises: {short_title(nb)}\n\n{claim}\n\n"
                                          f"The chapter: [{title}]({name}.ipynb).", id=f"{nb.cells[0].id[:50]}-title")
    cells = [cell for cell in nb.cells[start:end] if not _is_teachers(cell)]
    for cell in cells:
        if is_grade(cell):
            cell.source = fresh(cell.source)
    return _bare(nb, [intro, *setup, *cells], address, keep={"nbgrader"})


def _cleared(nb, preprocessor):
    return preprocessor.preprocess(copy.deepcopy(nb), {})[0]


def _stubs(nb):
    return _cleared(nb, ClearSolutions(code_stub={"python": TURN}))


def _is_teachers(cell):
    return "teacher" in cell.metadata.get("tags", [])


def _from_elsewhere(address, link):
    """Where a link to a file of the book's folder leads: a chapter to its notebook, a page, as built, to the site."""
    file, mark, place = link[1].partition("#")
    if file.endswith(".md"):
        owner, name = address.split("/")[-2:]
        return f"](https://{owner}.github.io/{name}/{file.removesuffix('.md')}.html{mark}{place})"
    return f"]({address}/blob/main/book/{link[1]})"


def _bare(nb, cells, address, keep=frozenset()):
    """Without outputs, without metadata but `keep`, and with links that hold outside the book's folder."""
    for cell in cells:
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key in keep})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = LOCAL_LINK.sub(partial(_from_elsewhere, address), cell.source)
    nb.cells = cells
    nb.metadata = nbformat.from_dict({key: nb.metadata[key] for key in nb.metadata if key in PLAIN})
    return nb
