"""Numbers over layers: lines with their spread, heat maps by segment, and how layers resemble each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from lens.plot import style

MARKERS = "osD^vPX*"


def by_layer(
    series: Mapping[str, Sequence],
    ylabel: str,
    title: str | None = None,
    log: bool = False,
    reference: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one line per entry of ``series`` over the layers.

    A value is [layers], or [samples, layers]: then the line is the median and the band the middle half of the samples.
    ``reference`` names horizontal lines, such as the rank expected by chance.  Returns the axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for i, (name, values) in enumerate(series.items()):
        values = np.atleast_2d(np.asarray(values, dtype=float))
        colour = style.PALETTE[i % len(style.PALETTE)]
        layers = np.arange(values.shape[1])
        middle = np.median(values, axis=0)
        ax.plot(layers, middle, color=colour, marker=MARKERS[i % len(MARKERS)], markersize=4, label=name)
        if len(values) > 1:
            low, high = np.quantile(values, [0.25, 0.75], axis=0)
            ax.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)
    for name, value in (reference or {}).items():
        ax.axhline(value, color=style.FAINT, linestyle="--", linewidth=1, label=name)
    if log:
        ax.set_yscale("symlog", linthresh=1)
    ax.set(xlabel="layer", ylabel=ylabel, title=title or "")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="best")
    return ax


def by_segment(
    values, segments: Sequence[str], label: str, title: str | None = None, log: bool = False, ax: Axes | None = None
) -> Axes:
    """Draw a heat map of ``values`` [segments, layers]; the strongest layer of each segment is outlined."""
    values = np.asarray(values, dtype=float)
    if ax is None:
        size = style.scale(values.shape[1], 5.5, 0.55), style.scale(len(segments), 2.2, 0.42)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    norm = LogNorm(values[values > 0].min(), values.max()) if log and (values > 0).any() else None
    shown = np.where(values > 0, values, np.nan) if log else values
    sns.heatmap(shown, ax=ax, cmap=style.HEAT, norm=norm, cbar_kws={"label": label}, linewidths=0.5)
    ax.set_yticklabels(segments, rotation=0)
    ax.set_xticklabels(range(values.shape[1]), rotation=0)
    for row, line in enumerate(values):
        if np.isfinite(line).any():
            ax.add_patch(plt.Rectangle((np.nanargmax(line), row), 1, 1, fill=False, edgecolor=style.INK, linewidth=1.6))
    ax.tick_params(length=0)
    ax.set(xlabel="layer", title=title or "")
    return ax


def similarity(matrix, label: str = "cosine", title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a layers × layers matrix of cosines, from −1 to 1 around a light zero."""
    if ax is None:
        _, ax = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
    image = ax.imshow(np.asarray(matrix, dtype=float), origin="lower", cmap="vlag", vmin=-1, vmax=1)
    ax.figure.colorbar(image, ax=ax, label=label).outline.set_visible(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set(xlabel="layer", ylabel="layer", title=title or "")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return ax
