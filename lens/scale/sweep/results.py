"""What came of a sweep?  The outcome of each job, in the order of the jobs, and what failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lens.scale.sweep.job import Job


@dataclass(frozen=True)
class Outcome:
    """What came of one job: its ``value``, as JSON reads it, or the ``error`` of its last attempt, a sentence.

    ``seconds`` the attempt took on ``worker`` (an address, or "here"), with the ``traceback`` where it failed;
    ``attempts``: how many were made in this run, 0 where the result was there already.
    """

    job: Job
    value: object = None
    error: str | None = None
    seconds: float | None = None
    worker: str | None = None
    attempts: int = 0
    traceback: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Results:
    """The outcomes of a sweep, in the order of its jobs; ``results["building-weight-0"]`` is that job's value.

    >>> done = Results((Outcome(Job("mean", "statistics:fmean", {"data": [2, 4]}), 3.0),))
    >>> done["mean"], done.failed, done.table()
    (3.0, (), [{'job': 'mean', 'value': 3.0}])
    """

    outcomes: tuple[Outcome, ...]

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, name: str) -> object:
        found = {outcome.job.name: outcome for outcome in self.outcomes}[name]
        if found.error:
            raise ValueError(f"The job {name!r} has no value, for it failed: {found.error}")
        return found.value

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes of the jobs that failed in every attempt."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    def table(self) -> list[dict]:
        """Flat rows, for ``pandas.DataFrame``: those of each job that did not fail, after its name under ``job``.

        A value that is a list of dicts, or a dict with such a list under ``rows``, has so many rows; another dict is
        one row, and anything else a row with ``value``.
        """
        done = [outcome for outcome in self.outcomes if not outcome.error]
        return [{"job": outcome.job.name} | row for outcome in done for row in _rows(outcome.value)]

    def report(self) -> str:
        """One line for each job that failed: its name, how many attempts were made, and the sentence of the last."""
        lines = (f"{o.job.name} failed in {o.attempts} attempt{'s' * (o.attempts > 1)}: {o.error}" for o in self.failed)
        return "\n".join(lines)


def _rows(value) -> list[dict]:
    rows = value.get("rows") if isinstance(value, dict) else value
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    return [value if isinstance(value, dict) else {"value": value}]
