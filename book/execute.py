"""Which chapters must run again, and how are they run?

A chapter's key is the SHA-256 of everything its outputs depend on: its own source, the code of `lens` with
the scripts and the style of its widgets, the manifest of the data, and the pinned versions. An executed copy
with that key under `book/_build/executed/` is reused; any other chapter runs in a fresh kernel of this very
environment, in the folder `book/`. Copies are written in one step, so an interruption keeps all finished chapters.
"""
import asyncio
import hashlib
import os
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
BUILD = BOOK / "_build"
KERNEL_LOG = BUILD / "kernel.log"
SECONDS_PER_CELL = 600
CODE = {".py", ".js", ".css"}


class BuildError(Exception):
    """What the reader is told when the book cannot be built."""


class ThisEnvironment(KernelSpecManager):
    """Offers one kernel, the running Python: another `python3` kernel of the user's is never picked up."""

    def get_kernel_spec(self, kernel_name):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        static = {"LENS_STATIC": "1"}  # widgets show themselves as HTML that needs no kernel
        return KernelSpec(argv=argv, display_name="Python 3", language="python", env=static)


class Client(NotebookClient):
    """Runs a notebook and leaves Ctrl-C to Python, so that one press ends the build in good order."""

    async def async_start_new_kernel(self, **kwargs):
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # nbclient's own would only kill the kernel
        await super().async_start_new_kernel(**kwargs)


def key(notebook):
    digest = hashlib.sha256()
    inputs = [notebook, *sorted(path for path in (ROOT / "lens").glob("**/*") if path.suffix in CODE)]
    inputs += [ROOT / "data" / "MANIFEST.json", BOOK / "requirements.txt"]
    for path in filter(Path.exists, inputs):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def executed_copy(chapter):
    return BUILD / "executed" / f"{chapter}.ipynb"


def load(path, wanted):
    """The executed chapter if it is whole and has the wanted key, else None."""
    try:
        notebook = nbformat.read(path, as_version=4)
        return notebook if notebook.metadata.lens_book.key == wanted else None
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return None


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


class Progress:
    """One line a chapter: rewritten on a terminal, printed once at the end elsewhere."""

    def __init__(self, chapter, cells):
        self.chapter, self.cells, self.done, self.started = chapter, cells, 0, time.perf_counter()
        self.terminal = sys.stdout.isatty()

    def seconds(self):
        return time.perf_counter() - self.started

    def text(self):
        return f"  {self.chapter:<24} {self.done:>3}/{self.cells} cells {self.seconds():6.1f} s"

    def step(self, cell=None, cell_index=None, **_):
        if cell is not None and cell.cell_type == "code" and cell.source.strip():
            self.done += 1
        if self.terminal:
            print("\r" + self.text(), end="", flush=True)

    def close(self):
        print(("\r" if self.terminal else "") + self.text(), flush=True)


def failure(chapter, path, notebook):
    """The cell that failed, for a reader who did not write it."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                source = "\n".join("    " + line for line in cell.source.splitlines())
                said = f"{output.ename}: {output.evalue}"
                return f"chapter {chapter} stopped in cell {number}:\n\n{source}\n\n  {said}\n  in {path}"
    return f"chapter {chapter} stopped, its kernel died (too little memory?)\n  in {path}\n  log: {KERNEL_LOG}"


def run(chapter, path, wanted):
    """Execute one chapter and keep its copy; raise BuildError if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
    progress = Progress(chapter, cells)
    manager = AsyncKernelManager(kernel_spec_manager=ThisEnvironment())
    client = Client(notebook, km=manager, timeout=SECONDS_PER_CELL, store_widget_state=False,
                    resources={"metadata": {"path": str(BOOK)}}, on_cell_executed=progress.step)
    progress.step()
    try:
        with KERNEL_LOG.open("w") as log:
            asyncio.run(client.async_execute(cleanup_kc=True, stderr=log))
    except CellTimeoutError as error:
        raise BuildError(f"chapter {chapter}: a cell ran longer than {SECONDS_PER_CELL} s\n  in {path}") from error
    except (CellExecutionError, DeadKernelError) as error:
        progress.close()
        raise BuildError(failure(chapter, path, notebook)) from error
    progress.close()
    notebook.metadata.lens_book = {"key": wanted, "seconds": round(progress.seconds(), 1), "cells": cells,
                                   "executed": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    write(executed_copy(chapter), nbformat.writes(notebook))
    return notebook


def execute_all(chapters, force=False):
    """{chapter: (executed notebook, was it reused?)} for the chapters of the table of contents."""
    executed = {}
    BUILD.mkdir(exist_ok=True)
    for chapter in chapters:
        path = BOOK / f"{chapter}.ipynb"
        wanted = key(path)
        kept = None if force else load(executed_copy(chapter), wanted)
        if kept is not None:
            print(f"  {chapter:<24} unchanged, {kept.metadata.lens_book.seconds:.1f} s when it last ran", flush=True)
        executed[chapter] = (kept or run(chapter, path, wanted), kept is not None)
    return executed
