"""How do numbers become a Markdown table?  Columns are padded, so that it reads as well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each; the first is the header.  What would end a cell or a line in one is written so that
    it does not.

    >>> print(table([["site", "rank"], ["ff2", "1"]]))
    | site | rank |
    |------|------|
    | ff2  | 1    |
    """
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)
