"""Means, intervals and the table: what they say, and whether 95 % means 95 %."""

from __future__ import annotations

import math
from statistics import stdev

import numpy as np
import pytest

from lens.evaluate.report import Estimate, Report, estimate
from lens.evaluate.rows import Row

HEADER = {"editor": "shift", "model": "mini"}


def rows(*values: float, **more) -> tuple[Row, ...]:
    return tuple(Row(i, "Nice", "a", efficacy_accuracy=v, **more) for i, v in enumerate(values))


@pytest.mark.parametrize("n", [12, 100])
def test_the_interval_of_ones_and_zeros_covers_the_truth_95_times_in_100(n):
    """Wilson's coverage, summed over the binomial distribution, swings with p (k is whole): its mean over p is 95 %."""
    intervals = [estimate([1.0] * k + [0.0] * (n - k)) for k in range(n + 1)]
    truths = [i / 200 for i in range(1, 200)]
    covered = [
        sum((e.low <= p <= e.high) * math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, e in enumerate(intervals))
        for p in truths
    ]
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.01) and min(covered) > 0.83


@pytest.mark.parametrize("n, k", [(12, 3), (100, 99)])
def test_at_both_ends_of_wilsons_interval_the_mean_is_two_standard_errors_away(n, k):
    e = estimate([1.0] * k + [0.0] * (n - k))
    for end in (e.low, e.high):
        assert abs(e.mean - end) == pytest.approx(1.9599640 * math.sqrt(end * (1 - end) / n), rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 100])
def test_the_interval_of_other_values_covers_the_truth_95_times_in_100(n):
    """4,000 samples from a normal distribution, where Student's interval is exact; two binomial errors are 0.7 %."""
    draws = np.random.default_rng(n).normal(7.0, 2.0, (4000, n)).tolist()
    hits = sum(e.low <= 7.0 <= e.high for e in (estimate(values, share=False) for values in draws))
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("n", [30, 200])
def test_the_interval_of_shares_per_record_covers_the_truth(n):
    """Neighborhood: each record has a share of its own, of which its ten prompts are draws.  Records are the unit."""
    rng = np.random.default_rng(0)
    draws = (rng.binomial(10, rng.beta(1.2, 0.6, (3000, n))) / 10).tolist()
    hits = sum(e.low <= 2 / 3 <= e.high for e in map(estimate, draws))
    assert hits / 3000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("degrees, point", [(1, 12.7062), (4, 2.7764), (5, 2.5706), (9, 2.2622), (99, 1.9842)])
def test_students_points_are_those_of_the_tables(degrees, point):
    values = [float(i % 2) for i in range(degrees + 1)]
    found = estimate([2 * v for v in values], share=False)
    assert (found.high - found.mean) * (degrees + 1) ** 0.5 / (2 * stdev(values)) == pytest.approx(point, rel=1e-4)


def test_a_single_value_has_no_interval_and_shares_stay_within_0_and_1():
    assert estimate([7.5], share=False) == Estimate(7.5, None, None, 1)
    assert estimate([0.5]) == Estimate(0.5, None, None, 1)
    wide = estimate([0.05, 0.0, 0.9])
    assert wide.low == 0 and wide.high == 1
    assert estimate([0.0, 0.0], share=False) == Estimate(0.0, 0.0, 0.0, 2)


def test_errors_are_counted_and_in_no_mean():
    report = Report(HEADER, (*rows(1.0, 0.0), Row(9, "Rome", "a", error="It broke.")))
    summary = report.summary()
    assert summary["cases"] == 3 and summary["errors"] == 1 and summary["efficacy_accuracy"].count == 2
    assert summary["efficacy_accuracy"].mean == 0.5 and "entropy" not in summary
    assert [row.case_id for row in report.errors] == [9]


def test_the_table_says_the_number_of_cases_and_puts_reports_side_by_side():
    report = Report(HEADER, rows(1.0, 1.0, 0.0, entropy=600.0))
    failed = Report(HEADER | {"editor": "none"}, (*rows(0.0), Row(5, "Rome", "a", error="It broke.")))
    lines = report.table(failed).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:4]] for line in lines if "|" in line}
    assert cells["cases"] == ["3", "2"] and cells["errors"] == ["0", "1"]
    assert cells[""] == ["shift, mini", "none, mini"] and cells["n-gram entropy (0.01 bits)"][1] == "-"
    assert cells["efficacy, accuracy (%)"] == ["66.7 [20.8, 93.9]", "0.0 [0.0, 79.3], n = 1"]
    assert lines[-1] == "The first error, case 5: It broke."
    assert str(report) == report.table() and len({len(line) for line in lines if line.startswith("|")}) == 1


def test_the_harmonic_mean_is_zero_where_one_of_the_three_is(refuses):
    row = Row(0, "a", "b", efficacy_accuracy=1.0, paraphrase_accuracy=0.5, neighborhood_accuracy=0.25)
    report = Report(HEADER, (row,))
    assert report.harmonic_mean() == pytest.approx(3 / (1 + 2 + 4))
    assert report.harmonic_mean("success") == 0
    with refuses(ValueError, "accuracy, success"):
        report.harmonic_mean("luck")
