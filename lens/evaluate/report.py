"""What came out, over all records?  Means with 95 % intervals, and never without the number of cases.

The unit is the record: its prompts share a subject and an edit, so they are averaged first.  With m the mean and s the
standard deviation of n records,

    shares that are all 0 or 1    Wilson's interval: all p with |m − p| ≤ z √(p(1−p)/n),  z = 1.96
    other values                  Student's:  m ± t s/√n,  t the 97.5 % point for n − 1 degrees of freedom

A share's interval ends at 0 and 1.  Wilson's does not shrink to nothing where every record succeeds: 100 of 100 still
leaves [96.3 %, 100 %].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev

from scipy.special import stdtrit

from lens.evaluate.prompts import CONVENTIONS, MEASURES, SHARES
from lens.evaluate.rows import Row
from lens.evaluate.run_file import read
from lens.results import markdown

NUMBERS = (*SHARES, "entropy", "perplexity", "seconds")


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` records and its 95 % interval, ``low`` to ``high`` (None for one value, not 0 or 1)."""

    mean: float
    low: float | None
    high: float | None
    count: int


def estimate(values: Sequence[float], share: bool = True) -> Estimate:
    """The mean of at least one value, one a record, with its 95 % interval; ``share`` says they lie within 0 and 1.

    >>> estimate([1.0] * 100)
    Estimate(mean=1.0, low=0.9630..., high=1.0, count=100)
    """
    n, mean = len(values), fmean(values)
    if share and set(values) <= {0, 1}:
        from scipy import stats  # slow to import

        low, high = stats.binomtest(round(n * mean), n).proportion_ci(0.95, "wilson")
    elif n > 1:
        spread = stdev(values) if all(map(isfinite, values)) else nan  # a ruined model's perplexity is infinite
        reach = float(stdtrit(n - 1, 0.975)) * spread / sqrt(n)
        low, high = (max(0.0, mean - reach), min(1.0, mean + reach)) if share else (mean - reach, mean + reach)
    else:
        return Estimate(mean, None, None, 1)
    return Estimate(mean, float(low), float(high), n)


@dataclass(frozen=True)
class Report:
    """What ``counterfact`` found: ``rows``, one per record, and the ``header`` that says how they were made."""

    header: dict
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """The report in a file that ``counterfact(out=…)`` wrote, finished or not.

        Raises ``OSError`` where there is none or it is damaged.
        """
        header, rows, _ = read(path)
        return cls(header, tuple(rows))

    @property
    def errors(self) -> tuple[Row, ...]:
        """The rows of the records that failed."""
        return tuple(row for row in self.rows if row.error)

    def summary(self) -> dict:
        """An ``Estimate`` for every measure that some record has, and ``cases`` and ``errors``, two counts.

        Records that failed are in no mean; a measure's ``count`` says how many records are.
        """
        found: dict = {"cases": len(self.rows), "errors": len(self.errors)}
        for name in NUMBERS:
            values = [value for row in self.rows if (value := getattr(row, name)) is not None]
            if values:
                found[name] = estimate(values, share=name in SHARES)
        return found

    def harmonic_mean(self, convention: str = "accuracy") -> float:
        """The harmonic mean of mean efficacy, paraphrase and neighborhood: 0 where one of them is 0 or missing."""
        if convention not in CONVENTIONS:
            raise ValueError(f"There is no convention {convention!r}: choose one of {', '.join(CONVENTIONS)}.")
        summary = self.summary()
        means = [summary[f"{m}_{convention}"].mean if f"{m}_{convention}" in summary else 0.0 for m in MEASURES]
        return len(means) / sum(1 / m for m in means) if all(means) else 0.0

    def table(self, *others: Report) -> str:
        """The summary as a Markdown table, with ``others`` (the unedited model's report, say) in columns beside it.

        Shares are in percent, each mean is followed by its 95 % interval, and by n where that is not all cases.
        """
        reports = (self, *others)
        summaries = [report.summary() for report in reports]
        lines = [["", *(f"{r.header['editor']}, {r.header['model']}" for r in reports)]]
        lines += [[count, *(str(s[count]) for s in summaries)] for count in ("cases", "errors")]
        for name in NUMBERS:
            if any(name in s for s in summaries):
                lines.append([_label(name), *(_cell(name, s) for s in summaries)])
        for convention in CONVENTIONS:
            label = f"harmonic mean, {convention} (%)"
            lines.append([label, *(f"{100 * r.harmonic_mean(convention):.1f}" for r in reports)])
        text = markdown.table(lines)
        if failed := next((row for r in reports for row in r.errors), None):
            text += f"\n\nThe first error, case {failed.case_id}: {failed.error}"
        return text

    def __str__(self) -> str:
        return self.table()


def _label(name: str) -> str:
    unit = {"entropy": "n-gram entropy (0.01 bits)", "perplexity": "perplexity", "seconds": "seconds per edit"}
    return unit.get(name) or name.replace("_", ", ") + " (%)"


def _cell(name: str, summary: dict) -> str:
    if name not in summary:
        return "-"
    e = summary[name]
    scale, digits = (100, 1) if name in SHARES else (1, 3 if name == "seconds" else 2)
    text = f"{scale * e.mean:.{digits}f}"
    if e.low is not None:
        text += f" [{scale * e.low:.{digits}f}, {scale * e.high:.{digits}f}]"
    return text if e.count == summary["cases"] else f"{text}, n = {e.count}"
