"""Is my answer right, and if not, what did I mix up?  One module per chapter, one check per exercise.

>>> import lens
>>> lens.check.low_rank.by_hand([[1, 0], [0, 1]])
✗ Off by one along the first axis: the shape is [2, 2], and [3, 2] was expected.

A check never raises for a wrong answer and never says what the right one is; ``.require()`` of its verdict raises.
"""

from importlib import import_module

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.student import Student, student
from lens.course.check.verdict import Verdict

CHAPTERS = (
    "logit_lens", "low_rank", "backward_lens", "imprint_and_shift", "where_an_edit_lands", "forward_shift", "arena",
    "binary_mask", "subnetworks", "anatomy", "is_it_real", "overlap", "relearning", "two_lenses", "kernels",
    "scaling_up",
)  # fmt: skip

__all__ = ["CHAPTERS", "Claims", "Function", "Student", "Value", "Verdict", "student"]


def __getattr__(name: str):
    """A chapter's checks on first use."""
    if name in CHAPTERS:
        return import_module(f"lens.course.check.{name}")
    raise AttributeError(f"module 'lens.check' has no attribute {name!r}: the chapters are {', '.join(CHAPTERS)}")
