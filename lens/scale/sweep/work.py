"""How is one job done, wherever that is?  Its function is called, and what it returns becomes text.

Here, and not in whoever calls, an error becomes a sentence: it then travels to any machine, whatever it held.  A job
that keeps files has its folder to itself while it runs.  Where an earlier attempt is still at it (a worker that was
thought dead, a sweep that was stopped while its workers went on), the job waits, and goes on from what that one leaves.
"""

from __future__ import annotations

import inspect
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lens.results.provenance import VERSION
from lens.scale.sweep.job import Job
from lens.scale.sweep.store import MARK

LOCK = ".lock"


def perform(job: Job, folder: str, mark: str, version: str) -> dict:
    """Do a job of the sweep in ``folder``: ``text``, its value as JSON, or ``error`` and ``traceback``; ``seconds``.

    Ctrl-C is not caught.
    """
    begun = time.perf_counter()
    try:
        found = {"text": _called(job, Path(folder), mark, version)}
    except (Exception, SystemExit) as error:
        found = {"error": sentence(error), "traceback": traceback.format_exc()}
    return found | {"seconds": time.perf_counter() - begun}


def sentence(error: BaseException) -> str:
    """An error in one line; its kind is named where its words are not written for people."""
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= 500 else f"{text[:499]}…"
    return text if isinstance(error, (ValueError, IndexError, OSError)) else f"{type(error).__name__}: {text}"


def _called(job: Job, folder: Path, mark: str, version: str) -> str:
    if version != VERSION:
        raise RuntimeError(f"The sweep is made with lens {version}, and this worker has {VERSION}: install that.")
    function = job.resolve()
    if "folder" in job.arguments or not _wants_folder(function):
        value = function(**job.arguments)
    else:
        _same_folder(folder, mark)
        with _alone(folder / job.name) as own:
            value = function(folder=own, **job.arguments)
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"what {job.function} returned is not fit for JSON ({error}).") from None


def _wants_folder(function: Callable) -> bool:
    try:
        return "folder" in inspect.signature(function).parameters
    except ValueError:  # some that are written in C do not say
        return False


def _same_folder(folder: Path, mark: str) -> None:
    """``OSError`` where the sweep's folder, as seen from here, is not the one that the sweep was started with."""
    try:
        same = (folder / MARK).read_text(encoding="utf-8") == mark
    except OSError:
        same = False
    if not same:
        raise OSError(
            f"This worker does not see the sweep's folder {folder}, and the job keeps files there: choose a folder on "
            "a file system that all workers share."
        )


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The job's folder, for no other process meanwhile; the system gives it free when a process dies."""
    folder.mkdir(exist_ok=True)
    with open(folder / LOCK, "w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, and file systems without locks
            pass
        yield folder
