"""How is a file written whole or not at all?  To a temporary name beside it, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """``with whole(path) as temporary``: write there; where the block ends well, the file takes its name.

    The folder is made where there is none.  Whatever goes wrong, ``path`` holds what it held before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors writes files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file, in UTF-8 with Unix line ends, or none."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
