"""Where are a sweep's results?  In one folder, a file a job, written whole or not at all.

FOLDER/NAME.json    the result of the job NAME, with all that decided it
FOLDER/NAME/        what the job itself keeps: its checkpoint while it lasts, large results such as a subnetwork
FOLDER/.sweep       a mark, by which a worker sees that this is the same folder
"""

from __future__ import annotations

import json
from pathlib import Path
from reprlib import repr
from uuid import uuid4

from lens.results.provenance import VERSION
from lens.results.whole import write_text
from lens.scale.sweep.job import Job
from lens.scale.sweep.results import Outcome

FORMAT = "lens-sweep-1"
MARK = ".sweep"


class Store:
    """The folder of a sweep, made where there is none; ``mark`` is what a worker must find there."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser().resolve()
        mark = self.folder / MARK
        if not mark.is_file():
            write_text(mark, uuid4().hex)
        self.mark = mark.read_text(encoding="utf-8")

    def path(self, job: Job) -> Path:
        """The file of a job's result."""
        return self.folder / f"{job.name}.json"

    def read(self, job: Job) -> Outcome | None:
        """The job's outcome, None where there is none or it is damaged; ``ValueError`` for that of another job."""
        path = self.path(job)
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            found = Outcome(job, held["value"], None, held["seconds"], held["worker"])
            identity, before = held["identity"], {key: held[key] for key in _decides(job)}
            if held["format"] != FORMAT:
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if identity != job.identity:
            raise ValueError(
                f"The result in {path} is another job's ({_difference(before, _decides(job))}): give another folder, "
                f"or remove the file and the folder {job.name} beside it."
            )
        return found

    def write(self, outcome: Outcome) -> None:
        """Keep the value of a job that did not fail."""
        job = outcome.job
        held = {"format": FORMAT, "identity": job.identity} | _decides(job)
        held |= {"seconds": outcome.seconds, "worker": outcome.worker, "value": outcome.value}
        write_text(self.path(job), json.dumps(held, indent=1) + "\n")


def _decides(job: Job) -> dict:
    return {"function": job.function, "arguments": job.arguments, "lens": VERSION}


def _difference(before: dict, now: dict, inside: str = "") -> str:
    """The first thing that differs, in words."""
    for key in {**before, **now}:
        one, other = before.get(key), now.get(key)
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                return _difference(one, other, "" if key == "arguments" else f"{key}.")
            return f"{inside}{key} was {repr(one)}, and is now {repr(other)}"
    return "its identity is damaged"
