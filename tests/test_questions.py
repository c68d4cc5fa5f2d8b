"""Does every chapter ask two or three questions, each with one right option and a reason for all, in page and notebook?"""

import copy
import sys
from pathlib import Path

import nbformat
import pytest

import lens

pytest.importorskip("nbgrader")
BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))

import notebooks  # noqa: E402
import questions  # noqa: E402

CHAPTERS = {name: notebooks.read(BOOK / f"{name}.ipynb") for name in lens.check.CHAPTERS}
each = pytest.mark.parametrize("name", CHAPTERS)


def of(notebook):
    (cell,) = (cell for cell in notebook.cells if questions.is_questions(cell))
    return cell


@each
def test_a_chapter_ends_its_main_part_with_questions_of_one_right_option_and_a_reason_each(name):
    cells = CHAPTERS[name].cells
    place = cells.index(of(CHAPTERS[name]))
    assert cells[place].source.startswith("## Questions\n") and cells[place + 1].source.startswith("## Exercises")
    asked = questions.parse(cells[place].source)
    assert 2 <= len(asked) <= 3 and cells[place].source.count("<details") == sum(len(one.options) for one in asked)
    for one in asked:
        assert one.text.endswith("?") or one.text.endswith("."), one.text
        assert len(one.options) == 3 and all(len(reason.split()) >= 3 for _, _, reason in one.options)
        assert all("`" not in text and "$" not in text for text, _, _ in one.options), "a summary is shown as it is typed"
    assert len({[right for _, right, _ in one.options].index(True) for one in asked}) > 1, "always the same place"


@each
def test_a_teacher_sees_all_reasons_unfolded_and_a_student_folded(name):
    teacher = notebooks.instructor(CHAPTERS[name], "https://github.com/a/b")
    student = notebooks.student(CHAPTERS[name], "https://github.com/a/b")
    shown = next(cell.source for cell in teacher.cells if cell.source.startswith("## Questions"))
    source = of(CHAPTERS[name]).source
    assert "<details" not in shown and source in [cell.source for cell in student.cells]
    for one in questions.parse(source):
        for text, right, reason in one.options:
            assert f"- *{text}* **{'Right' if right else 'No'}.** {reason}" in shown


@pytest.mark.parametrize("old, new, told", [
    ("**Right.**", "**No.**", "of which one is"), ("**No.**", "**Right.**", "of which one is"),
    ("**No.** ", "", "a reason"), ("</summary>\n\n", "</summary>\n", "an empty line"),
    ("**1. ", "**1) ", "belong to no question"),
])  # fmt: skip
def test_questions_out_of_order_are_refused_with_their_cell(old, new, told, tmp_path):
    broken = copy.deepcopy(CHAPTERS["low_rank"])
    of(broken).source = of(broken).source.replace(old, new, 1)
    nbformat.write(broken, tmp_path / "low_rank.ipynb")
    with pytest.raises(notebooks.NotebookError, match=rf"^low_rank.ipynb, cell \d+: .*{told}"):
        notebooks.read(tmp_path / "low_rank.ipynb")


PAGE = """<!DOCTYPE html><html lang="en"><head><title>Questions</title><script>{script}</script></head><body><main>
<section id="questions"><h2>Questions</h2>
<p><strong>1. One?</strong></p>
<details><summary>a</summary><p><strong>No.</strong> So.</p></details>
<details><summary>b</summary><p><strong>Right.</strong> So.</p></details>
<p><strong>2. Two?</strong></p>
<details><summary>c</summary><p><strong>Right.</strong> So.</p></details>
<details><summary>d</summary><p><strong>No.</strong> So.</p></details>
</section></main></body></html>"""


@pytest.mark.slow
def test_a_page_counts_first_choices_by_keyboard_and_keeps_them_in_the_browser_only(visit):
    page = visit(PAGE.replace("{script}", (BOOK / "_static" / "questions.js").read_text(encoding="utf-8")))
    status, again = page.get_by_role("status"), page.get_by_role("button", name="Start over")
    assert status.inner_text() == "" and again.is_hidden()
    page.get_by_text("a", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('[role=status]').textContent")
    assert status.inner_text().startswith("First choices: 0 right of 1, of 2 questions.")
    page.get_by_text("b", exact=True).click()  # a second choice opens its reason and does not count
    page.get_by_text("c", exact=True).click()
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('1 right of 2')")
    assert page.locator("details[open].right-option").count() == 2 and page.get_by_text("So.").first.is_visible()
    page.reload()
    assert status.inner_text().startswith("First choices: 1 right of 2, of 2 questions.")
    again.click()
    assert status.inner_text() == "" and page.locator("details[open]").count() == 0
    page.reload()
    assert status.inner_text() == ""
