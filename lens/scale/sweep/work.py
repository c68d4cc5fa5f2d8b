"""How is one job done, wherever that is?  Its function is called, and what it returns becomes JSON.

Here, and not in whoever calls, an error becomes a sentence: it then travels to any machine, whatever it held.  A job
that keeps files has its folder to itself while it runs.  Where an earlier attempt is still at it (a worker that was
thought dead, a sweep that was stopped while its workers went on), the job waits, and goes on from what that one leaves.
"""

from __future__ import annotations

import inspect
import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lens.results.lock import alone
from lens.results.provenance import VERSION
from lens.results.sentence import sentence
from lens.scale.sweep.job import Job
from lens.scale.sweep.results import Outcome
from lens.scale.sweep.store import MARK


def perform(job: Job, folder: Path, mark: str, version: str) -> Outcome:
    """Do a job of the sweep in ``folder``, once.  Ctrl-C is not caught."""
    begun, value, error, trace = time.perf_counter(), None, None, None
    try:
        value = _called(job, folder, mark, version)
    except (Exception, SystemExit) as caught:
        error, trace = sentence(caught), traceback.format_exc()
    return Outcome(job, value, error, round(time.perf_counter() - begun, 3), "here", 1, trace)


def _called(job: Job, folder: Path, mark: str, version: str) -> object:
    if version != VERSION:
        raise RuntimeError(f"The sweep is made with lens {version}, and this worker has {VERSION}: install that.")
    function = job.resolve()
    try:
        wants_folder = "folder" in inspect.signature(function).parameters
    except ValueError:  # some that are written in C do not say
        wants_folder = False
    if "folder" in job.arguments or not wants_folder:
        value = function(**job.arguments)
    else:
        with _alone(folder, job.name, mark) as own:
            value = function(folder=own, **job.arguments)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"what {job.function} returned is not fit for JSON ({error}).") from None


@contextmanager
def _alone(folder: Path, name: str, mark: str) -> Iterator[Path]:
    """The job's folder, for no other process meanwhile; the system gives it free when a process dies.

    ``OSError`` where the sweep's folder, as seen from here, is not the one that the sweep was started with.
    """
    if not (folder / MARK).is_file() or (folder / MARK).read_text(encoding="utf-8") != mark:
        raise OSError(
            f"This worker does not see the sweep's folder {folder}, and the job keeps files there: choose a folder on "
            "a file system that all workers share."
        )
    own = folder / name
    with alone(own, inside=True, wait=True):
        yield own
