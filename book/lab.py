"""How does a reader start a notebook? `make lab` writes the chapters to `notebooks/` and opens JupyterLab there.

The notebooks are those without solutions and hidden tests. One that its reader has changed is kept as it is: the file
`.written.json` holds the SHA-256 of each as it was written.
"""
import hashlib
import json
import os
import sys

import nbformat
from address import AddressError, read_address
from course import BOOK, chapters
from execute import write
from notebooks import NotebookError, student
from program import end

NOTEBOOKS = BOOK.parent / "notebooks"


class LabError(Exception):
    """One sentence: why JupyterLab could not be started, and what to do."""


def prepare(folder=NOTEBOOKS, book=BOOK):
    """Write every chapter's notebook to `folder`; returns the names of those that were kept, as they were changed."""
    folder.mkdir(exist_ok=True)
    record = folder / ".written.json"
    written = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    kept = []
    for name, notebook in chapters(book).items():
        path, text = folder / f"{name}.ipynb", nbformat.writes(student(notebook, read_address()))
        if path.exists() and _sum(path.read_bytes()) not in (written.get(name), _sum(text.encode())):
            kept.append(name)
        else:
            write(path, text)
            written[name] = _sum(text.encode())
            write(record, json.dumps(written, indent=1))  # at once: what is stopped here was changed by no reader
    return kept


def _sum(content):
    return hashlib.sha256(content).hexdigest()


def main():
    """Write the notebooks and become JupyterLab."""
    try:
        kept = prepare()
    except OSError as error:
        raise LabError(f"the folder notebooks could not be written: {error}.") from error
    if kept:
        print(f"Kept as you changed them: {', '.join(kept)}. Move a notebook away to get a new one.")
    print(f"JupyterLab opens {NOTEBOOKS}; Ctrl-C ends it.", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", f"--notebook-dir={NOTEBOOKS}", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(end(main, AddressError, LabError, NotebookError))
