"""The figure of energies shows each ratio and its interval where they belong, and chance at one."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lens import plot
from lens.evaluate.report import Estimate

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("rendered")]


def test_each_ratio_stands_at_its_site_with_its_interval_and_chance_is_a_line():
    own = {"attn_q": Estimate(1.5, 1.2, 1.9, 10), "ff2": Estimate(2.0, 1.8, 2.2, 10), 7: Estimate(0.5, None, None, 1)}
    other = {"attn_q": Estimate(1.4, 1.3, 1.5, 10), "ff2": Estimate(30.0, 20.0, 40.0, 10)}
    _, given = plt.subplots()
    ax = plot.energy_ratios({"own": own, "other": other}, title="any", ax=given)
    assert ax is given and ax.get_yscale() == "log" and ax.get_title("left") == "any"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["q", "FF2", "7"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["own", "other"]
    for container, values in zip(ax.containers, (own, other), strict=True):
        marks, _, (bars,) = container
        for i, key in enumerate(own):
            if key not in values:
                assert np.isnan(marks.get_ydata()[i])
                continue
            one = values[key]
            assert marks.get_ydata()[i] == one.mean and abs(marks.get_xdata()[i] - i) < 0.5
            ends = [one.mean, one.mean] if one.low is None else [one.low, one.high]
            assert np.allclose(bars.get_segments()[i][:, 1], ends)
    assert any(list(line.get_ydata()) == [1, 1] for line in ax.lines)


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no ratios to draw"):
        plot.energy_ratios({"own": {}})
