"""Which chapters must run again, and how are they run?

A chapter's key is the SHA-256 of everything its outputs depend on: its own source, the code of `lens` with
the scripts and the style of its widgets, the manifest of the data, and the pinned versions. An executed copy
with that key under `book/_build/executed/` is reused; any other chapter runs in a fresh kernel of this very
environment, in the folder `book/`, beside another one; a chapter that takes times runs alone. Copies are written in
one step, so an interruption keeps all finished chapters.

An edition on another model has the same chapters with its name in the cell tagged `parameters`, and copies of its own.
A chapter in STAY is that of the book in every edition, and says so.
"""
import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import nbformat
import preview
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
BUILD = BOOK / "_build"
KERNEL_LOGS = BUILD / "kernels"
MINI = "mini"  # the model of the book itself; every other makes an edition
STAY = ("backward_pass",)  # computed by the engine in the page, whose model is mini
SECONDS_PER_CELL = 600
TOGETHER = 2  # much of a chapter is one thread's work
TAKES_TIMES = re.compile(r"perf_counter|process_time|\.seconds\b|\binterleaved\b")
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
    """Runs a notebook and leaves Ctrl-C and SIGTERM to Python, so that either ends the whole build."""

    async def async_start_new_kernel(self, **kwargs):
        for number in (signal.SIGINT, signal.SIGTERM):  # nbclient's own would only kill this kernel
            asyncio.get_running_loop().remove_signal_handler(number)
        await super().async_start_new_kernel(**kwargs)


def key(notebook, model=MINI):
    digest = hashlib.sha256(b"" if model == MINI else model.encode())
    if (folder := Path(model).expanduser()).is_dir():  # its weights may be other ones tomorrow
        held = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
        digest.update(repr(held).encode())
    inputs = [notebook, *sorted(path for path in (ROOT / "lens").glob("**/*") if path.suffix in CODE)]
    inputs += [ROOT / "data" / "MANIFEST.json", BOOK / "requirements.txt"]
    for path in filter(Path.exists, inputs):
        content = path.read_bytes()
        if path.name == "MANIFEST.json":  # what a chapter claims is its output, and no input
            listed = json.loads(content)
            listed.pop(f"claims/{model}.json", None)
            content = json.dumps(listed).encode()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def folder_of(model=MINI):
    """Where everything that is built for a model goes: the book itself, or an edition beside it."""
    return BUILD if model == MINI else BUILD / "editions" / model.replace("/", "--")


def executed_copy(chapter, model=MINI):
    return folder_of(model) / "executed" / f"{chapter}.ipynb"


def on(model, notebook):
    """The chapter with the model's name in the cell that is tagged for it."""
    if model != MINI:
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = f"# This edition runs on another model than its text was written for.\nMODEL = {model!r}"
    return notebook


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
    """One line a chapter, printed at its end; on a terminal, also one of all that are running, rewritten."""

    running = []

    def __init__(self, chapter, cells):
        self.chapter, self.cells, self.done, self.started = chapter, cells, 0, time.perf_counter()
        self.clear = "\r\033[K" if sys.stdout.isatty() else ""
        self.running.append(self)
        self.show()

    def seconds(self):
        return time.perf_counter() - self.started

    def step(self, cell, cell_index, **_):
        self.done += cell.cell_type == "code" and bool(cell.source.strip())
        self.show()

    def show(self):
        if self.clear:
            print(self.clear + "".join(f"  {one.chapter} {one.done}/{one.cells}" for one in self.running),
                  end="", flush=True)

    def close(self):
        self.running.remove(self)
        print(f"{self.clear}  {self.chapter:<24} {self.done:>3}/{self.cells} cells {self.seconds():6.1f} s", flush=True)
        self.show()


def log(chapter):
    return KERNEL_LOGS / f"{chapter}.log"


