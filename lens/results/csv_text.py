"""How do rows become a CSV file?  Behind lines that begin with ``#`` and say what made them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path


def as_csv(rows: Sequence[Mapping], *comments: str) -> str:
    r"""The text of the file; a column for each key that some row has.

    >>> as_csv([{"site": "ff2", "rank": 1}], "by hand")
    '# by hand\nsite,rank\nff2,1\n'
    """
    out = io.StringIO()
    out.writelines(f"# {comment}\n" for comment in comments)
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def from_csv(path: Path, *comments: str) -> list[dict[str, str]]:
    """The rows of such a file; none where there is no file, or one of these comments is not in it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    if not {f"# {comment}" for comment in comments} <= set(lines):
        return []
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
