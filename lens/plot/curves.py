"""Numbers over layers: lines, heat maps by segment, how layers resemble each other; a gradient as its factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from lens.gradient import FactoredGradient
from lens.plot import style


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
    ax = style.axes(ax, 6.4, 3.4)
    if log:  # before anything is drawn: the margins are then those of this scale
        ax.set_yscale("symlog", linthresh=1)
    for i, (name, values) in enumerate(series.items()):
        values = np.atleast_2d(np.asarray(values, dtype=float))
        line = style.series(i)
        layers = np.arange(values.shape[1])
        middle = np.median(values, axis=0)
        ax.plot(layers, middle, markersize=4, label=style.label(name, 48), **line)
        if len(values) > 1:
            low, high = np.quantile(values, [0.25, 0.75], axis=0)
            ax.fill_between(layers, low, high, color=line["color"], alpha=0.18, linewidth=0)
    for name, value in (reference or {}).items():
        ax.axhline(value, color=style.FAINT, linestyle="--", linewidth=1, label=style.label(name, 48))
    ax.set(xlabel="layer", ylabel=ylabel)
    style.title(ax, title or "")
    style.whole(ax.xaxis)
    style.legend(ax, loc="best")
    return ax


def by_segment(
    values, segments: Sequence[str], label: str, title: str | None = None, log: bool = False, ax: Axes | None = None
) -> Axes:
    """Draw a heat map of ``values`` [segments, layers]; the strongest layer of each segment is outlined."""
    values = np.asarray(values, dtype=float)
    ax = style.axes(ax, style.scale(values.shape[1], 5.5, 0.55), style.scale(len(segments), 2.2, 0.42))
    norm = LogNorm(values[values > 0].min(), np.nanmax(values)) if log and (values > 0).any() else None
    shown = np.where(values > 0, values, np.nan) if log else values
    sns.heatmap(shown, ax=ax, cmap=style.HEAT, norm=norm, cbar_kws={"label": label}, linewidths=0.5)
    layers = values.shape[1]
    labelled = np.unique(np.linspace(0, layers - 1, min(layers, 24)).round().astype(int))
    ax.set_yticks(np.arange(len(segments)) + 0.5, [style.label(s, 24) for s in segments], rotation=0, parse_math=False)
    ax.set_xticks(labelled + 0.5, labelled, rotation=0)
    for row, line in enumerate(values):
        if np.isfinite(line).any():
            ax.add_patch(plt.Rectangle((np.nanargmax(line), row), 1, 1, fill=False, edgecolor=style.INK, linewidth=1.6))
    ax.tick_params(length=0)
    ax.set(xlabel="layer")
    style.title(ax, title or "")
    return ax


def similarity(matrix, label: str = "cosine", title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a ``matrix`` [layers, layers] of cosines; colors go up to 1, from −1 and through light if one is negative.

    Where none is, they begin at the tenth below the least, so that layers which are all alike can be told apart.  Up to
    twelve layers have their numbers written into the cells.  Returns the axes.
    """
    ax = style.axes(ax, 5.4, 4.4)
    values = np.asarray(matrix, dtype=float)
    signed = (values < 0).any()
    least = -1 if signed else min(np.floor(10 * values.min()) / 10, 0.9)
    image = ax.imshow(values, origin="lower", cmap="vlag" if signed else style.HEAT, vmin=least, vmax=1)
    for (row, column), value in np.ndenumerate(values if len(values) <= 12 else values[:0]):
        ink = style.contrast(image.cmap(image.norm(value)))
        ax.text(column, row, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=8, color=ink)
    ax.figure.colorbar(image, ax=ax, label=label).outline.set_visible(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set(xlabel="layer", ylabel="layer")
    style.title(ax, title or "")
    style.whole(ax.xaxis, ax.yaxis)
    return ax


def spectrum(
    series: Mapping[str, Sequence],
    title: str | None = None,
    reference: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw singular values, largest first, as shares of the first: σ_k / σ_1 against k, both axes logarithmic.

    A value of ``series`` is [k], such as ``FactoredGradient.singular_values()``.  ``reference`` names horizontal lines,
    such as the threshold below which a singular value counts as zero.  Lines end where they fall below 10⁻¹².  Returns
    the axes.
    """
    ax = style.axes(ax, style.WIDTH, 4.2)
    for i, (name, values) in enumerate(series.items()):
        values = np.asarray(values.tolist() if hasattr(values, "tolist") else values, dtype=float)  # also from a GPU
        values = np.sort(values)[::-1]
        values = np.where(values > 1e-12 * values[0], values / (values[0] or 1.0), np.nan)
        k = np.arange(1, len(values) + 1)
        marked = np.unique(np.geomspace(1, len(k), 24).round().astype(int)) - 1
        ax.plot(k, values, markersize=4, markevery=list(marked), label=style.label(name, 48), **style.series(i))
    for i, (name, value) in enumerate((reference or {}).items()):
        ax.axhline(value, color=style.INK, linestyle=("--", ":", "-.")[i % 3], linewidth=1, label=style.label(name, 48))
    ax.set(xscale="log", yscale="log", xlabel="k", ylabel="$\\sigma_k\\,/\\,\\sigma_1$")
    style.title(ax, title or "")
    ax.xaxis.set_major_formatter("{x:.0f}")
    style.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return ax


def outer_product(gradient: FactoredGradient, tokens: Sequence[str] = (), cells: int = 48) -> np.ndarray:
    """Draw xᵀ [d_in, n], δ [n, d_out] and a corner of xᵀδ side by side (*Backward Lens*, figure 2).

    Only the first ``cells`` coordinates of each are drawn, and only their corner of the matrix is formed.  Each panel
    is scaled by its own largest entry.  Returns the three axes.
    """
    x, delta = (t[:, :cells].detach().float().cpu().numpy() for t in (gradient.x, gradient.delta))
    n = len(x)
    wide = x.shape[1] * 0.55
    left, middle, right = axes = style.axes(None, style.WIDTH, 3.4, 1, 3, width_ratios=[n + 2, wide, wide])
    _panel(left, x.T, f"$x^\\top$   {gradient.shape[0]} × {n}", "token", "input coordinate")
    _panel(middle, delta, f"$\\delta$   {n} × {gradient.shape[1]}", "output coordinate", "token")
    _panel(right, x.T @ delta, f"$x^\\top\\delta$   rank {gradient.rank()}", "output coordinate", "input coordinate")
    if len(tokens) == n:
        names = [style.label(t, 10) for t in tokens]
        left.set_xticks(range(n), names, rotation=90, fontsize=8, parse_math=False)
        middle.set_yticks(range(n), names, fontsize=8, parse_math=False)
    return axes


def _panel(ax: Axes, values: np.ndarray, title: str, xlabel: str, ylabel: str) -> None:
    top = np.abs(values).max() or 1.0
    ax.imshow(values, cmap="vlag", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