def failure(chapter, path, notebook):
    """The cell that failed, for a reader who did not write it."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                source = "\n".join("    " + line for line in cell.source.splitlines())
                said = f"{output.ename}: {output.evalue}"
                return f"chapter {chapter} stopped in cell {number}:\n\n{source}\n\n  {said}\n  in {path}"
    return f"chapter {chapter} stopped, its kernel died (too little memory?)\n  in {path}\n  log: {log(chapter)}"


async def run(chapter, path, wanted, threads, model):
    """Execute one chapter and keep its copy; raise BuildError if a cell fails."""
    notebook = on(model, nbformat.read(path, as_version=4))
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
    progress = Progress(chapter, cells)
    manager = AsyncKernelManager(kernel_spec_manager=ThisEnvironment())
    client = Client(notebook, km=manager, timeout=SECONDS_PER_CELL, store_widget_state=False,
                    resources={"metadata": {"path": str(BOOK)}}, on_cell_executed=progress.step)
    # Threads that wait in sleep: those that wait in a loop take the core that the others' last thread needs.
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    try:
        with log(chapter).open("w") as said:
            await client.async_execute(cleanup_kc=True, stderr=said, env=environment)
    except CellTimeoutError as error:
        raise BuildError(f"chapter {chapter}: a cell ran longer than {SECONDS_PER_CELL} s\n  in {path}") from error
    except (CellExecutionError, DeadKernelError) as error:
        raise BuildError(failure(chapter, path, notebook)) from error
    finally:
        progress.close()
    if not os.environ.get("LENS_AGAIN") and key(path, model) != wanted:
        raise BuildError(f"chapter {chapter}: its text, lens or the data changed while it ran: build once more")
    notebook.metadata.lens_book = {"key": wanted, "model": model, "seconds": round(progress.seconds(), 1), "cells": cells,
                                   "executed": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    write(executed_copy(chapter, model), nbformat.writes(notebook))
    return notebook


def processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


async def run_all(wanted, model):
    """{chapter: executed notebook} for {chapter: its key}; once one has failed, no other begins."""
    paths = {chapter: BOOK / f"{chapter}.ipynb" for chapter in wanted}
    alone = [chapter for chapter, path in paths.items() if TAKES_TIMES.search(path.read_text(encoding="utf-8"))]
    others = [chapter for chapter in wanted if chapter not in alone]
    done, failed, shown = {}, [], []

    async def work(chapters, threads):
        while chapters and not failed:
            chapter = chapters.pop(0)
            try:
                done[chapter] = await run(chapter, paths[chapter], wanted[chapter], threads, model)
                if not shown and len(done) < len(wanted):
                    shown.append(chapter)  # before the wait: the other lane looks, too
                    first = await asyncio.to_thread(preview.write, done[chapter], folder_of(model) / "first.html")
                    print(f"  to read while the others run: {first.as_uri()}", flush=True)
            except BuildError as error:
                failed.append(error)

    together = 1 if os.environ.get("LENS_AGAIN") else TOGETHER  # chapters write what ships in data/, and its manifest
    lanes = min(together, processors())
    await asyncio.gather(*(work(others, processors() // lanes) for _ in range(lanes)))
    await work(alone, processors())
    if failed:
        raise failed[0]
    return done


def execute_all(chapters, force=False, model=MINI):
    """{chapter: (executed notebook, was it reused?)} for the chapters of the table of contents."""
    if model == MINI:
        return execute_some(chapters, force)
    found = execute_some([chapter for chapter in chapters if chapter not in STAY], force, model)
    found |= execute_some([chapter for chapter in chapters if chapter in STAY], force)
    return {chapter: found[chapter] for chapter in chapters}


def execute_some(chapters, force=False, model=MINI):
    """The same, of chapters that all run on one model."""
    kept, wanted = {}, {}
    KERNEL_LOGS.mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        found = key(BOOK / f"{chapter}.ipynb", model)
        if not force and (copy := load(executed_copy(chapter, model), found)):
            kept[chapter] = copy
            print(f"  {chapter:<24} unchanged, {copy.metadata.lens_book.seconds:.1f} s when it last ran", flush=True)
        else:
            wanted[chapter] = found
    done = asyncio.run(run_all(wanted, model))
    return {chapter: (kept.get(chapter) or done[chapter], chapter in kept) for chapter in chapters}
