"""How close to the machine's limits does a kernel come, and how close do the other ways of doing the same?"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lens.plot import style


def roofline(table: pd.DataFrame, title: str | None = None, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Draw the results of ``python -m lens bench kernels``, rows of one device and one dtype, on two axes.

    First, the roofline turned on its side: GB/s of the bytes that must move, over the operations that must be done to
    each byte.  The roof is min(bandwidth, rate / operations per byte), both read off the table's floors; a point is
    the way ``lens``, with its operation's letter.  Then: time ÷ floor of every way, so the roof is at 1 and left of
    it is faster.  ``table`` has the columns of ``data/bench/*.csv``; one color, one operation.  Raises ``ValueError``
    for several dtypes, whose roofs differ.  Returns the two axes, an array [2].
    """
    if table["dtype"].nunique() > 1:
        raise ValueError(f"One roof holds for one dtype, and there are {', '.join(table['dtype'].unique())}.")
    operations = list(dict.fromkeys(table["operation"]))
    names = [f"{style.label(name, 48)}   {ascii_lowercase[i % 26]}" for i, name in enumerate(operations)]
    left, right = style.axes(axes, style.WIDTH, 2 * style.scale(len(operations), 3.2, 0.3), 2)
    _roof(left, table)
    ours = table[table["way"] == "lens"]
    for row in ours.itertuples():
        i = operations.index(row.operation)
        x, y = 1e3 * row.gigaflop / row.moved_MB, row.moved_MB / row.milliseconds
        left.plot(x, y, **_point(i))
        place = ((7, -3), (-13, -3), (-3, 8), (-3, -15))[i % 4]  # neighbors on all sides of points that lie together
        if row.floor_ratio < 2:  # on the roof: away from its line
            place = (-12, -11) if row.floor_ratio >= 1 else (6, 4)
        left.annotate(ascii_lowercase[i % 26], (x, y), place, textcoords="offset points", fontsize=10)
    left.set(xlabel="operations per byte", ylabel="GB/s of bytes that must move", title=title or "")

    ways = [way for way in dict.fromkeys(table["way"]) if way != "lens"]
    for k, way in enumerate(ways):
        rows = table[table["way"] == way]
        at = [operations.index(name) for name in rows["operation"]]
        faint = {"color": style.FAINT, "markerfacecolor": "white", "markersize": 5, "linestyle": "none"}
        right.plot(rows["floor_ratio"], at, marker=style.series(k + 1)["marker"], label=style.label(way, 32), **faint)
    right.plot([], [], "o", color=style.INK, markersize=7, label="lens")
    for row in ours.itertuples():
        i = operations.index(row.operation)
        right.plot(row.floor_ratio, i, **_point(i))
    right.axvline(1, color=style.INK, linewidth=1)
    right.set(xscale="log", xlabel="time ÷ floor", ylim=(len(operations) - 0.5, -0.5))
    right.set_yticks(range(len(operations)), names, parse_math=False)
    right.xaxis.set_major_formatter("{x:g}")
    right.tick_params(axis="y", length=0)
    style.legend(right, loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=3)
    return np.array([left, right])


def _roof(ax: Axes, table: pd.DataFrame) -> None:
    """The two limits: a floor is the larger of bytes/bandwidth and operations/rate, so each is the best any implies."""
    bandwidth = (table["moved_MB"] / table["floor_milliseconds"]).max()  # GB/s
    rate = (1e3 * table["gigaflop"] / table["floor_milliseconds"]).max()  # GFLOP/s
    ridge = rate / bandwidth
    most = max(10 * ridge, 2e3 * (table["gigaflop"] / table["moved_MB"]).max(), 10)
    x = np.concatenate([[0], np.geomspace(0.1, most, 400)])
    ax.plot(x, np.minimum(bandwidth, rate / np.maximum(x, 1e-9)) if rate else 0 * x + bandwidth, color=style.INK)
    ax.set_xscale("symlog", linthresh=1)
    ax.set(yscale="log", xlim=(-0.4, most))
    ax.xaxis.set_major_formatter("{x:g}")


def _point(i: int) -> dict:
    edge = {"markeredgecolor": style.INK, "markeredgewidth": 0.6}
    return {"marker": "o", "color": style.series(i)["color"], "markersize": 7} | edge
