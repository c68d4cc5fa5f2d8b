"""Answers that every check has to judge: right ones, however they are written, and wrong ones with what must be said.

Each chapter's module in ``answers/`` maps the name of a check to its ``Answers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answers:
    """What a check is shown.

    ``right``: three correct answers or more, the book's solution first.  ``wrong``: three mistakes or more, from words
    that the message must hold to the answer.  ``context(lm)``: what the check is given beside the answer.
    """

    right: Sequence[Any]
    wrong: Mapping[str, Any]
    context: Callable[[Any], tuple] = lambda lm: ()
    # Answers that are computed from the context rather than written down.
    computed: bool = False
    # Further wrong answers, written without a look at the check: it has to refuse them, and may not know their name.
    blind: Sequence[Any] = ()

    def given(self, answer: Any, context: tuple) -> Any:
        """The answer itself, or what it computes from the context."""
        return answer(*context) if self.computed else answer
