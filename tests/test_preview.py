"""Can the first finished chapter be read while others run: a page of its own, without network, solutions hidden?"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader")
BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))

import execute  # noqa: E402
import notebooks  # noqa: E402
import preview  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executed():
    """A chapter as if it had run: one output, a figure's place, the rest as written."""
    notebook = notebooks.read(BOOK / "low_rank.ipynb")
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("stream", text="what the cell said\n")]
    return notebook


def test_a_page_shows_prose_output_and_formulas_and_asks_for_nothing(executed, visit, tmp_path):
    page = visit(preview.write(executed, tmp_path / "first.html"))
    page.wait_for_selector("mjx-container", timeout=60_000)
    text = page.inner_text("body")
    assert "Gradients are low-rank" in text and "what the cell said" in text
    solution = next(cell for cell in executed.cells if "### BEGIN SOLUTION" in cell.source)
    hidden = solution.source.split("### BEGIN SOLUTION")[1].strip().splitlines()[0]
    assert hidden not in text and "For teachers" not in text and "HIDDEN TESTS" not in text
    assert page.locator("a[href$='.ipynb'], a[href*='.md']").count() == 0, "a link to a page that is not built yet"


def test_the_build_names_the_first_chapter_once_and_only_while_others_run(executed, monkeypatch, capsys, tmp_path):
    async def run(chapter, *_):
        return executed

    def build(wanted):
        with ThreadPoolExecutor(1) as own:  # the browser of another test may hold this thread's loop
            own.submit(asyncio.run, execute.run_all(wanted, execute.MINI)).result()

    monkeypatch.setattr(execute, "run", run)
    monkeypatch.setattr(execute, "folder_of", lambda model: tmp_path)
    monkeypatch.setattr(execute.preview, "write", lambda notebook, path: path)
    build(dict.fromkeys(("logit_lens", "low_rank", "overlap"), ""))
    said = [line for line in capsys.readouterr().out.splitlines() if "to read while the others run" in line]
    assert said == [f"  to read while the others run: {(tmp_path / 'first.html').as_uri()}"]
    build({"logit_lens": ""})
    assert "to read" not in capsys.readouterr().out
