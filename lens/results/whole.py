"""How is a file written whole or not at all?  To a temporary name beside it, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

from safetensors import SafetensorError

HALF = ".half"
"""How the name of a file ends that is being written; what a killed run leaves of these, ``lock.alone`` removes."""

TORCH = ("PytorchStreamWriter", "inline_container", "iostream error")
"""Words of what torch says that cannot write."""


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """``with whole(path) as temporary``: write there; where the block ends well, the file takes its name.

    The folder is made where there is none.  Whatever goes wrong, ``path`` holds what it held before.
    """
    path = Path(path).expanduser()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}{HALF}")
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors writes files that only their owner may read
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def written(path: str | Path) -> Iterator[None]:
    """Inside the block, which writes ``path``, what the system or a library says of a full disk becomes a sentence."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        known = isinstance(error, SafetensorError) or any(words in str(error) for words in TORCH)
        if number is None and not known:
            raise  # somebody's own sentence
        why = os.strerror(number) if number else f"is the disk full? {str(error).splitlines()[0]:.100}"
        raise OSError(
            f"The file {path} could not be written ({why}): make room, or give a place where you may write; what was "
            "there is kept."
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file, in UTF-8 with Unix line ends, or none."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
