"""Does `make course` make what it says: versions that hide what they must, just grades, a folder that keeps work?

Two chapters are graded with nbgrader; with ``LENS_GRADE_ALL=1``, all of them:
``LENS_GRADE_ALL=1 .venv/bin/python -m pytest tests/test_course.py -k full_marks`` (minutes).
"""
import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")
BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))

import course  # noqa: E402
import grading  # noqa: E402
import notebooks  # noqa: E402
from nbgrader.api import Gradebook  # noqa: E402
from nbgrader.converters import Autograde  # noqa: E402
from nbgrader.coursedir import CourseDirectory  # noqa: E402
from nbgrader.utils import is_grade, is_solution  # noqa: E402
from traitlets.config.loader import PyFileConfigLoader  # noqa: E402

CHAPTERS = course.chapters()
GRADED = [name for name, nb in CHAPTERS.items() if notebooks.exercises(nb)]
each_graded = pytest.mark.parametrize("name", GRADED)
pytestmark = pytest.mark.slow
# Runs the code of each notebook in a namespace of its own and says what every graded cell showed, or which error came.
RUN = """
import json, sys, nbformat
from IPython.core.interactiveshell import InteractiveShell
shown = {}
for path in sys.argv[1:]:
    shell, shown[path] = InteractiveShell(), {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            done = shell.run_cell(cell.source)
            error = done.error_before_exec or done.error_in_exec
            if error or cell.metadata.get("nbgrader", {}).get("grade"):
                shown[path][cell.metadata.get("nbgrader", {}).get("grade_id", cell.source)] = repr(error or done.result)
print("SHOWN" + json.dumps(shown))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A course folder as `make course` leaves it."""
    folder = tmp_path_factory.mktemp("teacher") / "course"
    assert course.make(folder) == GRADED
    return folder


