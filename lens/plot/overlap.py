"""What do subnetworks share?  Regions as areas (Venn) or bars (UpSet), pairs as a matrix, each beside chance.

matplotlib-venn places the circles.  marsilea draws UpSet pictures: it is maintained, and runs on pandas 2 and 3, where
upsetplot (its last release is of 2023) stops with an error on pandas 3.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Hashable, Iterable
from types import ModuleType

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lens.given import door
from lens.overlap import Measured, Overlap
from lens.plot import style


@door
def venn(overlap: Overlap, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw n = 2 or 3 subnetworks as circles, areas in proportion, with chance below the numbers [2ⁿ − 1].

    Returns the axes.  Raises ``ValueError`` for more than three (``upset`` draws those) and where all are empty, and
    ``ImportError`` where matplotlib-venn is missing.
    """
    circles = _library("matplotlib_venn", "matplotlib-venn")
    names = overlap.names
    if len(names) not in (2, 3) or not overlap.union().observed:
        raise ValueError(
            f"A Venn diagram has two or three sets, not all empty, and there are {len(names)}: draw more with "
            "lens.plot.upset."
        )
    ax = style.axes(ax, 5.4, 4.4)
    found = _regions(overlap, range(1, 1 << len(names)))
    sizes = [m.observed for m in found.values()]
    labels = [f"{name}\n{size:,}" for name, size in overlap.sizes().items()]
    colors = style.PALETTE[: len(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of circles that cannot have all areas right
        drawn = getattr(circles, f"venn{len(names)}")(sizes, labels, colors, 0.45, ax=ax)
    for some, m in found.items():
        text = drawn.get_label_by_id("".join(str(int(name in some)) for name in names))
        if text is not None:
            text.set(text=f"{m.observed:,}\n({m.expected:,.{0 if m.expected >= 10 else 1}f})", fontsize=9)
    for text in drawn.set_labels:
        text.set(fontsize=10, parse_math=False)
    style.title(ax, title if title is not None else f"{overlap.unit}, in brackets by chance")
    return ax


@door
def upset(
    overlap: Overlap, most: int = 20, least: int = 1, title: str | None = None, log: bool = False
) -> tuple[Axes, Axes]:
    """Draw the largest regions as bars over a matrix that says which subnetworks they belong to; dashes are chance.

    ``most``: how many regions; ``least``: only those of at least so many subnetworks; ``log``: a logarithmic axis.
    Returns the axes of bars and matrix [n, regions], in a figure of their own.  Raises ``ValueError`` where no region
    has a weight, and ``ImportError`` where marsilea is missing.
    """
    library = _library("marsilea.upset", "marsilea")
    counts = overlap.counts.sum(0)
    held = [s for s in np.argsort(-counts, kind="stable").tolist() if s.bit_count() >= max(least, 1) and counts[s]]
    if not held:
        raise ValueError(f"No weight is in at least {least} of these subnetworks: there is nothing to draw.")
    found = _regions(overlap, held[:most])
    few, color = len(found) <= 8, mpl.colors.to_hex(style.PALETTE[0])
    member = np.array([[name in some for name in overlap.names] for some in found], dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's use of pandas
        data = library.UpsetData(member, list(map(str, overlap.names)), range(len(found)))
        table = data.sets_table()  # it would count items, one a weight; the counts are known
        sizes = {tuple(row): m.observed for row, m in zip(member.tolist(), found.values())}
        table["cardinality"] = [sizes[tuple(row)] for row in table.index.to_frame().to_numpy().tolist()]
        board = library.Upset(
            data,
            sets_order=list(map(str, overlap.names)),
            sort_subsets="-cardinality",
            color=color,
            add_intersections=False,
            add_sets_size=False,
            sets_label_kws={"fontsize": 9, "parse_math": False},
            width=max(1.5, (0.6 if few else 0.27) * len(found)),
            height=0.27 * len(overlap.names),
        )
        heights = board.sets_table["cardinality"].to_numpy()
        heights = library.Numbers(heights, color=color, show_value=few, fmt="{:,.0f}", props={"fontsize": 8})
        board.add_top(heights, size=1.8, pad=0.1, name="bars")
        board.render()
        columns = board.sets_table.index.to_frame().to_numpy().astype(bool).tolist()  # the library's own order of ties
    bars, matrix = board.get_ax("bars"), board.get_main_ax()
    drawn = [found[tuple(name for name, inside in zip(overlap.names, some) if inside)] for some in columns]
    for bar, m in zip(sorted(bars.patches, key=lambda bar: bar.get_x()), drawn):
        ends = bar.get_x() - 0.04, bar.get_x() + bar.get_width() + 0.04
        bars.plot(ends, [m.expected] * 2, color=style.INK, linewidth=1.8, solid_capstyle="butt")
    if log:
        bars.set_yscale("log", nonpositive="clip")
        bars.set_ylim(max(0.5, 0.5 * min(m.observed for m in found.values())), None)
    bars.set_ylabel(overlap.unit)
    chance = Line2D([], [], color=style.INK, linewidth=1.8, label="by chance")
    bars.legend(handles=[chance], loc="lower right", bbox_to_anchor=(1, 1))
    style.title(bars, title or "")
    return bars, matrix


@door
def iou_heatmap(overlap: Overlap, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the IoU of every two subnetworks in percent, [n, n]: below the diagonal as observed, above it by chance.

    Both halves share the colors.  Returns the axes.
    """
    names = overlap.names
    values = np.full((len(names), len(names)), np.nan)
    for (a, b), m in overlap.pairs().items():
        i, j = names.index(a), names.index(b)
        values[j, i], values[i, j] = 100 * m.observed, 100 * m.expected
    side = style.scale(len(names), 3.2, 0.52)
    ax = style.axes(ax, 1.2 * side, side)
    style.percents(ax, values, "IoU (%)")
    ticks, labels = np.arange(len(names)) + 0.5, list(map(str, names))
    long = max(map(len, labels)) > 4
    ax.set_xticks(ticks, labels, rotation=45 if long else 0, ha="right" if long else "center", parse_math=False)
    ax.set_yticks(ticks, labels, rotation=0, parse_math=False)
    style.title(ax, title if title is not None else "below: observed, above: by chance")
    return ax


def _regions(overlap: Overlap, patterns: Iterable[int]) -> dict[tuple[Hashable, ...], Measured]:
    """The names in each pattern → how many weights are in exactly these."""
    groups = [tuple(name for i, name in enumerate(overlap.names) if s >> i & 1) for s in patterns]
    return {some: overlap.exactly(*some) for some in groups}


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(
            f"This picture is drawn by the package {package}: install it with 'pip install lens-book[overlap]'."
        ) from None
