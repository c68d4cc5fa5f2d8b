"""How do jobs run on a Dask cluster?  As many at a time as its workers have threads; the others wait here.

So a worker that dies takes no job along that only stood in line.  What fails goes to the end of the line, and then to
another worker.  A worker's death is the scheduler's to see: it hands the job on by itself as often as its setting
``distributed.scheduler.allowed-failures`` says (3; none for ``local``), and then gives it back as a failed attempt.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from uuid import uuid4

import torch

from lens.results.sentence import sentence
from lens.scale.sweep.connecting import connected
from lens.scale.sweep.job import Job
from lens.scale.sweep.results import Outcome

TICK = 1
"""Seconds after which to look for workers that are new, and for Ctrl-C."""


def on_workers(
    line: deque[Job],
    work: Callable[[Job], Outcome],
    scheduler,
    resources: Mapping[str, float] | None,
    show: Callable[[int], None],
) -> Iterator[Outcome]:
    """Do the jobs of ``line`` on ``scheduler``'s workers, until none is left; who takes an outcome may add to it."""
    with connected(scheduler) as client, client.as_current(), _ctrl_c_waits() as asked:
        from distributed import TimeoutError, wait

        running: dict = {}
        failed_on = defaultdict(set)
        try:
            while (line or running) and not asked.is_set():
                threads = client.nthreads()  # workers come and go
                while line:
                    # With resources Dask alone chooses: beside a list of workers it would take one that has them not.
                    avoid = failed_on[line[0].name] if not resources else ()
                    fit = {worker: n for worker, n in threads.items() if worker not in avoid} or threads
                    # Where fewer run than these have threads, one of them is free: behind another job, this one would
                    # be taken for what killed the worker.  Where there are no workers, one job waits for the first.
                    if len(running) >= max(1, sum(fit.values())):
                        break
                    job = line.popleft()
                    where = {"workers": list(fit), "allow_other_workers": True} if len(fit) < len(threads) else {}
                    key = f"{job.name}-{uuid4().hex}"  # never that of an earlier run, whose result may still be held
                    running[client.submit(_on_worker, work, job, key=key, resources=resources, **where)] = job
                show(len(running))
                with suppress(TimeoutError):
                    wait(list(running), timeout=TICK, return_when="FIRST_COMPLETED")
                for future in [future for future in running if future.done()]:
                    outcome = _outcome(future, running.pop(future))
                    failed_on[outcome.job.name].add(outcome.worker)
                    yield outcome
        finally:
            client.cancel(list(running))


@contextmanager
def _ctrl_c_waits() -> Iterator[threading.Event]:
    """Ctrl-C sets the event that this gives, and is raised at the block's end; a second one is raised at once.

    Python raises it wherever the program is, and loses it in a ``__del__`` or a callback of the garbage collector.
    """
    asked, usual = threading.Event(), signal.default_int_handler

    def note(*signal_and_frame) -> None:
        signal.signal(signal.SIGINT, usual)
        asked.set()

    with ExitStack() as ours:
        # Elsewhere than in the main thread, or where somebody handles them already, signals are another's.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual:
            signal.signal(signal.SIGINT, note)
            ours.callback(signal.signal, signal.SIGINT, usual)
        yield asked
    if asked.is_set():
        raise KeyboardInterrupt


def _outcome(future, job: Job) -> Outcome:
    """What came of an attempt."""
    from distributed import KilledWorker

    if (error := future.exception()) is None:
        return future.result()
    if isinstance(error, KilledWorker):
        return Outcome(job, error=_death(error), worker=error.last_worker.address)
    return Outcome(job, error=sentence(error))


def _death(error) -> str:
    """A ``KilledWorker`` in words."""
    died, worker = error.allowed_failures + 1, error.last_worker.address
    return f"{died} worker{'s' * (died > 1)} died with it, the last {worker}: see its log."


def made(scheduler, builder: Callable, *arguments, resources: Mapping[str, float] | None, **options) -> list[Job]:
    """The jobs that ``builder`` makes on a worker; ``RuntimeError`` where worker or scheduler die meanwhile."""
    with connected(scheduler) as client:
        from distributed import KilledWorker

        try:
            return client.submit(builder, *arguments, **options, pure=False, resources=resources).result()
        except KilledWorker as error:
            raise RuntimeError(f"The jobs could not be made: {_death(error)}") from None


def _on_worker(work: Callable[[Job], Outcome], job: Job) -> Outcome:
    from distributed import get_worker

    if threads := os.environ.get("OMP_NUM_THREADS"):  # torch may have been imported before it was set
        torch.set_num_threads(int(threads))
    return replace(work(job), worker=get_worker().address)
