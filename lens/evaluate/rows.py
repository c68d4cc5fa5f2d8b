"""What came out for one record?  A line of a run file, and a row of its report."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from lens.results.damaged import check


@dataclass(frozen=True)
class Row:
    """One record's outcome: the six shares (0 to 1), ``entropy`` (hundredths of a bit), ``perplexity`` of the sample
    text, the ``seconds`` the edit took, the editor's ``note``; where the record failed, only ``error``, a sentence.

    A measure is None where it was not asked for or the record has no prompt for it.  ``record``: a digest of all that
    the record asks, None in a file from before there was one.
    """

    case_id: int
    subject: str
    target_new: str
    efficacy_accuracy: float | None = None
    efficacy_success: float | None = None
    paraphrase_accuracy: float | None = None
    paraphrase_success: float | None = None
    neighborhood_accuracy: float | None = None
    neighborhood_success: float | None = None
    entropy: float | None = None
    perplexity: float | None = None
    seconds: float | None = None
    note: str | None = None
    error: str | None = None
    record: str | None = None


KINDS = {"int": int, "str": str, "str | None": (str, type(None)), "float | None": (float, int, type(None))}
"""What JSON gives for a field's type."""


def row_from(line: str) -> Row:
    """A row from its line of JSON; ``ValueError``, ``TypeError`` or ``OverflowError`` where it is none."""
    row = Row(**json.loads(line))
    check(vars(row), {f.name: KINDS[f.type] for f in fields(Row)})
    for value in vars(row).values():
        if isinstance(value, int):
            float(value)  # of hundreds of digits it is none
    return row
