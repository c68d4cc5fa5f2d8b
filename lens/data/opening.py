"""How is a file opened that a reader brings?  JSON, JSON Lines or plain text, and what is none of these by its name.

Windows programs put a byte-order mark in front; ``git clone`` without Git LFS leaves a pointer in a file's place; and
of the field's data sets several are lists of objects: what an entry's keys give away is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lens.given import door

POINTER = b"version https://git-lfs.github.com/spec/"

FORMATS = {
    "CounterFact": {"requested_rewrite", "paraphrase_prompts"},
    "MQuAKE": {"requested_rewrite", "questions"},
    "zsRE": {"src", "rephrase"},
    "the released knowledge graphs": {"head", "tail"},
}
"""Keys by which an entry is known, looked at in this order."""


def format_of(entry: Mapping) -> str | None:
    """Of which data set's format an entry is, a key of ``FORMATS``; None where it is of no known one."""
    return next((name for name, keys in FORMATS.items() if keys <= entry.keys()), None)


def read_json(path: Path) -> object:
    """What a JSON file holds; of a JSON Lines file, a list of what its lines hold.

    Raises ``OSError`` where there is no such file, and ``ValueError`` where it is neither.
    """
    content = _bytes(path)
    try:
        return json.loads(content)  # by its first bytes UTF-8, -16 or -32, with or without a byte-order mark
    except RecursionError:
        raise ValueError(f"The file {path} is nested too deeply to be read: download or make it again.") from None
    except ValueError:
        lines = [line for line in content.splitlines() if line.strip()]
    with suppress(ValueError, RecursionError):
        if len(lines) > 1:
            return [json.loads(line) for line in lines]
    raise ValueError(f"The file {path} is no whole JSON and no JSON Lines: download or make it again.")


@door
def load_texts(path: str | Path) -> tuple[str, ...]:
    """The paragraphs of a text file in UTF-8: what stands between empty lines, one string each.

    Raises ``OSError`` where there is no such file, and ``ValueError`` where it holds no text.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.txt"
    ...     _ = path.write_text("It rained.\\nAll day.\\n\\nThen came the sun.")
    ...     load_texts(path)
    ('It rained. All day.', 'Then came the sun.')
    """
    path = Path(path).expanduser()
    try:
        found = paragraphs(_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"The file {path} is no UTF-8 text (see byte {error.start}): save it as UTF-8.") from None
    if not found:
        raise ValueError(f"The file {path} holds no text: give one with at least a paragraph.")
    return found


def paragraphs(text: str) -> tuple[str, ...]:
    """What stands between empty lines, each on one line."""
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return tuple(block for block in blocks if block)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise OSError(f"There is no file {path}: check the path.")
    content = path.read_bytes()
    if content.startswith(POINTER):
        raise ValueError(f"The file {path} is a Git LFS pointer, not the data: run 'git lfs pull', or download it.")
    return content
