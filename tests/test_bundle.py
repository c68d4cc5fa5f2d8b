"""Is the bundle all that a machine without a public address needs, and is what it installs small?"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_colab import stand_in

from lens.data import paths

pytest.importorskip("nbgrader")
pytest.importorskip("hatchling")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))

import bundle  # noqa: E402
from notebooks import LOCAL_LINK  # noqa: E402

pytestmark = pytest.mark.slow
BUILD_ONLY = {"jupyter-book", "nbgrader", "nbclient", "ipykernel", "playwright", "pypdf", "pytest", "hypothesis"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, zip) as `make bundle` leaves them."""
    folder = tmp_path_factory.mktemp("bundle") / "lens-book"
    return folder, Path(bundle.bundle(folder))


@pytest.fixture(scope="module")
def wheel(made):
    (path,) = made[0].glob("*.whl")
    return path


def test_the_wheel_is_small_and_holds_the_model_and_the_world_and_of_siblings_the_cards(wheel):
    assert wheel.stat().st_size <= 25e6
    names = zipfile.ZipFile(wheel).namelist()
    assert {"lens/_data/mini/model.safetensors", "lens/_data/world/records.json", "lens/_data/MANIFEST.json"} <= set(
        names
    )
    card = {"README.md", "config.json", "evaluation.json", "recipe.json"}
    for sibling in paths.SIBLINGS:
        assert {name.split("/")[-1] for name in names if name.startswith(f"lens/_data/{sibling}/")} == card


def test_what_a_reader_installs_has_nothing_that_only_the_build_needs(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    wanted = [re.match(r"([\w-]+)(?:\[(.*?)\])?.*?(?:extra == ['\"](\w+)['\"])?$", line).groups()
              for line in message_from_bytes(archive.read(metadata)).get_all("Requires-Dist")]  # fmt: skip
    extras, found = {None, "chapters"}, set()
    for _ in wanted:  # an extra may name others
        found |= {name for name, _, extra in wanted if extra in extras}
        extras |= {
            one for name, some, extra in wanted if extra in extras and name == "lens-book" for one in some.split(",")
        }
    assert {"torch", "peft", "matplotlib-venn"} <= found and not found & BUILD_ONLY


def test_the_bundle_is_one_folder_with_every_chapter_and_its_zip_can_be_uploaded(made):
    folder, archive = made
    assert archive.stat().st_size <= 60e6 and len((folder / "README.md").read_text("utf-8").splitlines()) == 5
    assert {path.split("/")[0] for path in zipfile.ZipFile(archive).namelist()} == {"lens-book"}
    assert {path.stem for path in folder.glob("*.ipynb")} == {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    assert {path.name for path in (folder / "data").iterdir()} == set(bundle.OPENED) <= set(paths.SIBLINGS)
    for path in folder.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(
            "### BEGIN" in cell.source or LOCAL_LINK.search(cell.source)
            for cell in cells
            if cell.cell_type == "markdown"
        )


def setup_cell(made) -> str:
    cells = nbformat.read(made[0] / "logit_lens.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"][1]


@pytest.mark.parametrize(
    "place", ["beside it", "in a folder beside it", "in a mounted Drive", "in a folder there", None]
)
def test_the_setup_cell_takes_a_wheel_before_the_address_or_says_what_to_upload(
    place, made, wheel, tmp_path, monkeypatch
):
    here, drive = tmp_path / "some folder", tmp_path / "content" / "drive" / "MyDrive"
    here.mkdir()
    monkeypatch.chdir(here)
    places = {"beside it": here, "in a folder beside it": here / "lens-book"}
    home = places | {"in a mounted Drive": drive, "in a folder there": drive / "lens-book"}
    if place:
        home[place].mkdir(parents=True, exist_ok=True)
        (home[place] / wheel.name).touch()
    source, asked = setup_cell(made), []
    assert source.count("%pip install -q ") == 1 and source.count('"/content') == 2
    source = (
        source.replace('"/content', f'"{tmp_path}/content')
        .replace("%pip install -q ", "asked.append(f")
        .replace('{source}"', '{source}")')
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SystemExit, match=r"^lens is missing: upload the wheel of 'make bundle', .*\.$"
    ):  # pip does nothing here
        exec(source, {"asked": asked})
    address = re.search(r'Repository = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    wanted = (home[place] / wheel.name).as_uri() if place else f"git+{address}"
    assert asked == [f"lens-book[chapters] @ {wanted}"]


@pytest.mark.long
def test_a_fresh_environment_without_address_and_index_installs_the_wheel_and_opens_the_model(made, tmp_path):
    manager, own = stand_in(tmp_path, f"file://{tmp_path}/nowhere", PIP_NO_INDEX="1")
    for old in own.glob("setuptools*"):  # a new environment's, which hides the one that torch was installed with
        shutil.rmtree(old)
    notebook = nbformat.read(made[0] / "logit_lens.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    notebook.cells.append(nbformat.v4.new_code_cell("lens.__file__"))
    NotebookClient(notebook, km=manager, timeout=300, resources={"metadata": {"path": str(made[0])}}).execute()
    assert str(own) in notebook.cells[-1].outputs[0].data["text/plain"], "another lens was found"
