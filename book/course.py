"""How does the book become a course? `make course` makes a folder that nbgrader understands.

    course/source/NAME/    the assignments, with solutions: a chapter's exercises
    course/release/NAME/   the same for students, made by nbgrader and registered in course/gradebook.db
    course/colab/          whole chapters without solutions, which need no nbgrader
    course/instructor/     whole chapters with solutions and teacher notes
    course/README.md, course/nbgrader_config.py

All is made in `course.new/` first and then moved into place, file by file. What a teacher has in `course/` beside
these files (submissions, grades, feedback, assignments of their own, an edited nbgrader_config.py) is never touched.
What a teacher has changed in `source/` and README.md goes to `course/yours/`: `.written.json` holds the SHA-256 of each
file as it was written.
"""
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import nbformat
import yaml
from address import AddressError, read_address
from execute import write
from notebooks import TURN, NotebookError, assignment, exercises, instructor, read, short_title, student
from program import end
from traitlets.config import Config

BOOK = Path(__file__).resolve().parent
COURSE = BOOK.parent / "course"
CONFIG = f'''"""nbgrader's settings for this course; yours to edit, `make course` keeps the file once it is there."""
import os

from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, DeduplicateIds, OverwriteCells, OverwriteKernelspec


class LastCopy(DeduplicateIds):
    """Of a cell that a student has copied the last one counts; the others become plain cells, and grading goes on."""

    def preprocess_cell(self, cell, resources, cell_index):
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        if cell.metadata.get("nbgrader") == {{}}:  # without this nbgrader takes the file for an old one, and ends
            del cell.metadata["nbgrader"]
        return cell, resources


c = get_config()  # noqa: F821, given by nbgrader
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
c.CourseDirectory.course_id = "lens-book"
c.ClearSolutions.code_stub = {{"python": {TURN!r}}}
c.Execute.timeout = 600  # seconds a cell may take when submissions are graded
c.OverwriteCells.add_missing_cells = True  # a check that a student has deleted is put back
c.Autograde.sanitize_preprocessors = [ClearOutput, LastCopy, OverwriteKernelspec, OverwriteCells, CheckCellMetadata]
'''
README = """# The course

Made by `make course` from the chapters' notebooks; run it again after changing one. Your submissions, grades and
settings in this folder stay; what you changed in `source/` or in this file is moved to `yours/`. All commands below run in this folder and in the book's environment
(`. ../.venv/bin/activate`).

| folder | for | what |
|---|---|---|
| `release/` | students | one assignment a chapter: its exercises, without solutions and hidden tests |
| `colab/` | students | whole chapters without solutions; upload to Colab or hand out, no nbgrader needed |
| `instructor/` | you | whole chapters with solutions, hidden tests and teacher notes |
| `source/` | nbgrader | the assignments with their solutions; add assignments of your own beside them |

## With nbgrader

1. **Release.** Hand out `release/NAME/NAME.ipynb`, or with nbgrader's exchange: `nbgrader release_assignment NAME`.
   The assignments are registered in `gradebook.db` already.
2. **Collect.** Put what comes back at `submitted/STUDENT/NAME/NAME.ipynb`, or `nbgrader collect NAME`.
3. **Grade.** `nbgrader autograde NAME`. It puts back the hidden tests, runs each notebook and writes the points to
   `gradebook.db`. A check that passes gives all its points, one that fails none. (nbgrader warns of changed checksums,
   which are the hidden tests put back, and of outputs that are no number, where it looks for partial credit.) A check
   that a student deleted is put back, and of a copied cell the last one counts. Who deleted an answer together with its
   check is left ungraded, with a KeyError that names it: put the cells back from `release/`, and grade again. (A
   `nbgrader_config.py` from an earlier `make course` lacks this: move it away and run `make course` for a new one.)
4. **Give back.** `nbgrader generate_feedback NAME`, then `feedback/STUDENT/NAME/NAME.html`; `nbgrader export` writes
   all points to a table. `nbgrader formgrader` does the same in a browser.

Autograding runs your students' code with your rights: do it in an account or a container that has nothing to lose. The
hidden tests load the checks anew from the installed lens, and compare their sum with that of `make course`; after an
update of lens run `make course` again. Code in the same process can still change torch or Python itself.

## Every student their own facts

Where a notebook has a cell `STUDENT = ""`, a name or number put there chooses the facts of its exercises: the same name
gives the same facts everywhere, another name others, upper and lower case count as one. Ask your students to put in the
name that you know them by. It is stored in the notebook that they submit, so grading uses the facts that they saw; an
environment variable would not do, since grading runs in yours. An empty name gives the book's own variant.

## Points

{points}
"""


