"""Where does a subnetwork lie, how was it found, is it more than its size, and does a change fall on it?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, LogLocator, NullLocator

from lens.evaluate import Sweep
from lens.evaluate.knowledge import SETS
from lens.evaluate.report import Estimate
from lens.mask import Subnetwork
from lens.plot import style

SITES = {"attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_out": "out", "ff1": "FF1", "ff1_gate": "gate", "ff2": "FF2"}
LOSSES = {
    "suppress": "suppress (TargetKG)",
    "maintain_kg": "maintain (ControlKG)",
    "maintain_lm": "maintain (ControlLM)",
}


def density_heatmap(
    found: Subnetwork | Mapping[tuple[int, str], float], title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the density of each module in percent, [layers, sites], the last layer on top; returns the axes.

    ``found``: a subnetwork, or (layer, site) → share, such as the overlap of several.
    """
    shares = found.density("module") if isinstance(found, Subnetwork) else found
    return _heatmap({(layer, (site,)): share for (layer, site), share in shares.items()}, title, ax)


def head_heatmap(
    found: Subnetwork | Mapping[tuple[int, str, int], float], title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the density of each attention head in percent, [layers, heads of q, k, v and out]; returns the axes.

    ``found``: a subnetwork, or (layer, site, head) → share.
    """
    shares = found.density("head") if isinstance(found, Subnetwork) else found
    ax = _heatmap({(layer, (site, head)): share for (layer, site, head), share in shares.items()}, title, ax)
    ax.set_xlabel("head")
    return ax


def _heatmap(shares: Mapping, title: str | None, ax: Axes | None) -> Axes:
    """Cells of (layer, (site, …)) → share; a line between sites that have several columns."""
    if not shares:
        raise ValueError("There are no densities to draw: the subnetwork has no such sites.")
    layers = sorted({layer for layer, _ in shares}, reverse=True)
    columns = sorted({column for _, column in shares}, key=lambda column: (list(SITES).index(column[0]), *column[1:]))
    values = 100 * np.array([[shares.get((layer, column), np.nan) for column in columns] for layer in layers])
    ax = style.axes(ax, style.scale(len(columns), 4.6, 0.6), style.scale(len(layers), 2.4, 0.42))
    style.percents(ax, values, "density (%)")
    names = [" ".join([SITES[site], *map(str, rest)]) for site, *rest in columns]
    ax.set_xticks(np.arange(len(columns)) + 0.5, names, rotation=0 if len(columns) < 12 else 90)
    ax.set_yticks(np.arange(len(layers)) + 0.5, layers, rotation=0)
    for i, (one, other) in enumerate(zip(columns, columns[1:]), 1):
        if len(one) > 1 and one[0] != other[0]:
            ax.axvline(i, color=style.INK, linewidth=1.6)
    ax.set(xlabel="", ylabel="layer", title=title or "")
    return ax


def mask_history(
    history: Sequence[Mapping], title: str | None = None, axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """Draw a training: each loss over the steps, and the density; returns the two axes [2].

    ``history``: ``Subnetwork.history``, or what ``watch`` of ``lens.mask.train`` is given.  Solid: under the hard mask
    at each check; dashed: of the sampled masks, the mean since the check before.
    """
    axes = style.axes(axes, style.WIDTH, 2.9, 1, 2)
    steps = [row["step"] for row in history]
    for i, (name, label) in enumerate(LOSSES.items()):
        _both(axes[0], history, steps, name, style.PALETTE[i], label)
    _both(axes[1], history, steps, "density", style.INK, "density", scale=100)
    axes[0].set(yscale="log", xlabel="step", ylabel="KL divergence (nats)", title=title or "")
    axes[1].set(xlabel="step", ylabel="density (%)", ylim=(0, None))
    if history:
        axes[0].legend(loc="best")
        axes[1].legend(["hard mask", "sampled masks"], loc="best")
    style.whole(*(ax.xaxis for ax in axes))
    return np.asarray(axes)


def _both(ax: Axes, history, steps, name: str, color, label: str, scale: float = 1) -> None:
    for kind, line, mark in (("hard", "-", "o"), ("sampled", "--", "")):
        values = [scale * row[kind].get(name, np.nan) for row in history]  # a loss of weight 0 is not sampled
        ax.plot(steps, values, line, color=color, marker=mark, markersize=4, label=label if kind == "hard" else None)


class LiveHistory:
    """A training's history, redrawn in place after each check: ``lens.mask.train(…, watch=lens.plot.LiveHistory())``.

    In a notebook it is one figure of two axes [2]; elsewhere nothing is drawn.
    """

    def __init__(self, title: str | None = None):
        self._title = title
        self._handle = None

    def __call__(self, history: Sequence[Mapping]) -> None:
        if not _in_notebook():
            return
        from IPython.display import display

        figure = mask_history(history, self._title)[0].figure
        plt.close(figure)  # or the notebook would show it once more below the cell
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook has it already; elsewhere it is slow to import
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def sensitivity(sweep: Sweep, title: str | None = None, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Draw perplexities over the weights that are removed, of the target's sets and of the controls; the two axes [2].

    Solid: the subnetwork, with random weights given back (left of the vertical line) or removed beside it (right);
    dashed: random masks of the same size.  Lines are medians over the seeds, bands go from the least to the largest.
    """
    axes = style.axes(axes, style.WIDTH, 3.2, 1, 2)
    removed = 100 * sweep.removed.numpy()
    for i, name in enumerate(sweep.original):
        ax, color = axes[0 if name in ("target", "unseen") else 1], style.PALETTE[i % len(style.PALETTE)]
        for kind, line in (("subnetwork", "o-"), ("random", "s--")):
            values = sweep.ppl[kind, name].numpy()  # [shares, seeds]
            label = SETS[name] if kind == "subnetwork" else None
            ax.plot(removed, np.median(values, 1), line, color=color, markersize=4, label=label)
            ax.fill_between(removed, values.min(1), values.max(1), color=color, alpha=0.18, linewidth=0)
    for ax in axes:
        if 0.0 in sweep.shares:
            ax.axvline(removed[sweep.shares.index(0.0)], color=style.FAINT, linewidth=1, zorder=0)
        ax.set(yscale="log", xlabel="weights removed (%)", ylabel="perplexity")
        ax.yaxis.set_major_formatter(LogFormatter())
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # numbers where powers of ten are few
        chance = Line2D([], [], color=style.FAINT, linestyle="--", marker="s", markersize=4, label="random masks")
        handles = [*ax.get_legend_handles_labels()[0], chance]
        ax.legend(handles=handles, loc="best", frameon=True, framealpha=1, edgecolor="none")
    style.title(axes[0], sweep.name if title is None else title)
    return np.asarray(axes)


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
