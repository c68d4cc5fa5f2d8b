"""Which cluster does the work?  One that runs at an address, a client that is given, or processes of this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module

from lens.given import address, read
from lens.results.sentence import sentence

PATIENCE = 30
"""Seconds to wait for a scheduler at an address."""


GONE = "The scheduler is gone, or has dropped the jobs: what is finished is kept, and the same call goes on."


@contextmanager
def connected(scheduler) -> Iterator:
    """A ``distributed.Client`` of a scheduler's address or a cluster, closed afterwards; or the client that is given.

    Raises ``OSError`` where the scheduler cannot be reached, ``ValueError`` for what is no scheduler, and
    ``RuntimeError`` where it dies while the block lasts.
    """
    distributed = _needed("distributed")
    from distributed.comm import CommClosedError

    if isinstance(scheduler, distributed.Client):
        if scheduler.asynchronous:
            raise ValueError("The client is asynchronous, and a sweep waits for its jobs: give a synchronous one.")
        opened = nullcontext(scheduler)
    elif isinstance(scheduler, str) or hasattr(scheduler, "scheduler_address"):
        if isinstance(scheduler, str):
            _answers(address("scheduler", scheduler))
        opened = distributed.Client(scheduler, set_as_default=False, timeout=PATIENCE)
    else:
        raise ValueError(
            f"Got {scheduler!r} for a scheduler: give its address, such as 'tcp://10.0.0.1:8786', a "
            "distributed.Client, or a cluster."
        )
    try:
        with opened as client:
            yield client
    except (distributed.CancelledError, CommClosedError):
        raise RuntimeError(GONE) from None


def _answers(place: str) -> None:
    """Ask who is at ``place``; ``OSError`` unless it is a scheduler.

    Asked before there is a client: one that fails has no end to its waiting, and a traceback at exit.
    """
    import distributed
    from distributed.utils import LoopRunner

    async def ask() -> str:
        arguments = distributed.Security().get_connection_args("client")
        async with distributed.rpc(place, timeout=PATIENCE, connection_args=arguments) as other:
            return (await asyncio.wait_for(other.identity(), PATIENCE))["type"]

    try:
        # In a thread: a notebook has a loop of its own, and Ctrl-C need not wait.
        if (found := LoopRunner().run_sync(ask)) == "Scheduler":
            return
        what = f"a {found.lower()} answers"
    except (asyncio.TimeoutError, OSError):
        what = f"nothing answered as a scheduler does within {PATIENCE} seconds"
    except (TypeError, ValueError) as error:  # an address of another protocol, or one that asks for credentials
        what = sentence(error).rstrip(".")
    except Exception:  # as the bytes of another protocol are taken
        what = "what answers is no scheduler"
    raise OSError(
        f"The scheduler {place!r} cannot be reached ({what}): check that it runs, and its address, whose port is "
        "not the dashboard's."
    )


@contextmanager
def local(workers: int) -> Iterator:
    """A Dask cluster of ``workers`` processes on this machine, among which its processors are divided evenly.

    In a script, start it below ``if __name__ == "__main__":``, for each worker imports the script.  The processes know
    each other by credentials made for this cluster alone, so that other users of the machine cannot run code in them;
    its address is of use to nobody who has not got ``cluster.security``.

    Raises ``ValueError`` for other numbers than 1 to 1,000, and ``ImportError`` where ``distributed`` or
    ``cryptography`` is not installed.
    """
    read({"workers": workers})
    distributed = _needed("distributed")
    _needed("cryptography")  # Dask makes the credentials with it
    import dask.system

    share = max(1, dask.system.CPU_COUNT // workers)
    settings = {
        "distributed.scheduler.allowed-failures": 0,  # then ``retries`` alone counts
        # A dead worker's nanny starts the next.  Where that is slow, a second nanny must not do the same: the two
        # workers have one name, the scheduler refuses the second, and the first goes with its nanny.
        "distributed.deploy.lost-worker-timeout": "2 minutes",
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,  # slows torch, which reuses its memory
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port, and not the network
            memory_limit=0,  # a worker keeps its model, and must not be paused for that
            silence_logs=logging.CRITICAL,
            env={"OMP_NUM_THREADS": str(share)},
            security=True,
        ) as cluster,
    ):
        yield cluster


def _needed(package: str):
    try:
        return import_module(package)
    except ImportError:
        raise ImportError(
            f"Workers need the package {package}: install it with 'pip install lens-book[sweep]', or run the jobs in "
            "this process."
        ) from None
