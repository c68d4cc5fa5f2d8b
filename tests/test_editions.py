"""Is an edition the same book on another model, and does a chapter that does not run on it say so?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("*.ipynb"))


@pytest.fixture
def execute(monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK))
    import execute

    yield execute
    sys.modules.pop("execute")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_takes_its_model_from_one_cell(execute, chapter):
    source = nbformat.read(BOOK / f"{chapter}.ipynb", 4)
    other = execute.on("some/model", nbformat.read(BOOK / f"{chapter}.ipynb", 4))
    changed = [(a, b) for a, b in zip(source.cells, other.cells) if a != b]
    assert len(changed) == 1 and changed[0][1].source.endswith("MODEL = 'some/model'")
    assert execute.on("mini", source) == nbformat.read(BOOK / f"{chapter}.ipynb", 4)


def test_an_edition_has_folders_and_keys_of_its_own_and_ignores_what_it_claims_itself(execute, monkeypatch, tmp_path):
    path = BOOK / f"{CHAPTERS[0]}.ipynb"
    assert execute.key(path) != execute.key(path, "smollm2-135m")
    assert execute.folder_of("a/b") == execute.BUILD / "editions" / "a--b" and execute.folder_of() == execute.BUILD
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    notebook = tmp_path / "chapter.ipynb"
    notebook.write_text("{}")
    monkeypatch.setattr(execute, "BOOK", tmp_path)
    listed = {"claims/mini.json": {"sha256": "1"}, "claims/smollm2-135m.json": {"sha256": "2"}, "rest": {}}
    (tmp_path / "data").mkdir()
    keys = []
    for change in ({}, {"claims/mini.json": {"sha256": "3"}}, {"claims/smollm2-135m.json": {"sha256": "4"}}):
        (tmp_path / "data" / "MANIFEST.json").write_text(json.dumps(listed | change))
        keys.append((execute.key(notebook), execute.key(notebook, "smollm2-135m")))
    (mini, real), (mini_1, real_1), (mini_2, real_2) = keys
    assert mini == mini_1 != mini_2 and real != real_1 and real == real_2


def test_what_stays_with_the_book_runs_on_mini_in_every_edition(execute, monkeypatch):
    ran = []
    monkeypatch.setattr(
        execute,
        "execute_some",
        lambda names, force, model="mini": ran.append((tuple(names), model)) or {n: (model, False) for n in names},
    )
    done = execute.execute_all(CHAPTERS, model="smollm2-135m")
    assert list(done) == CHAPTERS and {n for n in CHAPTERS if done[n][0] == "mini"} == set(execute.STAY)
    assert len(ran) == 2 and {model for model, _ in execute.execute_all(CHAPTERS).values()} == {"mini"}


def test_a_build_folder_that_cannot_be_written_is_a_sentence(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BOOK))
    import build

    def denied(*_):
        raise PermissionError(13, "Permission denied", "book/_build")

    monkeypatch.setattr(build, "build", denied)
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)  # which main makes spell out what a code page lacks
    assert build.main([]) == 1
    said = capsys.readouterr().err
    assert "lens: book/_build could not be written (Permission denied): make it writable" in said and "Trace" not in said
