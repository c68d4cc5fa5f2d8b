"""Which facts does this student's exercise use?  A name seeds the choice, so neighbors get different variants.

The choice is a hash, not a random stream: the same on every machine and version, and in any order of exercises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from lens.data.spelling import one_name
from lens.given import spelled


@dataclass(frozen=True)
class Student:
    """A reader with a name or number; an empty name is the book's own variant.

    >>> Student("ada").choose("abcdefgh", 3) == Student("ada").choose("abcdefgh", 3)
    True
    """

    name: str = ""

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise TypeError(f"A student is given by a text such as 'ada', and this is {self.name!r}.")
        spelled("The student's name", self.name)

    @property
    def seed(self) -> int:
        """A number below 2³¹ of this student's own, for generators."""
        return self._hash("seed") % 2**31

    def choose(self, items: Sequence[Any], k: int) -> list[Any]:
        """``k`` different ones of ``items``, in an order of this student's own; ``ValueError`` if there are fewer."""
        if not 0 <= k <= len(items):
            raise ValueError(f"{k} of {len(items)} things cannot be chosen: ask for at most {len(items)}.")
        order = sorted(range(len(items)), key=lambda i: self._hash(f"item {i}"))
        return [items[i] for i in order[:k]]

    def records(self, k: int = 1) -> list[dict]:
        """``k`` CounterFact records of the built-in world: a fact, a new target, paraphrases, neighbors."""
        from lens import data

        return self.choose(data.records(), k)

    def _hash(self, what: str) -> int:
        return int.from_bytes(sha256(f"{self.name}\0{what}".encode()).digest()[:8], "big")


def student(name: str = "") -> Student:
    """The student called ``name``, whose exercises use facts of their own."""
    return Student(one_name(" ".join(name.split())) if isinstance(name, str) else name)
