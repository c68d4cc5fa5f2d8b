"""How do two runs not write one result?  The first holds a lock beside it, which the system takes from the dead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path

from filelock import FileLock, Timeout

from lens.results.whole import HALF


@contextmanager
def alone(place: str | Path | None, inside: bool = False, wait: bool = False) -> Iterator[None]:
    """In the block nobody else is in one for ``place``, a file or, ``inside``, a folder; None is no place.

    What a killed run left there half written is removed.  ``wait``: until the other one is done; else ``OSError``
    names its lock.  A file system without locks has none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, alone(folder, inside=True):
    ...     with alone(folder, inside=True):
    ...         pass
    Traceback (most recent call last):
    OSError: Another run is writing ... and holds the lock ...lock: wait for its end, or give another place.
    """
    if place is None:
        yield
        return
    place = Path(place).expanduser()
    folder, name = (place, "") if inside else (place.parent, place.name)
    lock = folder / (f".{name}.lock" if name else ".lock")
    held = FileLock(lock, timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise OSError(
            f"Another run is writing {place} and holds the lock {lock}: wait for its end, or give another place."
        ) from None
    except NotImplementedError:  # no locks here
        pass
    except OSError as error:
        raise OSError(f"The folder {folder} cannot hold a result ({error.strerror or error}): give another.") from None
    try:
        mine = re.compile(rf"\.{{1,2}}{re.escape(name)}(\..+)?\.\d+{HALF}" if name else rf"\..+\.\d+{HALF}")
        for left in folder.iterdir():
            if mine.fullmatch(left.name):
                left.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody remove what is open
            lock.unlink()
        held.release()


def held_alone(*files: str, folders: tuple[str, ...] = ()) -> Callable:
    """A decorator: the function runs ``alone`` with the places that its arguments of these names give."""

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @wraps(function)
        def with_locks(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            with ExitStack() as locks:
                for name in (*files, *folders):
                    locks.enter_context(alone(given.get(name), inside=name in folders))
                return function(*args, **kwargs)

        return with_locks

    return decorate
