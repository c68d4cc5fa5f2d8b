"""What does a check say?  Whether the answer is right, and if not, which mistake it looks like.

A verdict is a value: it shows as one line in a notebook, is true where the answer passed, and ``require()`` turns a
failed one into an error, which is how a course grades (the hidden test of an exercise's check cell).
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

TURN = "Your turn"


@dataclass(frozen=True)
class Verdict:
    """One line about one answer: ``passed``, and ``message`` in words that never give the answer away.

    >>> Verdict(False, "The matrix is transposed.")
    ✗ The matrix is transposed.
    >>> bool(Verdict(True, "Right."))
    True
    """

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        if self.message.startswith(TURN):
            return f"… {self.message}"
        return f"{'✓' if self.passed else '✗'} {self.message}"

    def _repr_html_(self) -> str:
        """The same line in a notebook, where it wraps."""
        return f'<p class="lens-verdict">{escape(repr(self))}</p>'

    def require(self) -> None:
        """Raise ``AssertionError`` with the message unless the answer passed."""
        if not self.passed:
            raise AssertionError(self.message)


def your_turn(what: str) -> Verdict:
    """The verdict on an exercise not yet begun."""
    return Verdict(False, f"{TURN}: {what}")
