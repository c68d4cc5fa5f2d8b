"""Does it come back?  Learning curves of models that are asked for facts which their training never names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from lens.plot import style
from lens.relearn import Tuned

COLUMNS = {
    "all": "accuracy, all",
    "filtered": "accuracy, removed facts",
    "rest": "accuracy, other facts",
    "score_filtered": "log p, removed facts",
    "score_rest": "log p, other facts",
    "loss": "loss in training (nats)",
}


def learning_curves(
    runs: Mapping[str, Tuned | Sequence[Tuned]],
    columns: Sequence[str] = ("filtered", "score_filtered"),
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw the curves of trainings over their steps, a panel for each column; returns the axes [len(columns)].

    ``runs``: label → a training, or several with checks at the same steps: then the line is their mean and the band
    goes from the least to the largest.  ``columns``: of ``Tuned.curve``; accuracies are drawn from 0 to 1.  Raises
    ``ValueError`` for a column that a curve does not have, for checks at different steps, and where there are no runs.
    """
    if not runs:
        raise ValueError("There are no trainings to draw: give at least one under a name.")
    axes = style.axes(axes, min(3.6 * len(columns), style.WIDTH), 3.2, 1, len(columns))
    axes = np.atleast_1d(axes).ravel()
    for ax, column in zip(axes, columns):
        for i, (label, some) in enumerate(runs.items()):
            some = [some] if isinstance(some, Tuned) else some
            if any(column not in row for tuned in some for row in tuned.curve):
                raise ValueError(
                    f"There is no column {column!r} in {label!r}: choose of {', '.join(some[0].curve[0])}."
                )
            steps = [row["step"] for row in some[0].curve]
            if any([row["step"] for row in tuned.curve] != steps for tuned in some):
                raise ValueError(f"The trainings of {label!r} were checked at different steps: give each a name.")
            values = np.array([[row[column] for row in tuned.curve] for tuned in some], dtype=float)
            line = style.series(i)
            ax.plot(steps, values.mean(0), markersize=4, label=label.replace("$", r"\$"), **line)
            if len(some) > 1:
                ax.fill_between(steps, values.min(0), values.max(0), color=line["color"], alpha=0.15, linewidth=0)
        ax.set(xlabel="step", ylabel=COLUMNS.get(column, f"accuracy, {column}"))
        if column not in ("loss", "score_filtered", "score_rest"):
            ax.set_ylim(-0.03, 1.03)
        style.whole(ax.xaxis)
    return axes
