"""Does a change fall on a subnetwork more than by chance?  Shares over chance, by module, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from lens.evaluate.report import Estimate
from lens.plot import style
from lens.plot.masks import SITES


def energy_ratios(
    series: Mapping[str, Mapping[str, Estimate]], title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw shares over chance with intervals, [names, sites]: name → site (or another group) → ``Estimate``; the axes.

    Each name has its color and mark, each site its place; where an estimate has no interval it is a mark alone.  The
    dashed line at 1 is chance; the axis is logarithmic, so that twice and half as much lie equally far from it.
    """
    groups = list(dict.fromkeys(group for values in series.values() for group in values))
    if not groups:
        raise ValueError("There are no ratios to draw: give at least one estimate.")
    ax = style.axes(ax, style.scale(len(groups), 4.6, 0.95, style.WIDTH), 3.4)
    ax.set_yscale("log")
    step, ends = 0.6 / max(len(series), 1), [1.0]
    for i, (name, values) in enumerate(series.items()):
        mean, low, high = np.array([_three(values.get(group)) for group in groups]).T
        ends += [end for end in (*low, *high) if end > 0]
        ax.errorbar(
            np.arange(len(groups)) + step * (i - (len(series) - 1) / 2), mean, yerr=[mean - low, high - mean],
            linestyle="", markersize=5, linewidth=1.4, capsize=2.5, label=name, **style.series(i),
        )  # fmt: skip
    ax.set_ylim(min(ends) / 1.1, max(ends) * 1.1)
    ax.axhline(1, color=style.FAINT, linestyle="--", linewidth=1, zorder=0)
    ax.set_xticks(range(len(groups)), [SITES.get(group, str(group)) for group in groups])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5)))  # ratios near 1 need more than powers of ten
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(ylabel="share of the energy / chance", title=title or "")
    ax.legend(loc="best")
    return ax


def _three(estimate: Estimate | None) -> tuple[float, float, float]:
    if estimate is None:
        return np.nan, np.nan, np.nan
    alone = estimate.low is None
    return estimate.mean, *((estimate.mean,) * 2 if alone else (estimate.low, estimate.high))
