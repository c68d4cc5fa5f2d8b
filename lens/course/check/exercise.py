"""How is an answer checked?  Three kinds, all declared as data: a function, a value, a list of claims.

``Function``: the reader writes a function; it is called on a few cases and compared with the reference.
``Value``: the reader gives a number, a word or a table; the reference is computed from the same context.
``Claims``: the reader builds something with no single right form; it has to have some properties.

Each kind knows typical mistakes, under the sentences that name them.  A mistake is a *wrong way to compute the answer*
(``mistakes``); if an answer equals what the mistake gives, its sentence is the verdict.  Of a claim, the sentence is
said where it does not hold.  Nothing here says what the right answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from lens.course.check.compare import TOLERANCE, counted, difference, same
from lens.course.check.mistakes import ways
from lens.course.check.untouched import Room, Untouched
from lens.course.check.verdict import Verdict, your_turn

Mistakes = Mapping[str, Callable | Mapping[str, Any]]
BUT = "The result is right, but "


def blank(answer: Any) -> bool:
    """Nothing written yet: ``None``, ``...`` or an empty text."""
    return answer is None or answer is ... or (isinstance(answer, str) and not answer.strip())


def written(result: Any) -> Any:
    """What a reader's function returned, for a claim about it; nothing yet counts as not begun."""
    if blank(result):
        raise NotImplementedError
    return result


def _first_match(mistakes: Mapping[str, Callable], matches: Callable[[Callable], bool]) -> str | None:
    """The sentence of the first mistake whose result matches; a mistake that cannot be computed here does not."""
    for message, wrong in mistakes.items():
        with suppress(ArithmeticError, IndexError, RuntimeError, TypeError, ValueError):
            if matches(wrong):
                return message
    return None


@dataclass(eq=False, repr=False)
class Function:
    """A function that the reader writes, compared with ``reference`` on every case.

    ``cases(*context)`` gives tuples of arguments, the same at every call; ``mistakes`` maps a sentence to a wrong way
    (``ways``); ``right`` is said to a correct answer.  The check is called as ``check(function, *context)``.

    A right result is not yet enough.  The arguments and the models among them have to be as they were.  ``also`` maps a
    sentence, said if not, to what holds of the result and the arguments.  ``room(*arguments)`` is the largest number of
    entries that a tensor made on the way may have, and ``too_large`` is said where one has more.  ``last`` is said
    where the last case is the first to fail, and no mistake fits.

    >>> double = Function(lambda x: 2 * x, lambda: [(3.0,)], {"You squared x.": lambda x: x * x}, "Doubled.")
    >>> double(lambda x: x + x), double(lambda x: x**2)
    (✓ Doubled., ✗ You squared x.)
    """

    reference: Callable
    cases: Callable[..., Sequence[tuple]]
    mistakes: Mistakes
    right: str
    tolerance: float = TOLERANCE
    also: Mapping[str, Callable] = field(default_factory=dict)
    room: Callable[..., int] | None = None
    too_large: str = ""
    last: str = ""

    def __post_init__(self):
        self.mistakes = ways(self.reference, self.mistakes)

    def __call__(self, answer: Callable, *context: Any) -> Verdict:
        if blank(answer):
            return your_turn("write the function, then run this cell again.")
        if not callable(answer):
            return Verdict(False, f"A function is asked for, and this is a {type(answer).__name__}.")
        cases, remark = self.cases(*context), None
        for arguments in cases:
            verdict = self._case(answer, arguments, cases)
            if verdict is not None and not verdict.message.startswith(BUT):
                return verdict
            remark = verdict if remark is None else remark  # the first, said where the results are right in all cases
        return Verdict(True, self.right) if remark is None else remark

    def _case(self, answer: Callable, arguments: tuple, cases: Sequence[tuple]) -> Verdict | None:
        want = self.reference(*_clone(arguments))
        given, before = _clone(arguments), Untouched(arguments)
        try:
            with Room() if self.room else nullcontext() as made:
                got = answer(*given)
        except NotImplementedError:
            return your_turn("write the function, then run this cell again.")
        except Exception as error:  # a reader's function may fail in any way, and must be told how
            where = ", ".join(map(_described, arguments)) or "no argument"
            return Verdict(False, f"On {where} your function stopped with {type(error).__name__}: {error}")
        finally:
            changed = before.put_back()
        if blank(got):
            return your_turn("the function returns nothing yet. (If you wrote it: is there a `return`?)")
        if not same(got, want, self.tolerance):
            everywhere = cases if counted(want) else [arguments]  # small whole numbers agree by accident
            known = _first_match(self.mistakes, lambda wrong: self._alike(answer, wrong, got, arguments, everywhere))
            known = known or (self.last if arguments is cases[-1] else "")
            where = f"On {', '.join(map(repr, arguments))}: " if all(map(_plain, arguments)) else ""
            return Verdict(False, known or where + difference(got, want, self.tolerance))
        if not _unchanged(given, arguments):
            return Verdict(False, BUT + "your function changed its argument in place: work on a copy.")
        if changed:
            return Verdict(False, BUT + changed)
        if self.room and made.largest > self.room(*arguments):
            return Verdict(False, BUT + self.too_large)
        unmet = next((sentence for sentence, holds in self.also.items() if not holds(got, *given)), None)
        return Verdict(False, BUT + unmet) if unmet else None

    def _alike(self, answer, wrong, got, arguments, cases) -> bool:
        """Whether a mistake gives what the answer gave, and does so in these cases."""
        return same(got, wrong(*_clone(arguments)), self.tolerance) and all(
            case is arguments or same(answer(*_clone(case)), wrong(*_clone(case)), self.tolerance) for case in cases
        )


