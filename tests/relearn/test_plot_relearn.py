"""Learning curves show each training's own numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

import lens
from lens import relearn


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_a_line_is_the_curve_and_a_band_what_several_trainings_reach(tiny, asked, refuses):
    lm = tiny("gpt2")
    some = [relearn.tune(lm, asked, asked[::2] if seed else asked, seed=seed, steps=3, every=1) for seed in (0, 1)]
    axes = lens.plot.learning_curves({"one": some[0], "both": some}, ("filtered", "score_filtered", "loss"))
    for ax, column in zip(axes, ("filtered", "score_filtered", "loss")):
        one, both = ax.get_lines()
        curves = [[row[column] for row in tuned.curve] for tuned in some]
        assert list(one.get_xdata()) == [0, 1, 2, 3]
        assert list(one.get_ydata()) == pytest.approx(curves[0], nan_ok=True)
        assert list(both.get_ydata()) == pytest.approx([(a + b) / 2 for a, b in zip(*curves)], nan_ok=True)
        assert len(ax.collections) == 1 and one.get_label() == "one"
    assert axes[0].get_ylim() == (-0.03, 1.03)
    with refuses(ValueError, "no column 'color'"):
        lens.plot.learning_curves({"one": some[0]}, ("color",))
    longer = relearn.tune(lm, asked, asked, steps=4, every=2)
    with refuses(ValueError, "'both' were checked at different steps"):
        lens.plot.learning_curves({"both": [some[0], longer]})
    with refuses(ValueError, "no trainings"):
        lens.plot.learning_curves({})
