"""How is the picture on the README drawn?  ``python book/cover.py``, from a run of the built-in model.

One fact, edited: above, what the model is about to say (logit lens); below, what one step of training would write into
the second matrix of each MLP (backward lens).
"""
from pathlib import Path

import matplotlib.pyplot as plt

import lens

PROMPT, TRUE, NEW = "The capital of France is", "Paris", "Rome"


def main():
    lm = lens.setup("mini")
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    lens.plot.grid(lens.logit_lens(lm, PROMPT, TRUE), "probability", f"Forward: “{PROMPT} …”", ax=left)
    trace = lens.capture(lm, PROMPT, NEW)
    shift = lens.backward_lens(lm, trace, "ff2")
    lens.plot.grid(shift, "norm", f"Backward: what learning “{NEW}” would write", ax=right)
    fig.savefig(Path(__file__).parent / "_static" / "cover.png", dpi=150)


if __name__ == "__main__":
    main()
