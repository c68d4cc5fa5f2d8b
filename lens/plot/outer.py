"""A gradient as what it is: n inputs, n VJPs, and the matrix they span."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from lens.gradient import FactoredGradient
from lens.plot import style


def outer_product(gradient: FactoredGradient, tokens: Sequence[str] = (), cells: int = 48) -> np.ndarray:
    """Draw xᵀ [d_in, n], δ [n, d_out] and a corner of xᵀδ side by side (*Backward Lens*, figure 2).

    Only the first ``cells`` coordinates of each are drawn, and only their corner of the matrix is formed.  Each panel
    is scaled by its own largest entry.  Returns the three axes.
    """
    x, delta = (t[:, :cells].detach().float().cpu().numpy() for t in (gradient.x, gradient.delta))
    n = len(x)
    fig, axes = plt.subplots(
        1,
        3,
        figsize=(style.WIDTH, 3.4),
        layout="constrained",
        width_ratios=[n + 2, x.shape[1] * 0.55, x.shape[1] * 0.55],
    )
    left, middle, right = axes
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
