"""Does a chapter run on Colab, in a folder with nothing but the notebook?

A stand-in for Colab: a fresh environment that sees the packages of this one but not ``lens``, a kernel that has
``google.colab``, and git told to take the book's public address from a copy of this working tree.  So the setup cell
runs as it is: it finds that lens is missing, installs it, and must leave every other package alone.

``LENS_COLAB_PYTHON`` names the Python of an environment with Colab's own versions; then every chapter runs on it:
``LENS_COLAB_PYTHON=colab/bin/python .venv/bin/python -m pytest tests/test_colab.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
PYTHON = os.environ.get("LENS_COLAB_PYTHON")
# What Colab's kernel has and what it is known to hold dear: the setup cell may add packages, but change none of these.
KEPT = "torch", "numpy", "transformers", "tokenizers", "pandas", "matplotlib", "numba", "ipykernel", "ipywidgets"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("git"), reason="git is missing: apt install git")]


def run(*command, **environment) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """This working tree as a git repository of one commit, as if it had been published."""
    place = tmp_path_factory.mktemp("published")
    for name in run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    git = "git", "-C", place, "-c", "user.name=reader", "-c", "user.email=reader@example.org"
    run(*git, "init", "-q")
    run(*git, "add", "-A")
    run(*git, "commit", "-q", "-m", "as published")
    return place


@pytest.fixture
def colab(published, tmp_path):
    """(kernel manager, folder of the environment's own packages) of a stand-in for Colab."""
    return stand_in(tmp_path, f"file://{published}")


def stand_in(tmp_path, answers: str, **settings: str):
    """The same, where git finds at the book's public address what lies at ``answers``."""
    home = tmp_path / "environment"
    run(PYTHON or sys.executable, "-m", "venv", home)
    python = home / "bin" / "python"
    (own,) = (home / "lib").glob("python*/site-packages")
    theirs = run(PYTHON or sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (own / "theirs.pth").write_text(f"{theirs}\n")  # packages there, but none of their .pth files: lens stays hidden
    (own / "google" / "colab").mkdir(parents=True)
    (own / "google" / "colab" / "__init__.py").write_text("")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text("import google.colab, numpy, pandas\n")

    address = re.search(r'Repository = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    environment = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{answers}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        **settings,
    }

    class Colab(KernelSpecManager):
        def get_kernel_spec(self, name):
            command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Colab", language="python", env=environment)

    return AsyncKernelManager(kernel_spec_manager=Colab()), own


@pytest.mark.long
@pytest.mark.parametrize("chapter", CHAPTERS if PYTHON else ["logit_lens"])
def test_a_chapter_runs_top_to_bottom_where_only_the_notebook_is(chapter, colab, tmp_path):
    manager, own = colab
    folder = tmp_path / "content"
    folder.mkdir()
    shutil.copy(ROOT / "book" / f"{chapter}.ipynb", folder)
    notebook = nbformat.read(folder / f"{chapter}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("lens.__file__"))
    NotebookClient(notebook, km=manager, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()

    assert str(own) in notebook.cells[-1].outputs[0].data["text/plain"], "another lens was found"
    installed = {path.name.split("-")[0].lower() for path in own.glob("*.dist-info")}
    assert "lens_book" in installed and not installed & set(KEPT), f"the setup cell installed {sorted(installed)}"
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == [f"{chapter}.ipynb"]
