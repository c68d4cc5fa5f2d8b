"""How does one column depend on another, for the rows a reader picks?  A chart over any small table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lens.course.widgets.explorer import Explorer, page
from lens.given import door

KINDS = ("line", "bar")
ROWS = 5000


class ChartExplorer(Explorer):
    """A chart of ``y`` over ``x``, for the rows that the selects choose, and these rows as a table below it.

    ``table``: rows as dicts (of ``csv.DictReader``, say: text that is a number becomes one), or a pandas table.  ``y``
    is a column or several to choose from; each column in ``by`` gets a select; ``hue`` gives a line or bar for each of
    its values.  ``kind``: ``"line"`` for an ``x`` of numbers (where rows share an x, the line is their mean and the
    band goes from the least to the largest) or ``"bar"``; by default whichever fits.  ``labels`` names columns, with
    their units; columns in ``log`` get a logarithmic axis; ``title`` stands above.

    Raises ``ValueError`` in one sentence for an unknown column or kind, a table without rows or with more than 5000,
    and a ``y`` without a number.

    >>> rows = [{"step": s, "loss": 1 / s, "run": r} for s in (1, 2, 4) for r in ("a", "b")]
    >>> ChartExplorer(rows, x="step", y="loss", hue="run", labels={"loss": "loss (nats)"}, log=["step"])
    <ChartExplorer: Loss (nats) over step, 6 rows.>
    """

    _esm, _css = page("chart")

    @door
    def __init__(
        self,
        table,
        x: str,
        y: str | Sequence[str],
        by: Sequence[str] = (),
        hue: str | None = None,
        kind: str | None = None,
        labels: Mapping[str, str] | None = None,
        log: Iterable[str] = (),
        title: str = "",
    ):
        rows = table.to_dict("records") if hasattr(table, "to_dict") else [dict(row) for row in table]
        if not 0 < len(rows) <= ROWS:
            raise ValueError(f"The table has {len(rows)} rows: give at least one and at most {ROWS}.")
        ys, by, log = ([c] if isinstance(c, str) else list(c) for c in (y, by, log))
        columns = dict.fromkeys([*by, *([hue] if hue else []), x, *ys])
        known = list(dict.fromkeys(name for row in rows for name in row))
        for name in [*columns, *log, *(labels or {})]:
            if name not in known:
                raise ValueError(f"There is no column {name!r} in this table: choose of {', '.join(map(str, known))}.")
        data = {name: [_number(row.get(name)) for row in rows] for name in columns}
        for name in ys:
            if not any(isinstance(v, (int, float)) for v in data[name]):
                raise ValueError(f"Column {name!r} holds no number, and a chart's y needs one.")
        numeric = all(isinstance(v, (int, float)) for v in data[x])
        kind = kind or KINDS[not numeric]
        if kind not in KINDS:
            raise ValueError(f"There is no kind {kind!r}: choose 'line' or 'bar'.")
        if kind == "line" and not numeric:
            raise ValueError(f"A line needs numbers in column {x!r}, which holds text: choose kind='bar'.")
        labels = {name: (labels or {}).get(name, name) for name in columns}
        super().__init__(dict(columns=data, x=x, y=ys, by=by, hue=hue, kind=kind, labels=labels, log=log, title=title))

    def summary(self) -> str:
        """What is drawn over what, and of how many rows."""
        label = self.state["labels"]
        text = f"{' or '.join(label[y] for y in self.state['y'])} over {label[self.state['x']]}"
        return f"{text[0].upper()}{text[1:]}, {len(self.state['columns'][self.state['x']])} rows."


def _number(value):
    """Text that spells a number as that number; a missing value as None; numpy's numbers as Python's."""
    if isinstance(value, str):
        try:
            return float(value) if value.strip().lower() not in ("nan", "inf", "-inf") else None
        except ValueError:
            return value or None
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or value != value else value
