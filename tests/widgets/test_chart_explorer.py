"""The chart explorer keeps the rows it was given, draws those that are chosen, and refuses what it cannot draw."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest

from lens.course.widgets import ChartExplorer

CSV = """operation,way,milliseconds,MB
<b>project</b>,lens,0.5,10
<b>project</b>,torch,2,40
update,lens,0.25,
update,torch,100,80
"""
CURVES = [
    {"model": model, "seed": seed, "step": step, "loss": (seed + 1) / step}
    for model in ("mini", "mini-l")
    for seed in (0, 1)
    for step in (1, 10, 100)
]


@pytest.fixture
def bars():
    rows = csv.DictReader(io.StringIO(CSV))
    labels = {"milliseconds": "time (ms)"}
    return ChartExplorer(rows, "operation", ["milliseconds", "MB"], hue="way", labels=labels, log=["milliseconds"])


@pytest.fixture
def lines():
    labels = {"loss": "loss (nats)"}
    return ChartExplorer(CURVES, "step", "loss", by=["model"], labels=labels, log=["step"], title="Curves")


def test_text_of_a_csv_that_is_a_number_becomes_one_and_an_empty_cell_is_missing(bars):
    columns = bars.state["columns"]
    assert columns["milliseconds"] == [0.5, 2, 0.25, 100] and columns["MB"] == [10, 40, None, 80]
    assert columns["way"] == ["lens", "torch"] * 2 and bars.state["kind"] == "bar"


def test_only_the_columns_that_are_used_travel(lines):
    assert set(lines.state["columns"]) == {"model", "step", "loss"} and lines.state["kind"] == "line"
    assert len(json.dumps(lines.state, allow_nan=False)) < 1000


def test_a_pandas_table_gives_the_same_chart_as_its_rows(lines):
    table = pd.DataFrame(CURVES)
    assert ChartExplorer(table, "step", "loss", by=["model"], labels={"loss": "loss (nats)"}, log=["step"],
                         title="Curves").state == lines.state  # fmt: skip


def test_numbers_of_numpy_and_missing_ones_become_plain():
    rows = [{"x": np.int64(1), "y": np.float32(0.5)}, {"x": 2, "y": float("nan")}, {"x": 3, "y": None}]
    assert ChartExplorer(rows, "x", "y").state["columns"] == {"x": [1, 2, 3], "y": [0.5, None, None]}


def test_wrong_arguments_are_refused_in_one_sentence(refuses):
    with refuses(ValueError, "no column 'speed'.*model, seed, step, loss"):
        ChartExplorer(CURVES, "step", "speed")
    with refuses(ValueError, "0 rows"):
        ChartExplorer([], "step", "loss")
    with refuses(ValueError, "'model' holds no number"):
        ChartExplorer(CURVES, "step", "model")
    with refuses(ValueError, "line needs numbers in column 'model'"):
        ChartExplorer(CURVES, "model", "loss", kind="line")
    with refuses(ValueError, "no kind 'pie'"):
        ChartExplorer(CURVES, "step", "loss", kind="pie")


# In a browser


@pytest.mark.slow
def test_a_select_redraws_the_chart_and_its_table(lines, visit, printed):
    rows = [row | {"loss": row["loss"] * (1 if row["model"] == "mini" else row["step"])} for row in CURVES]
    page = visit(printed(ChartExplorer(rows, "step", "loss", by=["model"], log=["step"])))
    drawn = page.locator("svg[role=img]").inner_html()
    page.get_by_text("the numbers").click()
    table = page.locator("details tbody").inner_text().split()
    assert table == ["1", "1", "10", "0.1", "100", "0.01", "1", "2", "10", "0.2", "100", "0.02"]
    page.get_by_label("model").select_option("mini-l")
    assert page.locator("svg[role=img]").inner_html() != drawn
    assert page.locator("details tbody").inner_text().split() != table


@pytest.mark.slow
def test_pointing_at_a_line_says_its_mean_and_range(lines, visit, printed):
    page = visit(printed(lines))
    box = page.locator("svg[role=img]").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 16, box["y"] + box["height"] - 40)
    assert page.locator("p.status").inner_text() == "step 100, loss (nats) 0.015, mean of 2, 0.01 to 0.02"


@pytest.mark.slow
def test_bars_carry_name_and_value_and_hostile_text_is_shown_as_it_is(bars, visit, printed):
    page = visit(printed(bars))
    said = page.locator("svg[role=img] text").all_text_contents()
    assert "<b>project</b>" in said and {"0.5  lens", "2  torch", "0.25  lens", "100  torch"} <= set(said)
    widths = [float(bar.get_attribute("width")) for bar in page.locator("svg rect").all()]
    assert widths[1] - widths[0] == pytest.approx(2 * (widths[0] - widths[2]), rel=1e-3), "a logarithmic scale"
    page.get_by_label("shown").select_option(label="MB")
    assert page.locator("svg rect").count() == 3, "a missing value has no bar"


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_charts_fit_a_phone_and_can_be_read_there(bars, lines, visit, printed, contrasts, accessible, dark):
    page = visit(printed(bars, lines), width=360, dark=dark)
    page.get_by_text("the numbers").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for selector in (".title", ".name", "td", "summary"):
        assert min(contrasts(page, f".lens-explorer {selector}")) >= 4.5
    assert page.evaluate("""() => [...document.querySelectorAll('svg text')].every((text) => {
        const [a, b] = [text.getBoundingClientRect(), text.closest('svg').getBoundingClientRect()];
        return a.left >= b.left - 1 && a.right <= b.right + 1;
    })"""), "no text leaves its drawing"
    accessible(page)
    wide = page.locator("svg[role=img]").first.bounding_box()["width"]
    page.set_viewport_size({"width": 800, "height": 800})
    page.wait_for_function(f"document.querySelector('svg[role=img]').getBoundingClientRect().width > {wide + 100}")
