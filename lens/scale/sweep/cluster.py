"""How do jobs run on a Dask cluster?  As many at a time as its workers have threads; the others wait here.

So a worker that dies takes no job along that only stood in line.  What fails goes to the end of the line, and then to
another worker.  A worker's death is the scheduler's to see: it hands the job on by itself as often as its setting
``distributed.scheduler.allowed-failures`` says (3; none for ``local``), and then gives it back as a failed attempt.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import sleep
from uuid import uuid4

import torch

from lens.results.sentence import sentence
from lens.scale.sweep.connecting import connected
from lens.scale.sweep.job import Job
from lens.scale.sweep.results import Outcome

TICK = 1
"""Seconds after which to look for workers that are new."""

GONE = "The scheduler is gone, or has dropped the jobs: what is finished is kept, and the same call goes on."


def on_workers(
    jobs: list[Job],
    work: Callable[[Job], Outcome],
    scheduler,
    most: int,
    resources: Mapping[str, float] | None,
    keep: Callable[[Outcome], None],
    show: Callable[[int], None],
) -> None:
    """Do the jobs on ``scheduler``'s workers, at most ``most`` attempts each; ``keep`` gets each job's last outcome."""
    with connected(scheduler) as client, client.as_current(), _ctrl_c_waits() as stop_if_asked:
        from distributed import CancelledError, TimeoutError, wait
        from distributed.comm import CommClosedError

        left = deque((job, ()) for job in jobs)  # with the workers on which it has failed
        running: dict = {}
        try:
            while left or running:
                stop_if_asked()
                threads = client.nthreads()  # workers come and go
                for _ in range(len(left)):
                    if len(running) >= sum(threads.values()):
                        break
                    job, tried = left.popleft()
                    others = [worker for worker in threads if worker not in tried]
                    where = {}
                    # With resources Dask alone chooses: beside a list of workers it would take one that has them not.
                    if tried and others and not resources:
                        at_work = client.processing()  # of all: one that has just died must not be asked for by name
                        free = [w for w in others if w in at_work and len(at_work[w]) < threads[w]]
                        if not free:  # behind another job it would be taken for the one that killed the worker
                            left.append((job, tried))
                            continue
                        where = {"workers": free, "allow_other_workers": True}
                    key = f"{job.name}-{uuid4().hex}"  # never that of an earlier run, whose result may still be held
                    future = client.submit(_on_worker, work, job, key=key, pure=False, resources=resources, **where)
                    running[future] = job, tried
                show(len(running))
                if not running:
                    sleep(TICK)
                    continue
                try:
                    done = wait(list(running), timeout=TICK, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    continue
                for future in done:
                    job, tried = running[future]
                    found = _outcome(future, job, len(tried) + 1)
                    if found.error and found.attempts < most:
                        left.append((job, (*tried, found.worker)))
                    else:
                        keep(found)
                    del running[future]  # only now: a second Ctrl-C may come at any time
        except (CancelledError, CommClosedError):
            raise RuntimeError(GONE) from None
        except KeyboardInterrupt:
            for future, (job, tried) in running.items():
                if future.status == "finished" and not (found := _outcome(future, job, len(tried) + 1)).error:
                    keep(found)
            raise
        finally:
            client.cancel(list(running))
        show(0)
        stop_if_asked()


@contextmanager
def _ctrl_c_waits() -> Iterator[Callable[[], None]]:
    """Ctrl-C raises in the next call of what this gives, and not before; a second one raises at once.

    Python raises it wherever the program is, and loses it in a ``__del__`` or a callback of the garbage collector.
    """
    asked = False

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    def note(*signal_and_frame) -> None:
        nonlocal asked
        stop_if_asked()
        asked = True

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop_if_asked  # signals are another's
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _outcome(future, job: Job, attempts: int) -> Outcome:
    """What came of an attempt; ``RuntimeError`` where the cluster has dropped it."""
    from distributed import KilledWorker

    if future.status == "finished":
        return replace(future.result(), attempts=attempts)
    if future.status != "error":
        raise RuntimeError(GONE)
    if isinstance(error := future.exception(), KilledWorker):
        return Outcome(job, error=_death(error), worker=error.last_worker.address, attempts=attempts)
    return Outcome(job, error=sentence(error), attempts=attempts)


def _death(error) -> str:
    """A ``KilledWorker`` in words."""
    died, worker = error.allowed_failures + 1, error.last_worker.address
    return f"{died} worker{'s' * (died > 1)} died with it, the last {worker}: see its log."


def made(client, builder: Callable, *arguments, resources: Mapping[str, float] | None, **options) -> list[Job]:
    """The jobs that ``builder`` makes on a worker; ``RuntimeError`` where worker or scheduler die meanwhile."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        return client.submit(builder, *arguments, **options, pure=False, resources=resources).result()
    except KilledWorker as error:
        raise RuntimeError(f"The jobs could not be made: {_death(error)}") from None
    except (CancelledError, CommClosedError):
        raise RuntimeError(GONE) from None


def _on_worker(work: Callable[[Job], Outcome], job: Job) -> Outcome:
    from distributed import get_worker

    if threads := os.environ.get("OMP_NUM_THREADS"):  # torch may have been imported before it was set
        torch.set_num_threads(int(threads))
    return replace(work(job), worker=get_worker().address)
