"""An explorer as a file of its own: whole or not at all, with its model where that is asked for."""

from __future__ import annotations

import os

import pytest

from lens.course.widgets.explorer import Explorer, page

HOSTILE = "</script><script>alert('x')</script> \"><img src=x onerror=f()> <!-- \ud800 {title} %s"


class Plain(Explorer):
    """Shows a lens of nothing, and has no model."""

    _esm, _css = page("lens")

    def summary(self):
        return HOSTILE


@pytest.fixture
def explorer():
    return Plain({"text": HOSTILE})


def test_a_saved_explorer_is_one_page_whose_title_is_text(explorer, tmp_path):
    path = explorer.save(tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "page.html" and text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert "<script>alert" not in text and "<img" not in text
    assert text.count("<script") == 2 and "src=" not in text.replace("src=x", "")


def test_a_file_is_replaced_whole_or_not_at_all(explorer, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("mine", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=r"page\.html could not be written \(No space left on device\)"):
            explorer.save(path)
    assert path.read_text(encoding="utf-8") == "mine" and list(tmp_path.iterdir()) == [path]
    explorer.save(path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>") and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name, error, sentence",
    [("no/page.html", FileNotFoundError, "There is no folder .*no to write page.html into: make it first"),
     ("", IsADirectoryError, "is a folder: give the name of a file, such as .*explorer.html")],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_named(explorer, tmp_path, name, error, sentence):
    with pytest.raises(error, match=sentence):
        explorer.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_only_the_shipped_model_goes_along(explorer, tmp_path):
    with pytest.raises(ValueError, match="Only an explorer that asks 'mini' as it is shipped"):
        explorer.save(tmp_path / "page.html", model=True)
    assert not list(tmp_path.iterdir())
