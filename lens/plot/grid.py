"""A lens as a picture: layers upward, tokens to the right, a word in every cell, color for the number behind it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from lens.plot import style
from lens.readout.lenses import Lens

COLORS = {"norm": "length of the vector", "rank": "rank of the target", "probability": "probability of the word"}


def grid(lens: Lens, color: str = "norm", title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a ``Lens``: each cell's best word, colored by ``"norm"``, ``"rank"`` or ``"probability"``.

    The grid is [layers, tokens], the last layer on top.  A zero vector has no words: its cell is empty and marked 0.
    Lengths that span more than two powers of ten are colored on a logarithmic scale.  Returns the axes.
    """
    if color not in COLORS:
        raise ValueError(f"There is no color {color!r}: choose one of {', '.join(COLORS)}.")
    if color == "rank" and lens.ranks is None:
        raise ValueError("This lens was read without a target, so it has no ranks: pass target= to the lens.")
    if color == "probability" and lens.probabilities is None:
        raise ValueError("Only the logit lens has probabilities: color this one by 'norm' or 'rank'.")
    norms = lens.norms.cpu().numpy()
    values = norms
    if color == "rank":
        values = lens.ranks.float().cpu().numpy()
    elif color == "probability":
        values = lens.probabilities[..., 0].cpu().numpy()
    values = np.ma.masked_where(norms == 0, values)
    rows, columns = values.shape
    ax = style.axes(ax, style.scale(columns, 5, 0.9), style.scale(rows, 2.6, 0.36, most=20))
    low, high = (values.min(), values.max()) if values.count() else (0, 1)
    wide = color == "norm" and low > 0 and high > 100 * low
    limits = {"norm": (low, high), "rank": (0, high), "probability": (0, 1)}[color]
    scale = LogNorm(*limits) if wide else Normalize(*limits)
    image = ax.imshow(values, origin="lower", aspect="auto", cmap=style.HEAT, norm=scale)
    for (row, column), empty in np.ndenumerate(np.ma.getmaskarray(values)):
        text = "0" if empty else style.label(lens.words[row][column][0], 11)
        ink = style.FAINT if empty else style.contrast(image.cmap(image.norm(values[row, column])))
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=ink, parse_math=False, clip_on=True)
    ax.set_xticks(range(columns), [style.label(t, 12) for t in lens.tokens], rotation=30, ha="right", parse_math=False)
    ax.set_yticks(range(rows), lens.layers)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="token", ylabel="layer", title=title or lens.what)
    ax.figure.colorbar(image, ax=ax, label=COLORS[color], pad=0.02).outline.set_visible(False)
    return ax
