"""How are the pictures of the cover drawn?  ``python book/cover.py``, from a run of the built-in model.

One fact, edited, in two pictures that stand side by side, or one below the other: what the model is about to say (logit
lens), and what one step of training would write into the second matrix of each MLP (backward lens).
"""
from pathlib import Path

import matplotlib.pyplot as plt

import lens
from lens.plot import style

PROMPT, TRUE, NEW = "The capital of Japan is", "Tokyo", "Lima"
PICTURES = {name: Path(__file__).parent / "_static" / f"cover_{name}.png" for name in ("forward", "backward")}


def draw(name, found, color, title):
    """A lens as one half of the cover; the caption says what its colors mean."""
    fig, ax = plt.subplots(figsize=(style.WIDTH / 2, 2.5), layout="constrained")
    lens.plot.grid(found, color, title, ax=ax)
    ax.images[0].colorbar.remove()
    ax.set(xlabel="")
    fig.savefig(PICTURES[name], dpi=200, metadata={style.SMALLEST: f"{style.smallest(fig):g}"})


def main():
    lm = lens.setup("mini")
    draw("forward", lens.logit_lens(lm, PROMPT, TRUE), "probability", f"Forward: “{PROMPT} …”")
    shift = lens.backward_lens(lm, lens.capture(lm, PROMPT, NEW), "ff2")
    draw("backward", shift, "norm", f"Backward: what “{NEW}” would write")


if __name__ == "__main__":
    main()
