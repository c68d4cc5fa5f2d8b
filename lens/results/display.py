"""How does a value show itself as the last line of a cell?  A small table whose cells may be shaded; text elsewhere.

Colors are those of the page around it: letters in ``currentColor``, shades a part of it, no ground of its own.  So one
table is right in light and dark, in Jupyter, Colab and the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MOST_ROWS, MOST_COLUMNS = 16, 12
"""A table shows no more; what it leaves out is counted below it."""

LONGEST = 60
"""Letters of a cell."""


@dataclass(frozen=True)
class Shaded:
    """A cell with a ground as strong as ``share``, between 0 and 1."""

    text: str
    share: float


@dataclass(frozen=True)
class Grid:
    """``heads`` over the columns; ``rows``, each with its own head first; ``note``, a sentence below."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str | Shaded]]
    note: str = ""


class Shown:
    """A value that shows itself: its ``repr`` is the title, ``_grid`` what stands below."""

    def _grid(self) -> Grid:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return table(repr(self), self._grid())


def spread(items: Sequence, most: int = MOST_ROWS) -> list:
    """At most so many of the items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def shaded(values: Sequence[Sequence[float]], form: str = ".2g") -> list[list[Shaded]]:
    """Numbers as cells, the largest of all with the strongest ground."""
    top = max((abs(value) for row in values for value in row), default=0.0) or 1.0
    return [[Shaded(format(value, form), abs(value) / top) for value in row] for row in values]


def table(title: str, grid: Grid) -> str:
    """The table as HTML, every text escaped."""
    rows = [row[:MOST_COLUMNS] for row in grid.rows[:MOST_ROWS]]
    body = "".join(
        f'<tr><th scope="row" style="{CELL}">{_text(head)}</th>{"".join(map(_cell, cells))}</tr>'
        for head, *cells in rows
    )
    heads = "".join(f'<th scope="col" style="{CELL}">{_text(head)}</th>' for head in grid.heads[:MOST_COLUMNS])
    left_out = [
        f"{len(all_of_them) - most} more {what}"
        for all_of_them, most, what in ((grid.rows, MOST_ROWS, "rows"), (grid.heads, MOST_COLUMNS, "columns"))
        if len(all_of_them) > most
    ]
    note = " ".join(filter(None, [grid.note, f"Not shown: {', '.join(left_out)}." if left_out else ""]))
    return (
        '<div class="lens-shown" style="overflow-x: auto; color: inherit; background: none" tabindex="0" role="group" '
        f'aria-label="{escape(_shorten(title, 160))}"><table style="border-collapse: collapse; color: inherit; '
        'background: none; font-size: 0.85em; font-variant-numeric: tabular-nums">'
        f'<caption style="{CAPTION}">{escape(_shorten(title, 400))}</caption>'
        f'<thead><tr style="background: none">{heads}</tr></thead><tbody>{body}</tbody></table>'
        + (f'<p style="margin: 0.3em 0; font-size: 0.85em">{escape(note)}</p>' if note else "")
        + "</div>"
    )


CELL = "text-align: left; padding: 0.15em 0.6em; font-weight: 600; background: none; color: inherit"
CAPTION = "caption-side: top; text-align: left; color: inherit; padding: 0.3em 0"


def _cell(cell: str | Shaded) -> str:
    style = "text-align: left; padding: 0.15em 0.6em; white-space: pre; color: inherit; background: "
    if isinstance(cell, Shaded):
        percent = round(30 * min(max(0.0, cell.share), 1.0))
        return f'<td style="{style}color-mix(in srgb, currentColor {percent}%, transparent)">{_text(cell.text)}</td>'
    return f'<td style="{style}none">{_text(cell)}</td>'


def _text(text: str) -> str:
    return escape(_shorten(text, LONGEST))


def _shorten(text: str, most: int) -> str:
    text = str(text).encode("utf-8", "replace").decode()  # half a character cannot be written into a page
    return text if len(text) <= most else f"{text[: most - 1]}…"
