"""How do jobs run on a Dask cluster?  Each worker is given one at a time; what fails goes to another worker.

No more jobs are with the scheduler than its workers have threads; the others wait here.  So a worker that dies takes no
job along that only stood in line, and a job's attempts are its own.

A worker's death is the scheduler's to see.  It hands the job on by itself as often as its setting
``distributed.scheduler.allowed-failures`` says (3; none for ``local``), and then gives it back as a failed attempt.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from lens.scale.sweep.connecting import connected
from lens.scale.sweep.job import Job
from lens.scale.sweep.results import Outcome
from lens.scale.sweep.work import sentence

TICK = 1
"""Seconds after which to look for workers that are new."""

GONE = "The scheduler is gone, or has dropped the jobs: what is finished is kept, and the same call goes on."


def on_workers(
    jobs: list[Job],
    work: Callable[[Job], dict],
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

        left = [(job, ()) for job in reversed(jobs)]  # with the workers on which it has failed, the next one last
        running: dict = {}

        def submit(job: Job, tried: tuple[str | None, ...], free: list[str]) -> None:
            # Dask puts a job with resources where they are; others begin at once on a worker without a job.
            where = {} if resources else {"workers": free, "allow_other_workers": True}
            key = f"{job.name}-{uuid4().hex}"  # never that of an earlier run, whose result the cluster may still hold
            future = client.submit(_on_worker, work, job, key=key, pure=False, resources=resources, **where)
            running[future] = job, tried

        def fill() -> None:
            """Give jobs to the workers that have none; one that has failed, to a worker that is new to it."""
            threads = client.nthreads()  # workers come and go
            busy = {worker: len(keys) for worker, keys in client.processing().items()}
            free = [worker for worker, n in threads.items() if busy.get(worker, 0) < n]
            for job, tried in left[::-1]:
                others = [worker for worker in free if worker not in tried]
                if resources or threads.keys() <= set(tried):
                    others = free  # it has failed on all there are
                if len(running) >= sum(threads.values()) or not others:
                    continue
                submit(job, tried, others[:1])
                left.remove((job, tried))
                busy[others[0]] = busy.get(others[0], 0) + 1
                if busy[others[0]] >= threads[others[0]]:
                    free.remove(others[0])
                if not free:
                    break

        try:
            while left or running:
                stop_if_asked()
                fill()
                show(len(running))
                if not running:
                    time.sleep(TICK)
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
                if future.status == "finished":
                    found = _outcome(future, job, len(tried) + 1)
                    if not found.error:
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

    def note(*signal_and_frame) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

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

    from lens.scale.sweep.results import outcome_of

    if future.status == "finished":
        found = future.result()
        return outcome_of(job, found, found["worker"], attempts)
    if future.status != "error":
        raise RuntimeError(GONE)
    error = future.exception()
    if isinstance(error, KilledWorker):
        died = error.allowed_failures + 1
        text = f"{died} worker{'s' * (died > 1)} died with it, the last {error.last_worker.address}: see its log."
        return Outcome(job, None, text, None, error.last_worker.address, attempts)
    return Outcome(job, None, sentence(error), None, None, attempts)


def _on_worker(work: Callable[[Job], dict], job: Job) -> dict:
    import torch
    from distributed import get_worker

    if threads := os.environ.get("OMP_NUM_THREADS"):  # torch may have been imported before it was set
        torch.set_num_threads(int(threads))
    return work(job) | {"worker": get_worker().address}
