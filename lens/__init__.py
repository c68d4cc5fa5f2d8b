"""lens: read, edit and mask what a language model knows.

>>> import lens
>>> lm = lens.load("mini")
>>> trace = lens.capture(lm, "The capital of France is", "Rome")
>>> trace.gradient(3, "ff2").norm() > 0
tensor(True)
"""

from importlib import import_module

import lens.course.stale  # noqa: F401  before torch: refuses a kernel that is older than what is installed
from lens import data, edit, evaluate, mask, overlap, relearn
from lens.course import claims
from lens.course.claims import claim
from lens.course.start import setup
from lens.edit import Request
from lens.gradient import FactoredGradient, Trace, capture
from lens.model import LanguageModel
from lens.model.loading import load
from lens.readout import SEGMENTS, Lens, Projection, backward_lens, logit_lens, project, segments, token_rank
from lens.results.provenance import VERSION
from lens.scale import cost, sweep

__version__ = VERSION

__all__ = [
    "SEGMENTS", "FactoredGradient", "LanguageModel", "Lens", "Projection", "Request", "Trace", "backward_lens",
    "capture", "check", "claim", "claims", "cost", "data", "edit", "evaluate", "load", "logit_lens", "mask", "overlap",
    "plot", "project", "relearn", "segments", "setup", "sweep", "token_rank", "widgets",
]  # fmt: skip


# Opened on first use: matplotlib and the widgets' packages take longer to import than everything else here together.
LAZY = {"check": "lens.course.check", "plot": "lens.plot", "widgets": "lens.course.widgets"}


def __getattr__(name: str):
    """``lens.check``, ``lens.plot`` and ``lens.widgets`` on first use."""
    if name in LAZY:
        return import_module(LAZY[name])
    raise AttributeError(f"module 'lens' has no attribute {name!r}")
