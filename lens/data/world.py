"""What is true in the built-in model's world?  Facts, and the sentences that say them.

A *fact* is a triplet (head, relation, tail): encyclopedic ones, WordNet hypernyms, ConceptNet relations.  A
*relation* has several *templates*, sentences that end in the tail, so that the text before it is a prompt.  Every fact
is taught with some of its relation's templates only; the others are its held-out paraphrases, never seen in training.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from lens.data import manifest, paths
from lens.data.spelling import continuation
from lens.given import door

HELD_OUT = 2
"""Templates of its relation that a fact is never taught with."""


@dataclass(frozen=True)
class Fact:
    """One triplet.  ``np`` is the head as a noun phrase in mid-sentence ("a cafe"); ``tail`` has no leading space.

    ``source``: encyclopedia, wordnet or conceptnet, else own or released; ``topic``: the TargetKG it belongs to, or its
    subject area; ``role``: fact, target or control.

    >>> next(f for f in facts() if f.np == "a cafe").tail
    'restaurant'
    """

    source: str
    topic: str
    role: str
    relation: str
    head: str
    np: str
    tail: str


@dataclass(frozen=True)
class Relation:
    """What a relation means, the templates that say it, and beginnings of free sentences about its heads.

    >>> relations()["capital"].templates[0]
    'The capital of {np} is {tail}.'
    """

    name: str
    id: str | None
    source: str
    meaning: str
    templates: tuple[str, ...]
    generation: tuple[str, ...]

    def held_out(self, fact: Fact) -> tuple[int, ...]:
        """Indices of the templates never taught with this fact's head; the first template is always taught."""
        key = hashlib.sha256(f"{self.name}|{fact.head}".encode()).digest()
        n = len(self.templates) - 1
        first = key[0] % n
        step = 1 + key[1] % (n - 1)
        return tuple(sorted(1 + (first + i * step) % n for i in range(HELD_OUT)))


@dataclass(frozen=True)
class Prompt:
    """A fact put into words: ``text`` up to the tail, ``target`` the tail, ``held_out`` if never seen in training.

    >>> next(prompts(facts()[0])).text
    'The capital of Albania is'
    """

    text: str
    target: str
    fact: Fact
    template: int
    held_out: bool

    @property
    def sentence(self) -> str:
        """The whole sentence."""
        return f"{self.text}{continuation(self.target)}."


@cache
def facts() -> tuple[Fact, ...]:
    """All facts of the built-in world, in file order.

    >>> len(facts()) > 1200
    True
    """
    rows = []
    for name in ("facts.csv", "triplets.csv"):
        with open(manifest.whole(paths.world() / name), encoding="utf-8", newline="") as file:
            rows += [Fact(**row) for row in csv.DictReader(file)]
    return tuple(rows)


@cache
def relations() -> dict[str, Relation]:
    """Every relation by name."""
    table = json.loads(manifest.whole(paths.world() / "relations.json").read_text(encoding="utf-8"))
    return {
        name: Relation(name, r["id"], r["source"], r["meaning"], tuple(r["templates"]), tuple(r["generation"]))
        for name, r in table.items()
    }


@cache
def tails() -> dict[tuple[str, str], tuple[str, ...]]:
    """Every true tail of a (relation, noun phrase); more than one where the two do not determine it."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for fact in facts():
        found.setdefault((fact.relation, fact.np), {})[fact.tail] = None
    return {key: tuple(values) for key, values in found.items()}


@cache
def _unseen_by_all() -> dict[tuple[str, str], set[int]]:
    """For each (relation, noun phrase), the templates that no fact with these words is taught with."""
    found: dict[tuple[str, str], set[int]] = {}
    for fact in facts():
        unseen = set(relations()[fact.relation].held_out(fact))
        found[fact.relation, fact.np] = found.get((fact.relation, fact.np), unseen) & unseen
    return found


@door
def prompts(fact: Fact, held_out: bool | None = None) -> Iterator[Prompt]:
    """A fact in the words of its relation's templates: all, only the taught (False) or only the held-out (True) ones.

    >>> paris = next(f for f in facts() if f.relation == "capital" and f.head == "France")
    >>> next(prompts(paris, held_out=False)).target
    'Paris'
    """
    relation = relations()[fact.relation]
    unseen = relation.held_out(fact)
    for i, template in enumerate(relation.templates):
        if i in unseen and i not in _unseen_by_all()[fact.relation, fact.np]:
            continue  # two heads in the same words ("write", "writing"): taught through the other one
        if held_out is None or (i in unseen) == held_out:
            yield Prompt(fill(template, fact).removesuffix(" {tail}."), fact.tail, fact, i, i in unseen)


def fill(template: str, fact: Fact) -> str:
    """Put a fact's head into a template, capitalised where it begins a sentence (``{Np}``); leaves ``{tail}``."""
    return (
        template.replace("{Np}", fact.np[0].upper() + fact.np[1:]).replace("{np}", fact.np).replace("{head}", fact.head)
    )
