"""Which claims of a chapter hold, and on which model?  Each claim is one call: a measure, its value, and a control.

A cell that calls ``claim`` shows the claim in a sentence and carries it as data in its output, from where the build
collects it.  ``table`` sets the claims of a chapter that this run has made beside those of the other editions, which
are result files: ``data/claims/MODEL.json``, written by the build of that edition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from math import isfinite

from lens.data import manifest, paths
from lens.results import markdown

__all__ = ["VERDICTS", "Claim", "Table", "claim", "edition", "table", "verdict"]

MIME = "application/vnd.lens.claim+json"
"""Under this type a cell's output carries a claim."""

VERDICTS = ("holds", "holds in part", "does not hold", "not tested")


@dataclass(frozen=True)
class Claim:
    """One claim on one model.

    ``measure`` says in words what ``value`` is; ``control`` is the same measure where the effect must be absent;
    ``interval`` its 95 % interval where there is one; ``n`` over how many cases.  ``says`` and ``measure`` are the same
    on every model; ``at`` is where it was measured on this one, such as its layer.  ``form`` is how numbers are
    written, ``paper`` what the paper reports.  ``series`` holds curves by name, for a figure in another edition.
    """

    chapter: str
    name: str
    says: str
    measure: str
    value: float
    verdict: str
    control: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    at: str = ""
    form: str = ".2f"
    paper: str = ""
    series: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"The verdict of {self.name!r} is {self.verdict!r}: choose of {', '.join(VERDICTS)}.")
        if isinstance(self.interval, list):  # as JSON gives it
            object.__setattr__(self, "interval", tuple(self.interval))
        numbers = [self.value, *([] if self.control is None else [self.control]), *(self.interval or ())]
        if not all(isfinite(float(number)) for number in numbers):
            raise ValueError(f"The claim {self.name!r} has a number that is none: {numbers}.")

    @property
    def numbers(self) -> str:
        """The value, its interval, and the control, in words."""
        said = format(self.value, self.form)
        if self.interval:
            said += " [{}, {}]".format(*(format(end, self.form) for end in self.interval))
        return said + ("" if self.control is None else f"; control {format(self.control, self.form)}")

    @property
    def where(self) -> str:
        """``at``, as it stands behind the measure or the numbers."""
        return self.at and f" ({self.at})"

    def _repr_mimebundle_(self, **_) -> dict:
        count = "" if self.n is None else f", n = {self.n}"
        measured = f"{self.measure}{self.where}: {self.numbers}{count}."
        return {
            "text/markdown": f"*{self.says}* **{self.verdict.capitalize()}.** {measured}",
            "text/plain": f"{self.says} — {self.verdict}. {measured}",
            MIME: asdict(self),
        }


def verdict(value: float, holds: float, part: float) -> str:
    """The word for a value of which more is better: at least ``holds``, at least ``part``, or less.

    >>> verdict(0.7, holds=0.9, part=0.5)
    'holds in part'
    """
    return VERDICTS[0 if value >= holds else 1 if value >= part else 2]


_made: dict[tuple[str, str], Claim] = {}


def claim(chapter: str, name: str, says: str, *, measure: str, value: float, verdict: str, **rest) -> Claim:
    """Record a claim of ``chapter`` under ``name``; as a cell's last line it shows itself (``Claim`` has the fields).

    >>> claim("low_rank", "rank", "The rank is the number of tokens.", measure="share of prompts", value=1.0,
    ...       control=0.0, verdict="holds", form=".0%").numbers
    '100%; control 0%'
    """
    numbers = {k: None if v is None else tuple(map(float, v)) for k, v in rest.items() if k == "interval"}
    numbers |= {k: None if v is None else float(v) for k, v in rest.items() if k == "control"}
    series = {k: [float(x) for x in v] for k, v in rest.pop("series", {}).items()}
    made = Claim(chapter, name, says, measure, float(value), verdict, **{**rest, **numbers, "series": series})
    _made[chapter, name] = made
    return made


@cache
def edition(model: str) -> dict[tuple[str, str], Claim]:
    """The committed claims of the edition on ``model``, by chapter and name; empty where there is none.

    >>> edition("no-such-model")
    {}
    """
    try:
        held = json.loads(manifest.whole(paths.root() / "claims" / f"{model}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {(row["chapter"], row["name"]): Claim(**row) for row in held["claims"]}


class Table:
    """Claims in rows, the paper and models in columns; in a notebook a table, in a terminal its Markdown."""

    def __init__(self, columns: Mapping[str, Mapping[tuple[str, str], Claim]]):
        self.columns = columns

    def lines(self) -> list[list[str]]:
        known: dict[tuple[str, str], Claim] = {}
        for claims in self.columns.values():
            for key, one in claims.items():
                known.setdefault(key, one)
        rows = [["claim", "measure", "paper", *self.columns]]
        for key, one in known.items():
            cells = [_cell(claims.get(key)) for claims in self.columns.values()]
            rows.append([one.says, one.measure, one.paper or "–", *cells])
        return rows

    def __str__(self) -> str:
        return markdown.table(self.lines())

    def _repr_markdown_(self) -> str:
        return str(self)


def table(chapter: str, model: str) -> Table:
    """The claims of ``chapter`` that this run on ``model`` has made, beside those of the other editions."""
    mine = {key: one for key, one in _made.items() if key[0] == chapter}
    columns = {model: mine}
    for other in ("mini", *paths.FETCHED):
        if other != model:
            held = {key: one for key, one in edition(other).items() if key[0] == chapter}
            columns[other] = {key: one for key, one in held.items() if key in mine} if mine else held
    return Table(columns)


def _cell(one: Claim | None) -> str:
    return "not tested" if one is None else f"{one.numbers}{one.where}: **{one.verdict}**"
