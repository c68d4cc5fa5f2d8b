"""Does a package whose wheel leaves the siblings of mini out say how to fetch them, and fetch them whole?"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

import lens
from lens.__main__ import main
from lens.data import manifest, paths
from lens.model import pretrained, siblings

DATA = Path(__file__).resolve().parents[1] / "data"
NAME = "mini-s"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as a wheel leaves it: its data are apart from the siblings, and nothing lies near."""
    root = tmp_path / "package" / "_data"
    root.mkdir(parents=True)
    for file in (manifest.NAME, "fingerprints.json"):
        shutil.copy(DATA / file, root)
    monkeypatch.setattr(paths, "root", lambda: root)
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(siblings, "ADDRESS", (tmp_path / "nowhere").as_uri())
    return root


def test_a_sibling_that_is_not_there_names_the_command(installed, refuses, capsys):
    with refuses(OSError, f"python -m lens model get {NAME}"):
        lens.load(NAME)
    with refuses(ValueError, f"python -m lens model get {NAME}"):
        lens.cost.shape(NAME)
    assert main(["model", "list"]) == 0 and f"'model get {NAME}' fetches 4 MB" in capsys.readouterr().out
    assert not [name for name in manifest.listed() if name.startswith(NAME)], "what the wheel leaves out is not missing"


@pytest.mark.parametrize("origin", ["beside", "above", "--file repository", "--file model", "--file zip", "address"])
def test_a_sibling_is_fetched_from_the_repository_wherever_that_is(installed, origin, tmp_path, monkeypatch, capsys):
    repository = tmp_path / ("work" if origin == "beside" else "elsewhere")
    shutil.copytree(DATA / NAME, repository / "data" / NAME)
    file = {"--file repository": repository, "--file model": repository / "data" / NAME}.get(origin)
    if origin == "above":
        (repository / "notebooks").mkdir()
        monkeypatch.chdir(repository / "notebooks")
    if origin == "--file zip":
        file = shutil.make_archive(tmp_path / "lens-book-main", "zip", tmp_path, "elsewhere")
    if origin == "address":
        monkeypatch.setattr(siblings, "ADDRESS", (repository / "data").as_uri())
    assert main(["model", "get", NAME, *(["--file", str(file)] if file else [])]) == 0, capsys.readouterr().err
    assert paths.model(NAME) == tmp_path / "cache" / "models" / NAME and lens.load(NAME).name == NAME
    shutil.rmtree(repository)
    assert pretrained.get(NAME) == paths.model(NAME), "what is there is not fetched again"


def test_another_model_or_half_of_one_is_refused_and_leaves_nothing(installed, tmp_path, refuses):
    there = tmp_path / "elsewhere" / "data" / NAME
    shutil.copytree(DATA / NAME, there)
    weights = there / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with refuses(ValueError, "model.safetensors than this version of lens: its SHA-256 differs"):
        pretrained.get(NAME, there)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("README.md", "")
    for wrong in (tmp_path / "other.zip", tmp_path / "work", tmp_path / "nothing"):
        with refuses(OSError, f"holds no model {NAME}: give the book's folder"):
            pretrained.get(NAME, wrong)
    with refuses(OSError, "could not be fetched.*--file FOLDER"):
        pretrained.get(NAME)
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_in_the_repository_a_sibling_is_where_it_always_was():
    assert pretrained.get(NAME) == DATA / NAME == paths.model(NAME)