class CourseError(Exception):
    """One sentence: why the course could not be made, and what to do."""


def chapters(book=BOOK):
    """{name: notebook} of the chapters in the order of the table of contents, checked."""
    toc = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    names = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return {name: read(book / f"{name}.ipynb") for name in names if (book / f"{name}.ipynb").exists()}


def points_table(notebooks, address=""):
    """All exercises as a Markdown table; links lead to `address`, or stay in the book's folder."""
    rows = ["| chapter | exercise | difficulty | minutes | points |", "|---|---|---|---|---|"]
    minutes = points = 0
    for name, nb in notebooks.items():
        for number, exercise in enumerate(exercises(nb)):
            link = f"[{short_title(nb)}]({address}{name}.ipynb)" if number == 0 else ""
            rows.append(f"| {link} | {exercise.number}. {exercise.title} | {exercise.dots} | {exercise.minutes} "
                        f"| {exercise.points:g} |")
            minutes, points = minutes + exercise.minutes, points + exercise.points
    return "\n".join([*rows, f"| **all** | | | **{minutes}** | **{points:g}** |"])


def make(course=COURSE, book=BOOK):
    """Make or renew the folder `course`; returns the names of its assignments."""
    address, notebooks = read_address(), chapters(book)
    graded = [name for name, nb in notebooks.items() if exercises(nb)]
    if not graded:
        raise CourseError("no chapter has a section '## Exercises' with exercises, so there is nothing to release.")
    new = course.with_name(course.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    for name, nb in notebooks.items():
        _write(new / "colab" / f"{name}.ipynb", student(nb, address))
        _write(new / "instructor" / f"{name}.ipynb", instructor(nb, address))
        if name in graded:
            _write(new / "source" / name / f"{name}.ipynb", assignment(nb, name, address))
    points = points_table(notebooks, f"{address}/blob/main/book/")
    (new / "README.md").write_text(README.format(points=points), encoding="utf-8")
    course.mkdir(exist_ok=True)
    _release(new, course / "gradebook.db", graded)
    if not (course / "nbgrader_config.py").exists():
        (new / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    record = course / ".written.json"
    written = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for path in sorted(path for path in new.rglob("*") if path.is_file()):
        name = path.relative_to(new).as_posix()
        place, theirs = course / name, course / "yours" / name
        if place.exists() and name.startswith(("source/", "README")) and written.get(name, _sum(place)) != _sum(place):
            theirs.parent.mkdir(parents=True, exist_ok=True)
            os.replace(place, theirs)
            print(f"{name} was changed by you: your version is now {theirs}.")
        place.parent.mkdir(parents=True, exist_ok=True)
        written[name] = _sum(path)
        os.replace(path, place)
        write(record, json.dumps(written, indent=1))
    shutil.rmtree(new)
    return graded


def _sum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path, notebook):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def _release(folder, gradebook, names):
    """nbgrader's own generate_assignment for each: students' versions in `folder`, cells and points in `gradebook`."""
    # Here and not above, so that notebooks.py is first to say that nbgrader is missing.
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory

    said = StringIO()
    log = logging.getLogger("lens.course")  # nbgrader says what went wrong in its log only, after much else
    log.propagate, log.handlers = False, [logging.StreamHandler(said)]
    log.setLevel(logging.ERROR)
    config = Config()
    config.ClearSolutions.code_stub = {"python": TURN}
    # nbgrader stamps a new gradebook with the program `alembic`, which lies beside this Python, maybe not on PATH.
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    for name in names:
        where = CourseDirectory(root=str(folder), db_url=f"sqlite:///{gradebook}", course_id="lens-book",
                                assignment_id=name, log=log)
        try:
            GenerateAssignment(coursedir=where, config=config, log=log).start()
        except Exception as error:  # whatever nbgrader, its converters or the gradebook's database raise
            reasons = re.findall(r"(?m)^[\w.]+(?:Error|Exception|Exit)\b.*", said.getvalue()) or [str(error)]
            raise CourseError(f"nbgrader could not prepare the assignment {name}: {reasons[0].rstrip('.')}; if "
                              "exercises came or went since students handed in, finish grading first, then move "
                              "course/gradebook.db away.") from error


def main():
    """Make the course; what it answers is for `end`."""
    try:
        names = make()
    except OSError as error:
        raise CourseError(f"the folder course could not be written: {error}.") from error
    return f"{len(names)} assignments are ready: {COURSE / 'README.md'} says how to use them."


if __name__ == "__main__":
    sys.exit(end(main, AddressError, CourseError, NotebookError))
