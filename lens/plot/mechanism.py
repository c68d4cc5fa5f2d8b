"""What does one gradient step write into an MLP?  Two pictures of one layer, with its own words in the boxes.

``mlp_pass`` is the layer on the way up and on the way down (*Backward Lens*, figure 1); ``imprint_and_shift`` is the
step at single neurons (figure 3).  Both show token i's share of the step, W ← W − η xᵢᵀδᵢ: column j of FF1 receives
−η δᵢ[j] xᵢ, a signed copy of the input; row j of FF2 receives −η aᵢ[j] δᵢ, a signed copy of the VJP.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from lens.gradient import Trace
from lens.model import LanguageModel
from lens.model.families import check_adds
from lens.plot import style
from lens.readout import project

FORWARD, BACKWARD = style.PALETTE[0], style.PALETTE[1]

SMALL = 10  # points: a page shows ten inches in seven

WORDLESS = "before that norm its values have no words, so draw lens.backward_lens, which reads behind it"


@torch.no_grad()
def mlp_pass(
    lm: LanguageModel, trace: Trace, layer: int, token: int = -1, cells: int = 24, ax: Axes | None = None
) -> Axes:
    """Draw one layer's MLP at one token of a prompt: weights and words on the way up, the update and words below.

    The upper row holds the top words of LL(x) and of LL(output), both [d], and a corner of FF1 [d, d_m] and of FF2
    [d_m, d].  The lower row holds the same corner of the updates −xᵀδ, each beside the two vectors it is the outer
    product of, and the words they write: the top of LL(x), the bottom of LL(δ).  The corner is the first ``cells``
    coordinates of the stream and the ``cells`` neurons of largest ``|aδ|``.  ``trace`` is of one prompt, with ``ff1``
    and ``ff2`` of this layer.  Returns the axes.  Raises ``ValueError`` in a family with a norm behind FF2, and for
    a trace of another model.
    """
    check_adds(lm, "ff2", "This picture", WORDLESS)
    x, delta, a, vjp = _factors(lm, trace, layer, token)
    out = lm.site(layer, "ff2")(a)
    neurons = (a * delta).abs().topk(min(cells, len(a))).indices
    ff1, ff2 = lm.weight(layer, "ff1")[:cells, neurons], lm.weight(layer, "ff2")[neurons, :cells]
    ax = _canvas(ax, 10, 4.9)
    top, low, side = 2.85, 0.1, 1.5  # lower edges of the two rows, and a panel's side
    left, right = 2.3, 5.9  # left edges of FF1 and FF2

    ax.text(0.1, 4.65, f"forward, layer {layer % len(lm.layers)}", color=FORWARD, weight="bold", fontsize=10)
    _words(ax, 0.1, top, "input x", _read(lm, x), FORWARD)
    _matrix(ax, left, top, side, ff1, "FF1: a column is a key", FORWARD)
    _matrix(ax, right, top, side, ff2, "FF2: a row is a value", FORWARD)
    _matrix(ax, 4.4, top + 0.65, 0.9, a[neurons][None], "neurons a", FORWARD, height=0.2)
    _words(ax, 8.2, top, "output adds", _read(lm, out), FORWARD)
    for start, end in ((1.7, 2.2), (3.9, 4.3), (5.4, 5.8), (7.5, 8.1)):
        _arrow(ax, start, end, top + side / 2, FORWARD)

    ax.text(0.1, 2.1, "backward, and what the step writes", color=BACKWARD, weight="bold", fontsize=10)
    _words(ax, 0.1, low, "imprint: copies of x", _read(lm, x), BACKWARD)
    _matrix(ax, left, low, side, -torch.outer(x[:cells], delta[neurons]), "", BACKWARD)
    _matrix(ax, right, low, side, -torch.outer(a[neurons], vjp[:cells]), "", BACKWARD)
    for edge, column, row, names in (
        (left, x[:cells], -delta[neurons], ("x", "−δ of the neurons")),
        (right, a[neurons], -vjp[:cells], ("a", "−δ of the output")),
    ):
        _matrix(ax, edge - 0.2, low, 0.12, column[:, None], names[0], BACKWARD, height=side)
        _matrix(ax, edge, low + side + 0.08, side, row[None], names[1], BACKWARD, height=0.12)
    _words(ax, 8.2, low, "shift: copies of −δ", _read(lm, vjp, largest=False), BACKWARD)
    for start, end in ((2.0, 1.7), (5.6, 3.9), (8.1, 7.5)):
        _arrow(ax, start, end, low + side / 2, BACKWARD)
    ax.text(4.75, low + side / 2 + 0.1, "VJP, back to the neurons", ha="center", fontsize=SMALL, color=style.FAINT)
    return ax


@torch.no_grad()
def imprint_and_shift(
    lm: LanguageModel,
    trace: Trace,
    layer: int,
    eta: float,
    outcome: Mapping[str, tuple[float, float]],
    token: int = -1,
    ax: Axes | None = None,
) -> Axes:
    """Draw the step −η xᵢᵀδᵢ at four neurons of a layer: two keys that take a copy of x, two values that take one of δ.

    For either matrix these are the neurons that receive the copy with the largest positive and the largest negative
    factor: −ηδ[j] of x [d], and ηa[j] of −δ [d].  Pre-activations are those before the step and, by Lemma 5.2, after
    it.  ``outcome`` gives one or two words and their probabilities before and after a step, for the bars on the right;
    more raise ``ValueError``, as do a family with a norm behind FF2 and a trace of another model.  ``trace`` is of one
    prompt, with ``ff1`` and ``ff2`` of this layer.  Returns the axes.
    """
    check_adds(lm, "ff2", "This picture", WORDLESS)
    if len(outcome) > 2:
        raise ValueError(f"There is room for two words and their probabilities, and outcome has {len(outcome)}.")
    x, delta, a, vjp = _factors(lm, trace, layer, token)
    pre = lm.site(layer, "ff1")(x)
    after = pre - eta * x.dot(x) * delta
    keys, values = lm.weight(layer, "ff1"), lm.weight(layer, "ff2")
    ax = _canvas(ax, 10, 4.6)
    stamp, push = _read(lm, x), _read(lm, vjp, largest=False)
    rows = (2.45, 0.5)

    ax.text(0.1, 4.4, "imprint: keys in FF1 take copies of x", color=BACKWARD, weight="bold", fontsize=10)
    for y, j in zip(rows, (int(delta.argmin()), int(delta.argmax()))):
        key, more = (f"key {j}", _read(lm, keys[:, j])), "more" if after[j] > pre[j] else "less"
        effect = f"{_number(pre[j])} → {_number(after[j])}: fires {more}"
        _copy(ax, 0.1, y, key, float(-eta * delta[j]), ("x", stamp), effect)

    ax.text(3.8, 4.4, "shift: values in FF2 take copies of −δ", color=BACKWARD, weight="bold", fontsize=10)
    for y, j in zip(rows, (int(a.argmax()), int(a.argmin()))):
        value = f"value {j}", _read(lm, values[j])
        _copy(ax, 3.8, y, value, float(eta * a[j]), ("(−δ)", push), f"a = {_number(a[j])}")

    ax.text(7.65, 4.4, "after the step", color=style.INK, weight="bold", fontsize=10)
    for y, (word, pair) in zip((2.9, 0.95), outcome.items()):
        ax.text(7.65, y + 0.42, style.label(word, 14), fontsize=10, parse_math=False)
        for k, (name, p) in enumerate(zip(("before", "after"), pair)):
            at = y + 0.18 - 0.3 * k
            ax.add_patch(Rectangle((8.25, at - 0.08), 1.1 * p, 0.16, color=(FORWARD, BACKWARD)[k], linewidth=0))
            ax.text(8.17, at, name, ha="right", va="center", fontsize=SMALL, color=style.FAINT)
            ax.text(8.31 + 1.1 * p, at, f"{p:.1%}" if p >= 1e-3 else f"{p:.0e}", va="center", fontsize=SMALL)
    return ax


def _factors(lm: LanguageModel, trace: Trace, layer: int, token: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """FF1's input and VJP at the token, then FF2's."""
    trace.check(lm)
    if len(trace) != 1:
        raise ValueError(
            f"This picture is of one prompt, and the trace holds {len(trace)}: give one of them, trace[0]."
        )
    count = len(trace.ids)
    if not -count <= token < count:
        raise ValueError(f"token is {token}: the prompt has {count} tokens, counted from 0, or from -1 backwards.")
    ff1, ff2 = trace.gradient(layer, "ff1"), trace.gradient(layer, "ff2")
    return ff1.x[token], ff1.delta[token], ff2.x[token], ff2.delta[token]


def _read(lm: LanguageModel, vector: Tensor, largest: bool = True) -> list[str]:
    """The three top words of LL(vector), or the three at its bottom: what subtracting the vector adds."""
    return [style.label(word, 10) for word in project(lm, vector, k=3, largest=largest, normalize=True).words]


def _canvas(ax: Axes | None, width: float, height: float) -> Axes:
    """Axes measured in inches, without frame or ticks; no picture in them moves their limits."""
    ax = style.axes(ax, width, height)
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return ax


def _words(ax: Axes, x: float, y: float, title: str, words: list[str], color, width: float = 1.6, height: float = 1.5):
    box = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", facecolor=(*color, 0.1))
    box.set(edgecolor=color, linewidth=1.2)
    ax.add_patch(box)
    ax.text(x + width / 2, y + height - 0.17, title, ha="center", va="center", fontsize=SMALL, color=style.FAINT)
    for place, word in enumerate(words):
        weight, size = ("bold", 10) if place == 0 else ("normal", SMALL)
        at = y + height - 0.52 - 0.34 * place
        ax.text(x + width / 2, at, word, ha="center", va="center", fontsize=size, weight=weight, parse_math=False)


def _copy(ax: Axes, x: float, y: float, own: tuple, factor: float, copied: tuple, below: str):
    """A neuron's name and words, and the name and words of the vector that it takes a signed copy of."""
    name, words = copied
    _words(ax, x, y, *own, FORWARD, width=1.35)
    ax.text(x + 1.62, y + 0.75, "+" if factor >= 0 else "−", ha="center", va="center", fontsize=15, color=BACKWARD)
    _words(ax, x + 1.9, y, f"{abs(factor):.2g} × {name}", words, BACKWARD, width=1.35)
    ax.text(x + 1.62, y - 0.1, below, ha="center", va="top", fontsize=SMALL)


def _matrix(ax: Axes, x: float, y: float, width: float, values: Tensor, title: str, color, height: float | None = None):
    """A small heat map, scaled by its own largest entry, with a colored frame and its title above."""
    height = width if height is None else height
    values = values.float().cpu().numpy()
    limit = abs(values).max() or 1.0
    extent = (x, x + width, y, y + height)
    ax.imshow(values, cmap="vlag", vmin=-limit, vmax=limit, extent=extent, aspect="auto", interpolation="nearest")
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.2))
    ax.text(x + width / 2, y + height + 0.06, title, ha="center", va="bottom", fontsize=SMALL, color=style.FAINT)


def _arrow(ax: Axes, start: float, end: float, y: float, color):
    ax.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.6})


def _number(value: Tensor) -> str:
    return f"{float(value):.2f}".replace("-", "−")
