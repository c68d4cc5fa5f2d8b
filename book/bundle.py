"""How does the book get to a machine that reaches no public address? `make bundle` writes one folder, and a zip of it.

    book/_build/lens-book/   the wheel, the chapters without solutions, the models they open beside mini, a README
    book/_build/lens-book.zip

A notebook's setup cell finds the wheel beside it, and `python -m lens model get` the models in `data/`.
"""

import shutil
import subprocess
import sys

import nbformat
from address import AddressError, read_address
from course import chapters
from execute import BUILD, ROOT, BuildError
from notebooks import NotebookError, student
from program import end

from lens.data import paths

FOLDER = BUILD / "lens-book"
OPENED = ("mini-twin", "mini-s", "mini-llama")  # by a chapter; of mini-l the card and the masks are enough
README = """# The book in a folder, for a machine that cannot reach its public address
Upload this folder: to Colab's Drive (then mount Drive in Colab), or beside your other notebooks anywhere else.
Open a chapter (`.ipynb`) and run its cells: the setup cell installs `{wheel}`, with model and data.
Other packages (PyTorch, transformers, …) come from the package index that this machine uses, if they are not there yet.
`data/` holds the models that some chapters compare `mini` with; leave it beside the notebooks.
"""


def wheel(folder):
    """The wheel of this repository, made in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = next(folder.glob("lens_book-*.whl"), None)
    if done.returncode or not found:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise BuildError(f"the wheel could not be made: {lines[-1].rstrip('.')}.")
    return found


def bundle(folder=FOLDER):
    """Write `folder` and its zip anew; returns the path of the zip."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(README.format(wheel=wheel(folder).name), encoding="utf-8")
    address = read_address()
    for name, notebook in chapters().items():
        nbformat.write(student(notebook, address), folder / f"{name}.ipynb")
    for name in OPENED:
        shutil.copytree(paths.root() / name, folder / "data" / name)
    return shutil.make_archive(str(folder), "zip", folder.parent, folder.name)


def main():
    """Make the bundle; what it answers is for `end`."""
    try:
        return f"To upload as it is: {bundle()}"
    except OSError as error:
        raise BuildError(f"the bundle could not be written: {error}.") from error


if __name__ == "__main__":
    sys.exit(end(main, AddressError, BuildError, NotebookError))
