"""What was settled for each model?  JSON tables of the book's data, in which an entry is found by the model's name."""

from __future__ import annotations

import json
from functools import cache
from pathlib import PurePosixPath

from lens.data import paths


@cache
def table(file: str) -> dict:
    """What ``data/FILE`` holds, read once."""
    return json.loads((paths.root() / file).read_text(encoding="utf-8"))


def entry_name(model: str) -> str:
    """The name under which a model has its entry: of one that was opened from a folder, the folder's own.

    >>> entry_name("models/mini"), entry_name("mini")
    ('mini', 'mini')
    """
    return PurePosixPath(model.replace("\\", "/")).name
