"""How does a sweep run?  What is done is skipped, the rest runs here or on a cluster; each result is kept at once.

Where a job is done, and not in whoever calls, an error becomes a sentence: it then travels to any machine, whatever it
held.  A job that keeps files has its folder to itself while it runs.  Where an earlier attempt is still at it (a worker
thought dead, a sweep that was stopped while its workers went on), the job waits, and goes on from what that one leaves.
"""

from __future__ import annotations

import inspect
import json
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from lens.given import door, result_folder, whole
from lens.results.lock import alone, held_alone
from lens.results.provenance import VERSION
from lens.results.sentence import sentence
from lens.scale.sweep.cluster import on_workers
from lens.scale.sweep.job import Job, check_jobs
from lens.scale.sweep.results import Outcome, Results
from lens.scale.sweep.store import MARK, Store


@door(jobs=None, folder=result_folder, retries=whole)
@held_alone(folders=("folder",))
def run(
    jobs: Iterable[Job],
    folder: str | Path,
    scheduler=None,
    *,
    retries: int = 2,
    resources: Mapping[str, float] | None = None,
    progress: bool = True,
) -> Results:
    """Do every job whose result is not in ``folder`` yet, and give the results of all, in the order of ``jobs``.

    ``scheduler``: None runs them in this process, one after another; the address of a Dask scheduler
    ("tcp://10.0.0.1:8786"), a ``distributed.Client`` or a cluster (``LocalCluster``, ``dask_jobqueue.SLURMCluster``,
    ``dask_cuda.LocalCUDACluster``, ``lens.sweep.local(4)``) runs them on its workers.  ``resources``: what a job takes
    of its worker, such as ``{"GPU": 1}``, on workers that were started with it.

    A result is on the disk before it counts, written by this process.  A job that fails, or loses its worker, is tried
    again at most ``retries`` times, behind all others, and on other workers where there are some.  Jobs that fail in
    every attempt are in the results' ``failed``; they stop nothing, and are tried again by the next run.  Ctrl-C keeps
    all finished results and cancels the rest (on a cluster within a second; pressed twice, at once); the same call goes
    on.  Functions that keep files (``Job``) need a folder that all workers see.

    Raises ``ValueError`` where a result in ``folder`` is of another job with the same name, before anything runs, and
    ``OSError`` for a scheduler that cannot be reached and for a folder that another sweep is writing to.

    >>> import tempfile
    >>> jobs = [Job(f"mean-{n}", "statistics:fmean", {"data": list(range(n))}) for n in (0, 4)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = run(jobs, folder, progress=False)
    >>> done["mean-4"], done.report()
    (1.5, 'mean-0 failed in 3 attempts: fmean requires at least one data point')
    """
    jobs = check_jobs(jobs)
    store = Store(folder)
    outcomes = {job.name: outcome for job in jobs if (outcome := store.read(job))}
    line, attempts = deque(job for job in jobs if job.name not in outcomes), Counter()
    work = partial(perform, folder=store.folder, mark=store.mark, version=VERSION)
    with tqdm(total=len(jobs), initial=len(outcomes), desc="sweep", unit="job", disable=not progress) as bar:

        def show(running: int) -> None:
            failed = sum(outcome.error is not None for outcome in outcomes.values())
            bar.set_postfix(running=running, done=len(outcomes) - failed, failed=failed)

        here = scheduler is None or not line
        with closing(_here(line, work, show) if here else on_workers(line, work, scheduler, resources, show)) as tried:
            for outcome in tried:
                name = outcome.job.name
                attempts[name] += 1
                if outcome.error and attempts[name] <= retries:
                    line.append(outcome.job)
                    continue
                if not outcome.error:
                    store.write(outcome)
                outcomes[name] = replace(outcome, attempts=attempts[name])
                bar.update()
        show(0)
    return Results(tuple(outcomes[job.name] for job in jobs))


def _here(line: deque[Job], work: Callable[[Job], Outcome], show: Callable[[int], None]) -> Iterator[Outcome]:
    while line:
        show(1)
        yield work(line.popleft())


def perform(job: Job, folder: Path, mark: str, version: str) -> Outcome:
    """Do a job of the sweep in ``folder``, once.  Ctrl-C is not caught."""
    begun, value, error, trace = time.perf_counter(), None, None, None
    try:
        value = _called(job, folder, mark, version)
    except (Exception, SystemExit) as caught:
        error, trace = sentence(caught), traceback.format_exc()
    return Outcome(job, value, error, round(time.perf_counter() - begun, 3), "here", traceback=trace)


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
        _check_shared(folder, mark)
        with alone(folder / job.name, inside=True, wait=True):  # the system gives it free when a process dies
            value = function(folder=folder / job.name, **job.arguments)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"what {job.function} returned is not fit for JSON ({error}).") from None


def _check_shared(folder: Path, mark: str) -> None:
    """``OSError`` where the sweep's folder, as seen from here, is not the one that the sweep was started with."""
    if not (folder / MARK).is_file() or (folder / MARK).read_text(encoding="utf-8") != mark:
        raise OSError(
            f"This worker does not see the sweep's folder {folder}, and the job keeps files there: choose a folder on "
            "a file system that all workers share."
        )
