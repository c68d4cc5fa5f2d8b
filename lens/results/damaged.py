"""What is said of a file that is not what it should be?  One sentence, whatever the reading stumbled over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from pathlib import Path

MEMORY = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")
"""Words of torch, of any device's memory; only one of its allocators has an error of its own."""


def full(error: BaseException) -> bool:
    """Did memory run out?"""
    own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return own or any(words in str(error) for words in MEMORY)


@contextmanager
def damaged(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Inside the block, which reads ``path``, what is unfit becomes an ``OSError``; that memory is full does not.

    >>> with damaged("x.json", "run file", "remove it"):
    ...     {}["format"]
    Traceback (most recent call last):
    OSError: The file x.json is no whole run file: remove it.
    """
    try:
        yield
    except Exception as error:  # each library has its own, and numbers that are other than they say raise any
        # EINVAL is what a jump to a wrong place in the file gives.
        if (isinstance(error, OSError) and error.errno != EINVAL) or full(error):
            raise
        raise OSError(f"The file {path} is no whole {what}: {remedy}.") from None


def like(value: object, form) -> bool:
    """Has what JSON gave this form: a type, several in a tuple, [the form of each item], {key: form} or more?

    >>> like({"layer": 3, "shape": [1, 2]}, {"layer": int, "shape": [int]}), like({"layer": "3"}, {"layer": int})
    (True, False)
    """
    if isinstance(form, dict):
        return isinstance(value, dict) and all(key in value and like(value[key], one) for key, one in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(like(item, form[0]) for item in value)
    return isinstance(value, form) and (form is bool or not isinstance(value, bool))


def check(value: object, form) -> None:
    """``ValueError`` where ``like`` says no."""
    if not like(value, form):
        raise ValueError(value)
