"""lens: read, edit and mask what a language model knows.

>>> import lens
>>> lm = lens.load("mini")
>>> trace = lens.capture(lm, "The capital of France is", "Rome")
>>> trace.gradient(3, "ff2").norm() > 0
tensor(True)
"""

from importlib import import_module

from lens import cost, data, edit, evaluate, mask, overlap, relearn, sweep
from lens.capture import Trace, capture
from lens.edit import Request
from lens.gradient import FactoredGradient
from lens.lenses import Lens, backward_lens, logit_lens
from lens.loading import load
from lens.model import LanguageModel
from lens.readout import Projection, project, token_rank
from lens.segments import SEGMENTS, segments
from lens.start import setup

__version__ = "0.1.0"

__all__ = [
    "SEGMENTS",
    "FactoredGradient",
    "LanguageModel",
    "Lens",
    "Projection",
    "Request",
    "Trace",
    "backward_lens",
    "capture",
    "cost",
    "data",
    "edit",
    "evaluate",
    "load",
    "logit_lens",
    "mask",
    "overlap",
    "plot",
    "project",
    "relearn",
    "segments",
    "setup",
    "sweep",
    "token_rank",
]


def __getattr__(name: str):
    """``lens.plot`` on first use: matplotlib takes longer to import than everything else here together."""
    if name == "plot":
        return import_module("lens.plot")
    raise AttributeError(f"module 'lens' has no attribute {name!r}")