@dataclass(eq=False, repr=False)
class Value:
    """A value that the reader finds, compared with ``reference(*context)``.

    ``mistakes`` maps a sentence to a wrong way (``ways``).

    >>> week = Value(lambda: 7, {"Is Sunday no day?": lambda: 6}, "Seven.")
    >>> week(7), week(6), week(None)
    (✓ Seven., ✗ Is Sunday no day?, … Your turn: put your answer in place of None.)
    """

    reference: Callable
    mistakes: Mistakes
    right: str
    tolerance: float = TOLERANCE

    def __post_init__(self):
        self.mistakes = ways(self.reference, self.mistakes)

    def __call__(self, answer: Any, *context: Any) -> Verdict:
        if blank(answer):
            return your_turn("put your answer in place of None.")
        if callable(answer):
            return Verdict(False, "A value is asked for, and this is a function: give what it returns.")
        want = self.reference(*context)
        if same(answer, want, self.tolerance):
            return Verdict(True, self.right)
        known = _first_match(self.mistakes, lambda wrong: same(answer, wrong(*context), self.tolerance))
        return Verdict(False, known or difference(answer, want, self.tolerance))


@dataclass(eq=False, repr=False)
class Claims:
    """Something that the reader builds, which has to have properties: ``claims`` maps sentences to them.

    ``holds(answer, *context)`` is asked in order, and of the first that fails, or raises, the sentence is said.

    >>> even = Claims({"Odd.": lambda n: n % 2 == 0, "Not positive.": lambda n: n > 0}, "Even.")
    >>> even(4), even(3), even(-2)
    (✓ Even., ✗ Odd., ✗ Not positive.)
    """

    claims: Mapping[str, Callable]
    right: str

    def __call__(self, answer: Any, *context: Any) -> Verdict:
        if blank(answer):
            return your_turn("put your answer in its place, then run this cell again.")
        for sentence, holds in self.claims.items():
            try:
                good = bool(holds(answer, *context))
            except NotImplementedError:
                return your_turn("write the function, then run this cell again.")
            except Exception:  # an answer may be anything, and a reader's function fail in any way
                good = False
            if not good:
                return Verdict(False, sentence)
        return Verdict(True, self.right)


Exercise = Function | Value | Claims


def _clone(arguments: tuple) -> tuple:
    """Arguments of their own for every call, so that no answer can spoil the next; models are passed as they are."""

    def own(leaf):
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().clone().requires_grad_(leaf.requires_grad)
        return set(leaf) if isinstance(leaf, set) else leaf

    return tree_map(own, arguments)


def _unchanged(now: tuple, before: tuple) -> bool:
    def equal(a, b):
        if isinstance(b, torch.Tensor):
            return isinstance(a, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return a is b or a == b

    (new, form), (old, known) = tree_flatten(now), tree_flatten(before)
    return form == known and all(map(equal, new, old))


def _plain(value: Any) -> bool:
    """Whether a value is short enough to be shown: numbers and words, and lists of them."""
    return all(map(_plain, value)) if isinstance(value, list) else isinstance(value, (int, float, str))


def _described(argument: Any) -> str:
    """An argument in a few words: shapes, not contents."""
    if isinstance(argument, torch.Tensor):
        return f"a tensor {list(argument.shape)}"
    return repr(argument) if isinstance(argument, (int, float, str)) else type(argument).__name__
