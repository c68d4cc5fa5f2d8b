"""Does `make lab` give a reader the chapters to work in, and never take back what they wrote?"""
import json
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK))
    import lab

    return lab


def test_every_chapter_is_there_without_solutions_and_hidden_tests(lab, tmp_path):
    assert lab.prepare(tmp_path) == []
    chapters = {path.stem for path in BOOK.glob("*.ipynb")}
    assert {path.stem for path in tmp_path.glob("*.ipynb")} == chapters
    text = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.ipynb"))
    assert "# your turn" in text and "SOLUTION" not in text and "HIDDEN" not in text


def test_what_a_reader_changed_is_kept_and_the_rest_is_renewed(lab, tmp_path):
    lab.prepare(tmp_path)
    mine, gone, old = (tmp_path / f"{name}.ipynb" for name in ("low_rank", "arena", "anatomy"))
    mine.write_text("mine", encoding="utf-8")
    gone.unlink()
    old.write_text("an earlier version", encoding="utf-8")
    record = tmp_path / ".written.json"
    written = json.loads(record.read_text(encoding="utf-8")) | {"anatomy": lab._sum(b"an earlier version")}
    record.write_text(json.dumps(written), encoding="utf-8")
    assert lab.prepare(tmp_path) == ["low_rank"]
    assert mine.read_text(encoding="utf-8") == "mine"
    assert gone.exists() and "nbformat" in old.read_text(encoding="utf-8")
    assert lab.prepare(tmp_path) == ["low_rank"]


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(lab, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(lab, "prepare", lambda: (tmp_path / "file" / "notebooks").mkdir())
    with pytest.raises(lab.LabError, match="the folder notebooks could not be written"):
        lab.main()
