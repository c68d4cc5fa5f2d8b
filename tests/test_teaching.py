"""Do the teaching notes hold: is every chapter in the graph, in order, do the hours add up, does every table build?"""
import copy
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("nbgrader")
BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))

import course  # noqa: E402
import graph  # noqa: E402
from notebooks import NotebookError, exercises  # noqa: E402

CHAPTERS = course.chapters()
NOTES = (BOOK / "teaching.md").read_text(encoding="utf-8")
SYLLABI = dict(re.findall(r"(?ms)^### (One lecture|One week|Half a term)\n(.*?)(?=^##)", NOTES))


@pytest.fixture
def changed():
    """The chapters, with a row *Needed* that a test may rewrite."""
    chapters = copy.deepcopy(CHAPTERS)

    def needs(name, text):
        cell = chapters[name].cells[0]
        cell.source = re.sub(r"(?m)^\| Needed \|.*$", f"| Needed | {text} |", cell.source)
        return chapters
    return needs


def svg(chapters):
    """The drawing as XML, which also says that it is well-formed."""
    return ElementTree.fromstring(graph.draw(chapters))


def rows(syllabus):
    """(number in the second column, chapters) of each row, and the total that the table states."""
    lines = [line.strip("|") for line in syllabus.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    number = 0 if cells[0][0] == "minutes" else 1
    taught = [(float(row[number]), re.findall(r"\((\w+)\.ipynb\)", " ".join(row))) for row in cells[2:-1]]
    return taught, float(cells[-1][number].strip("*"))


# The graph

def test_every_chapter_has_a_box_with_a_link_and_every_need_an_arrow_or_a_path():
    drawn = svg(CHAPTERS)
    assert {link.get("href") for link in drawn.iter("a")} == {f"{name}.html" for name in CHAPTERS}
    needed, arrows = graph.needed(CHAPTERS), graph.arrows(graph.needed(CHAPTERS))
    assert len([path for path in drawn.iter("path") if path.get("class") == "arrow"]) == len(arrows)
    reached = {name: {name} for name in CHAPTERS}
    for _ in CHAPTERS:
        for before, after in arrows:
            reached[after] |= reached[before]
    assert all(set(before) <= reached[name] for name, before in needed.items())
    assert all(before in needed[after] for before, after in arrows), "an arrow that no header table asks for"


def test_arrows_lead_down_and_boxes_do_not_overlap():
    spots, needed = graph.place(graph.needed(CHAPTERS)), graph.needed(CHAPTERS)
    assert all(spots[other][1] < spots[name][1] for name in needed for other in needed[name])
    for level in {row for _, row in spots.values()}:
        columns = sorted(column for column, row in spots.values() if row == level)
        assert all(right - left > 0.999 for left, right in zip(columns, columns[1:]))


def test_the_table_of_contents_never_puts_a_chapter_before_one_that_it_needs():
    order = list(CHAPTERS)
    for name, before in graph.needed(CHAPTERS).items():
        assert all(order.index(other) < order.index(name) for other in before), name


def test_chapters_that_need_each_other_in_a_circle_are_named(changed):
    first = next(iter(CHAPTERS))
    last = next(name for name, before in graph.needed(CHAPTERS).items() if first in before)
    with pytest.raises(NotebookError, match=rf"in a circle: .*{first}"):
        graph.draw(changed(first, f"[this]({last}.ipynb)"))


def test_a_need_that_is_no_chapter_is_named(changed):
    with pytest.raises(NotebookError, match="low_rank.ipynb says that it needs algebra.ipynb"):
        graph.draw(changed("low_rank", "[algebra](algebra.ipynb)"))


def test_titles_with_signs_of_markup_stay_text():
    chapters = copy.deepcopy(CHAPTERS)
    chapters["low_rank"].cells[0].source = "# Rank < 2 & more: x\n\nClaim."
    assert "Rank < 2 & more" in " ".join(" ".join(text.itertext()) for text in svg(chapters).iter("text"))


def test_the_table_beside_the_graph_says_the_same():
    table = graph.table(CHAPTERS).splitlines()[2:]
    needed = graph.needed(CHAPTERS)
    for name, row in zip(CHAPTERS, table):
        _, own, needs, _, _ = row.split("|")
        assert f"({name}.ipynb)" in own and re.findall(r"\((\w+)\.ipynb\)", needs) == needed[name]


# The syllabi and the other tables

@pytest.mark.parametrize("name, hours", [("One lecture", 1.5), ("One week", 15), ("Half a term", 28)])
def test_the_hours_of_a_syllabus_add_up_to_its_total(name, hours):
    taught, total = rows(SYLLABI[name])
    assert sum(length for length, _ in taught) == total == (hours * 60 if name == "One lecture" else hours)


@pytest.mark.parametrize("name", SYLLABI)
def test_a_syllabus_names_existing_chapters_and_never_one_before_what_it_needs(name):
    order = [chapter for _, chapters in rows(SYLLABI[name])[0] for chapter in chapters]
    assert set(order) <= set(CHAPTERS) and len(order) == len(set(order))
    needed = graph.needed(CHAPTERS)
    for number, chapter in enumerate(order):
        missing = set(needed[chapter]) - set(order[:number])
        assert not missing & set(order), f"{chapter} comes before {missing}"
        assert name == "One lecture" or not missing, f"{chapter} needs {missing}, which is not taught"


def test_a_chapter_that_half_a_term_leaves_out_is_named_as_a_project():
    taught = {chapter for _, chapters in rows(SYLLABI["Half a term"])[0] for chapter in chapters}
    for name in set(CHAPTERS) - taught:
        assert f"({name}.ipynb)" in SYLLABI["Half a term"].rsplit("**total**", 1)[1], name


def test_ten_exam_questions_each_have_one_folded_answer():
    section = NOTES.split("## Exam questions")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^\*\*(\d+)\.", section) == [str(number) for number in range(1, 11)]
    assert section.count("<details><summary>Answer</summary>") == section.count("</details>") == 10


def test_the_table_of_exercises_has_a_row_for_each_and_their_sums():
    table = course.points_table(CHAPTERS).splitlines()
    found = [exercise for nb in CHAPTERS.values() for exercise in exercises(nb)]
    assert len(table) == len(found) + 3
    assert table[-1].endswith(f"| **{sum(e.minutes for e in found)}** | **{sum(e.points for e in found):g}** |")
    assert all(f" {e.number}. {e.title} | {e.dots} | {e.minutes} | {e.points:g} |" in "\n".join(table) for e in found)


def test_every_marker_of_the_page_is_one_that_the_build_fills():
    build = (BOOK / "build.py").read_text(encoding="utf-8")
    markers = re.findall(r"<!-- [\w ]+ -->", NOTES)
    assert len(markers) == 3 and all(marker in build for marker in markers)
