"""How is a wrong way to an answer written down?  As an option of the right way, or as what is done to its result.

A mistake is ``dict(eta=1)``, an option that ``reference`` has for its sake; ``Then(torch.exp)``, which goes on from the
right result; or any function of the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any


@dataclass(frozen=True)
class Then:
    """The right result, and what is done to it: ``Then(abs)``."""

    change: Callable

    def __call__(self, reference: Callable) -> Callable:
        return lambda *arguments: self.change(reference(*arguments))


NO_SPACE = "The target's leading space is missing: 'Rome' and ' Rome' are two tokens; lm.target_ids adds the space."
NEGATED = Then(lambda result: -result)
COMPLEMENT = Then(lambda share: 1 - share)
SWAPPED = Then(lambda result: result[::-1])
TRANSPOSED = Then(lambda result: result.T)


def ways(reference: Callable, mistakes: Mapping[str, Callable | Mapping[str, Any]]) -> dict[str, Callable]:
    """Each sentence with the function of the arguments that makes its mistake.

    >>> wrong = ways(lambda x, by=2: by * x, {"Tripled.": dict(by=3), "The sign.": NEGATED, "Squared.": lambda x: x**2})
    >>> [way(5) for way in wrong.values()]
    [15, -10, 25]
    """
    return {sentence: _way(reference, wrong) for sentence, wrong in mistakes.items()}


def _way(reference: Callable, wrong: Callable | Mapping[str, Any]) -> Callable:
    if isinstance(wrong, Mapping):
        return partial(reference, **wrong)
    return wrong(reference) if isinstance(wrong, Then) else wrong


def once(measure: Callable) -> Callable:
    """``measure`` with a memory of its last call: each mistake asks for the same numbers again."""
    last: list = [None, None]

    @wraps(measure)
    def again(*given):
        asked = [tuple(g) if isinstance(g, list) else g for g in given]
        if asked != last[0]:
            last[:] = asked, measure(*given)
        return last[1]

    return again
