"""How is one value read?  Each function returns it, or raises ``ValueError``: what was given, and what to give."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path

MOST = 2**53
"""The largest whole number, of steps or of rows, that is taken for meant."""


def refuse(name: str, value: object, wanted: str) -> ValueError:
    """The sentence of this room.

    >>> print(refuse("seed", "x", "a whole number"))
    seed is 'x': give a whole number.
    """
    return ValueError(f"{name} is {value!r:.60}: give {wanted}.")


def whole(name: str, value: object, least: float = 0, most: float = MOST) -> object:
    """A whole number from ``least`` to ``most``, of any type that counts as one, but not True or False."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:
        limit = "" if least == -inf else f", {least} or larger" if most == MOST else f" from {least} to {most}"
        raise refuse(name, value, f"a whole number{limit}")
    return value


def number(name: str, value: object, least: float = -inf, most: float = inf) -> object:
    """A finite number from ``least`` to ``most``."""
    try:
        fits = not isinstance(value, bool) and isinstance(value, Real) and isfinite(value) and least <= value <= most
    except OverflowError:  # a whole number that no float holds
        fits = False
    if not fits:
        limit = "" if least == -inf else f", {least} or larger" if most == inf else f" from {least} to {most}"
        raise refuse(name, value, f"a finite number{limit}")
    return value


def passes(rule: Callable, *given) -> bool:
    """Does a rule of this room let a value pass?"""
    try:
        rule("", *given)
    except ValueError:
        return False
    return True


def words(name: str, value: object) -> object:
    """A text, maybe an empty one."""
    if not isinstance(value, str):
        raise refuse(name, value, "a text")
    return value


def text(name: str, value: object) -> object:
    """A text with at least one letter or sign."""
    if not isinstance(value, str) or not value.strip():
        raise refuse(name, value, "a text that is not empty")
    return spelled(name, value)


def spelled(name: str, value: str) -> str:
    """A text without half a character (a lone surrogate), which UTF-8 cannot write and no tokenizer can read."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(value[error.start])
        raise ValueError(f"{name} holds {half}, half a character that UTF-8 cannot write: remove it.") from None
    return value


def named(name: str, value: object) -> object:
    """A name or a folder."""
    return value if isinstance(value, os.PathLike) else text(name, value)


def several(name: str, value: object, one: str, is_one) -> object:
    """An iterable whose items are each ``one``, in words; an iterator is not used up for it."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise refuse(name, value, f"a list, with {one} in each place")
    if isinstance(value, (list, tuple)) and (wrong := [item for item in value if not is_one(item)]):
        raise refuse(f"an item of {name}", wrong[0], one)
    return value


def one_or_several(name: str, value: object, one: str, is_one) -> object:
    """``one``, in words, or ``several``."""
    return value if is_one(value) else several(name, value, one, is_one)


def device(name: str, value: object) -> object:
    """A device that is there: ``cpu``, ``cuda``, ``cuda:1``, a ``torch.device``, ``auto``; None is left to the door."""
    import torch

    if value is None or value == "auto":
        return value
    try:
        found = torch.device(value) if isinstance(value, (str, torch.device)) else None
    except RuntimeError:
        found = None
    if found is None:
        raise refuse(name, value, "cpu, cuda, one of several GPUs as cuda:1, or auto")
    if found.type == "cuda" and (found.index or 0) >= (there := torch.cuda.device_count()):
        have = "none" if not there else "one" if there == 1 else f"{there}, cuda:0 to cuda:{there - 1}"
        raise ValueError(f"{name} is {str(value)!r}, and of GPUs that torch can use this machine has {have}: give cpu.")
    try:
        torch.empty(0, device=found)
    except (AssertionError, ImportError, NotImplementedError, RuntimeError):  # each kind of device has its own
        raise ValueError(f"{name} is {str(value)!r}, which this machine or its torch has not: give cpu.") from None
    return value


def address(name: str, value: object) -> object:
    """A scheduler's address; whether anybody is there is asked later."""
    port = str(value).rpartition(":")[2]
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:9]) < 2**16:
        raise refuse(name, value, "an address with a port from 1 to 65535, such as 'tcp://10.0.0.1:8786'")
    return value


def path(name: str, value: object) -> object:
    """A file's or folder's name."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or value == Path():
        raise refuse(name, str(value) if value == Path() else value, "the name of a file")
    spelled(name, os.fspath(value))
    if wrong := set(os.fspath(value)) & set("\0\n\r"):
        raise refuse(name, str(value), f"a name without {min(wrong)!r}")
    return value


def result_place(name: str, value: object) -> object:
    """Where a result can be written: a new or regular file or a folder, in a folder that is there or can be made."""
    path(name, value)
    try:
        place = Path(value).expanduser()
        if place.exists() and not place.is_file() and not place.is_dir():
            raise refuse(
                name, str(value), "the name of a plain file; this is a device or a pipe, which is not replaced"
            )
        folder = place if place.is_dir() else place.parent
        while not folder.exists():
            folder = folder.parent
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", "there is no such user")
        raise ValueError(f"{name} is {str(value)!r}, which cannot be a file's name here: {why}.") from None
    if not folder.is_dir():
        raise refuse(name, str(value), f"a place in a folder; {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK) or folder.resolve().parts[1:2] in (("proc",), ("sys",), ("dev",)):
        raise refuse(name, str(value), f"a place where you may write; {folder} is none")
    return value


def result_file(name: str, value: object) -> object:
    """``result_place`` of one file."""
    if Path(result_place(name, value)).expanduser().is_dir():
        raise refuse(name, str(value), "the name of a file; this is a folder")
    return value


def result_folder(name: str, value: object) -> object:
    """``result_place`` of a folder."""
    if Path(result_place(name, value)).expanduser().is_file():
        raise refuse(name, str(value), "the name of a folder; this is a file")
    return value