def load(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def text(nb):
    return "\n".join(cell.source for cell in nb.cells)


def solutions(nb):
    return {cell.metadata.nbgrader.grade_id: cell.source for cell in nb.cells if is_solution(cell)}


def turned(source):
    """A solution cell with each region replaced, told independently of nbgrader."""
    return re.sub(r"([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION", r"\1...  # your turn", source, flags=re.DOTALL)


# What each version shows and hides

@each_graded
def test_a_student_sees_neither_solutions_nor_hidden_tests_nor_teacher_notes(name, made):
    wanted = {key: turned(source) for key, source in solutions(CHAPTERS[name]).items()}
    assert solutions(load(made / "release" / name / f"{name}.ipynb")) == wanted
    whole = load(made / "colab" / f"{name}.ipynb")
    assert set(wanted.values()) <= {cell.source for cell in whole.cells}
    for notebook in (whole, load(made / "release" / name / f"{name}.ipynb")):
        assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|\.require\(|For teachers", text(notebook))
        assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
        assert not any(cell.metadata.get("jupyter") or cell.metadata.get("tags") for cell in notebook.cells)


@each_graded
def test_the_teacher_sees_everything_unfolded(name, made):
    notebook = load(made / "instructor" / f"{name}.ipynb")
    folded = [cell.source.removeprefix(notebooks.FOLD) for cell in notebook.cells if cell.metadata == {"cellView": "form"}]
    assert folded == list(solutions(CHAPTERS[name]).values()), "Colab shows a title in the place of a solution"
    notes = sum("teacher" in cell.metadata.get("tags", []) for cell in CHAPTERS[name].cells)
    assert text(notebook).count("**For teachers.**") == notes and "<summary>For teachers" not in text(notebook)


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebooks_for_colab_need_no_nbgrader_and_no_other_file(name, made):
    notebook = load(made / "colab" / f"{name}.ipynb")
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert not re.search(r"\]\((?!https?:|#)[^)]*\.(ipynb|md)", text(notebook)), "a link to a file that is not there"
    assert "lens.setup(MODEL, seed=0)" in text(notebook)
    assert "github.io/lens-book/status.html" in text(notebook), "a page that the build fills is read where it is built"


def test_a_page_goes_from_exercise_to_starting_point_to_folded_solution_to_check():
    chapter, before = CHAPTERS["low_rank"], copy.deepcopy(CHAPTERS["low_rank"])
    page = notebooks.page(chapter, download="x.ipynb")
    assert chapter == before, "the source was changed"
    nbformat.validate(page)
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|\.require\(", text(page))
    assert text(page).count("**Starting point**") == len(solutions(before)) and "For teachers" in text(page)
    number = next(i for i, cell in enumerate(page.cells) if is_solution(cell))
    start, solution, check = page.cells[number - 1:number + 2]
    assert notebooks.TURN in start.source and start.cell_type == "markdown"
    assert "hide-input" in solution.metadata.tags and notebooks.TURN not in solution.source
    assert is_grade(check) and check.source.startswith("lens.check.low_rank")
    assert '<a href="x.ipynb">' in page.cells[0].source


@pytest.mark.parametrize("cell, old, new, sentence", [
    ("by_hand", "### END SOLUTION", "", "must come in pairs, and here are BEGIN"),
    ("by_hand", "### BEGIN SOLUTION", "", "must come in pairs, and here are END"),
    ("by_hand-check", "### END HIDDEN TESTS", "### BEGIN HIDDEN TESTS", "in pairs, and here are BEGIN, BEGIN"),
    ("cosine", "", "", "of an earlier cell"), ("gradient", "", "", "do not call it a solution cell"),
])
def test_a_notebook_out_of_order_is_told_which_cell_and_what_to_do(cell, old, new, sentence, tmp_path):
    chapter = copy.deepcopy(CHAPTERS["low_rank"])
    broken = next(c for c in chapter.cells if c.metadata.get("nbgrader", {}).get("grade_id") == cell)
    broken.source = broken.source.replace(old, new)
    if cell == "cosine":
        broken.metadata.nbgrader.grade_id = "by_hand"
    if cell == "gradient":
        broken.metadata.nbgrader.solution = False
    nbformat.write(chapter, tmp_path / "low_rank.ipynb")
    with pytest.raises(notebooks.NotebookError, match=rf"^low_rank.ipynb, cell \d+: .*{sentence}"):
        notebooks.read(tmp_path / "low_rank.ipynb")


@each_graded
def test_exercises_are_three_to_five_and_every_one_has_points(name):
    found = notebooks.exercises(CHAPTERS[name])
    assert [exercise.number for exercise in found] == list(range(1, len(found) + 1)) and 3 <= len(found) <= 5
    assert all(exercise.points > 0 and 1 <= exercise.difficulty <= 3 and exercise.minutes >= 5 for exercise in found)


def test_without_nbgrader_one_sentence_says_what_to_do():
    done = subprocess.run([sys.executable, "-c", "import sys; sys.modules['nbgrader'] = None; import course"], cwd=BOOK,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"lens: nbgrader is missing.*`make course`.*\.\n", done.stderr), done.stderr


# What students run, and what they get for it

@pytest.mark.long
def test_untouched_exercises_run_to_the_end_and_every_check_says_your_turn(made):
    paths = [str(made / "release" / name / f"{name}.ipynb") for name in GRADED]
    done = subprocess.run([sys.executable, "-c", RUN, *paths], capture_output=True, text=True, cwd=made)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.rsplit("SHOWN", 1)[1])
    for name, path in zip(GRADED, paths):
        checks = {cell.metadata.nbgrader.grade_id for cell in CHAPTERS[name].cells if is_grade(cell)}
        assert set(shown[path]) == checks, shown[path]
        assert all(verdict.startswith("… Your turn") for verdict in shown[path].values()), shown[path]


def submit(made, name, who, solved, student="", change=lambda cells, place: None):
    """Hand in the release of a chapter with these solutions filled in; nbgrader's points for it."""
    notebook = load(made / "release" / name / f"{name}.ipynb")
    right = solutions(CHAPTERS[name])
    for cell in notebook.cells:
        if is_solution(cell) and cell.metadata.nbgrader.grade_id in solved:
            cell.source = notebooks.MARKER.sub("", right[cell.metadata.nbgrader.grade_id])
        cell.source = cell.source.replace('STUDENT = ""', f'STUDENT = "{student}"')
    change(notebook.cells, {c.metadata.nbgrader.grade_id: n for n, c in enumerate(notebook.cells) if c.metadata.get("nbgrader")})
    path = made / "submitted" / who / name / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    config = PyFileConfigLoader("nbgrader_config.py", path=str(made)).load_config()
    where = CourseDirectory(config=config, assignment_id=name, student_id=who)
    Autograde(coursedir=where, config=config).start()
    with Gradebook(where.db_url) as book:
        graded = book.find_submission(name, who)
        return graded.score, graded.max_score


@pytest.mark.long
@pytest.mark.parametrize("name", GRADED if os.environ.get("LENS_GRADE_ALL") else ["low_rank", "logit_lens"])
def test_a_correct_submission_gets_full_marks_with_facts_of_its_own(name, made):
    total = sum(exercise.points for exercise in notebooks.exercises(CHAPTERS[name]))
    assert submit(made, name, "ada", solutions(CHAPTERS[name]), student="Ada") == (total, total)


def test_an_untouched_submission_gets_nothing_and_half_a_submission_its_half(made):
    total = sum(exercise.points for exercise in notebooks.exercises(CHAPTERS["low_rank"]))
    assert submit(made, "low_rank", "empty", []) == (0, total)
    first, _, third, *_ = notebooks.exercises(CHAPTERS["low_rank"])
    assert submit(made, "low_rank", "half", ["by_hand", "gradient"]) == (first.points + third.points, total)


PATCHED = """
import sys, lens
for kind in (lens.check.Function, lens.check.Value, lens.check.Claims):
    kind.__call__ = lambda self, *_: lens.check.Verdict(True, "Right.")
lens.check.Verdict.require = lambda self: None
"""


@pytest.mark.long
def test_a_submission_that_changes_the_checks_gets_no_point_for_it(made):
    total = sum(exercise.points for exercise in notebooks.exercises(CHAPTERS["low_rank"]))

    def change(cells, place):
        cells[place["by_hand"]].source += PATCHED

    assert submit(made, "low_rank", "sly", [], change=change) == (0, total)
    assert submit(made, "low_rank", "sly-and-right", solutions(CHAPTERS["low_rank"]), change=change) == (total, total)


@pytest.fixture
def checks():
    """The modules of the checks, which are the same again after the test."""
    lens = pytest.importorskip("lens")

    def loaded():
        return {name: module for name, module in sys.modules.items() if name.startswith("lens.course.check")}

    kept, package = loaded(), lens.check
    yield kept
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(kept)
    sys.modules["lens.course"].check = package


def test_a_hidden_test_tells_that_the_checks_are_not_those_of_the_course(checks):
    import lens

    cell = grading.fresh("### BEGIN HIDDEN TESTS\nlens.check.low_rank.by_hand(None).require()\n### END HIDDEN TESTS")
    for name in checks:
        sys.modules[name] = None  # as a student's code may do
    with pytest.raises(AssertionError, match="Your turn"):
        exec(cell, {"lens": lens})
    with pytest.raises(RuntimeError, match="not those that this course was made with: install"):
        exec(re.sub(r'"[0-9a-f]{64}"', '"0"', cell), {})


@pytest.mark.long
@pytest.mark.parametrize("change", [
    lambda cells, place: cells.pop(place["by_hand-check"]),
    lambda cells, place: cells.insert(place["by_hand"], nbformat.from_dict({**cells[place["by_hand"]], "id": "again"})),
], ids=["a deleted check", "a copied answer"])
def test_cells_that_a_student_deleted_or_copied_cost_no_point(made, change, request):
    total = sum(exercise.points for exercise in notebooks.exercises(CHAPTERS["low_rank"]))
    who = request.node.callspec.id.replace(" ", "-")
    assert submit(made, "low_rank", who, solutions(CHAPTERS["low_rank"]), change=change) == (total, total)


def test_two_students_get_different_facts_and_the_same_student_the_same():
    check = pytest.importorskip("lens").check
    facts = {name: check.student(name).records(3) for name in ("", "ada", "bob", "1234567", "1234568")}
    assert len({json.dumps(records) for records in facts.values()}) == len(facts)
    assert check.student(" Ada ").records(3) == facts["ada"]


@each_graded
def test_facts_of_their_own_come_from_a_name_that_is_stored_in_the_notebook(name):
    code = "\n".join(cell.source for cell in CHAPTERS[name].cells if cell.cell_type == "code")
    if re.search(r"\bme\.", code):
        assert 'STUDENT = ""' in code, "me is used, but nobody can say who they are"
    assert "environ[" not in code and "getenv" not in code, "grading runs in the teacher's environment"


# A folder that a teacher works in

def test_what_a_teacher_has_in_the_folder_survives_a_second_make(made):
    own = {made / "submitted" / "bob" / "low_rank" / "low_rank.ipynb": "theirs",
           made / "autograded" / "bob" / "x.ipynb": "1", made / "feedback" / "bob" / "x.html": "<p>",
           made / "source" / "my_exam" / "my_exam.ipynb": "{}",
           made / "nbgrader_config.py": (made / "nbgrader_config.py").read_text() + "\n# mine\n"}
    for path, content in own.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with Gradebook(f"sqlite:///{made / 'gradebook.db'}") as book:
        book.update_or_create_student("carol", email="carol@example.org")
    (made / "colab" / "low_rank.ipynb").unlink()
    course.make(made)
    assert {path: path.read_text() for path in own} == own
    with Gradebook(f"sqlite:///{made / 'gradebook.db'}") as book:
        assert book.find_student("carol").email == "carol@example.org"
    assert (made / "colab" / "low_rank.ipynb").exists() and not made.with_name("course.new").exists()


def test_an_assignment_that_a_teacher_changed_is_put_aside_and_said(made, capsys):
    theirs = made / "source" / "low_rank" / "low_rank.ipynb"
    theirs.write_text("my version", encoding="utf-8")
    course.make(made)
    assert (made / "yours" / "source" / "low_rank" / "low_rank.ipynb").read_text(encoding="utf-8") == "my version"
    assert "nbformat" in theirs.read_text(encoding="utf-8")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["source/low_rank/low_rank.ipynb"]


def test_exercises_that_vanish_under_students_who_handed_in_are_refused_and_nothing_is_lost(made, monkeypatch):
    def files():
        return {path: path.read_bytes() for path in made.rglob("*") if path.is_file() and path.suffix != ".db"}
    with Gradebook(f"sqlite:///{made / 'gradebook.db'}") as book:
        book.update_or_create_student("dave")
        book.update_or_create_submission("low_rank", "dave")
    before, fewer = files(), {"low_rank": copy.deepcopy(CHAPTERS["low_rank"])}
    cells = fewer["low_rank"].cells
    cells.remove(next(cell for cell in cells if is_grade(cell)))
    monkeypatch.setattr(course, "chapters", lambda book: fewer)
    with pytest.raises(course.CourseError, match="low_rank: RuntimeError: Cannot add or remove cells.* finish grading"):
        course.make(made)
    assert files() == before


def test_the_course_says_how_many_points_there_are(made):
    total = sum(exercise.points for name in GRADED for exercise in notebooks.exercises(CHAPTERS[name]))
    table = (made / "README.md").read_text(encoding="utf-8")
    assert f"**{total:g}** |" in table and all(f"/{name}.ipynb)" in table for name in GRADED)
