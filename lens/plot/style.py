"""How do the book's figures look?  One style: quiet, color-blind safe, on a light ground readable at night."""

from __future__ import annotations

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

PALETTE = sns.color_palette("colorblind")
"""Line colors, told apart by readers with any common color vision."""

MARKERS = "osD^vPX*"

HEAT = "crest"
"""The sequential map of heat maps: lightness alone tells the order, also in grey."""

INK, FAINT = "#1f2430", "#8a8f9c"

WIDTH = 7.4
"""Inches that a figure may be wide, so that a page shows it at about its own size."""

SMALLEST = "Smallest text"
"""Where a notebook's PNG says how large its smallest text is, in points (an exponent counts with its base)."""


def use() -> None:
    """Make the book's style the current one; in a notebook, draw at twice the resolution (see ``SMALLEST``)."""
    look = {"savefig.bbox": "tight", "figure.dpi": 100, "axes.titlesize": 11, "axes.labelsize": 10}
    look |= {"legend.fontsize": 9, "axes.titlelocation": "left", "axes.edgecolor": FAINT, "text.parse_math": True}
    look |= dict.fromkeys(("figure.facecolor", "savefig.facecolor"), "white")
    look |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    look |= dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK)
    look |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 9)
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE, rc=look)
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")
        get_ipython().display_formatter.formatters["image/png"].for_type(Figure, _png)
    except (ImportError, AttributeError):  # not in a notebook
        pass


def _png(figure: Figure) -> tuple[str, dict]:
    from IPython.core.pylabtools import retina_figure

    return retina_figure(figure, base64=True, metadata={SMALLEST: f"{smallest(figure):g}"})


def smallest(figure: Figure) -> float:
    """Points of the smallest text that a figure shows; infinity if it shows none."""
    figure.draw_without_rendering()  # some texts are made only then
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return min((text.get_fontsize() for text in texts), default=float("inf"))


def axes(ax, width: float, height: float, *grid: int, **options):
    """The axes that were given, or those of a new figure of so many inches: one, or a ``grid`` of rows and columns."""
    return plt.subplots(*grid, figsize=(width, height), layout="constrained", **options)[1] if ax is None else ax


def series(i: int) -> dict:
    """How the i-th line of a picture is told from the others: its ``color`` and ``marker``."""
    return {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}


def percents(ax: Axes, values: np.ndarray, label: str) -> None:
    """A heat map of percents [rows, columns], each written in its cell; NaN leaves a cell empty."""
    text = np.vectorize(lambda v: "" if np.isnan(v) else f"{v:.2g}" if v < 10 else f"{v:.0f}")(values)
    look = {"cmap": HEAT, "vmin": 0, "linewidths": 0.5, "annot_kws": {"fontsize": 8}, "cbar_kws": {"label": label}}
    sns.heatmap(values, ax=ax, annot=text, fmt="", **look)
    ax.tick_params(length=0)


def whole(*some: Axis) -> None:
    """Ticks at whole numbers only, as layers and steps are."""
    for axis in some:
        axis.get_major_locator().set_params(integer=True)


def legend(ax: Axes, **place) -> None:
    """A legend whose names are data: a ``$`` in one is a dollar sign, not mathematics."""
    for text in ax.legend(**place).get_texts():
        text.set_parse_math(False)


def title(ax: Axes, words: str) -> None:
    """A title, in which ``$…$`` is mathematics if that can be read as such, and dollar signs if not."""
    ax.set_title(words, parse_math=_is_math(words))


def _is_math(words: str) -> bool:
    try:
        MathTextParser("path").parse(words)
    except ValueError:
        return False
    return True


def label(token: str, width: int = 12) -> str:
    """A token as a figure can show it: shortened in the middle, and a character without a glyph as its code point.

    >>> label("internationalisation"), label("猫 $x$")
    ('intern…sation', 'U+732B $x$')
    """
    shown = "".join(c if _has_glyph(c) else f"U+{ord(c):04X}" for c in token)
    half = width // 2
    return shown if len(shown) <= width + 1 else f"{shown[:half]}…{shown[-half:]}"


def contrast(rgba) -> str:
    """Dark or light ink, whichever reads better on this color (WCAG relative luminance)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba[:3])
    return INK if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.22 else "white"


def scale(cells: int, least: float, each: float, most: float = 16) -> float:
    """A figure side in inches that grows with the number of cells, within limits."""
    return float(min(max(least, each * cells), most))


@cache
def _font():
    return font_manager.get_font(font_manager.findfont("DejaVu Sans"))


@cache
def _has_glyph(char: str) -> bool:
    return char.isprintable() and _font().get_char_index(ord(char)) != 0
