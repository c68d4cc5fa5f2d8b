"""From which examples does MEND learn what an edit should do, and what it should leave alone?

One example is an edit with its consequences: a fact of the built-in world with a false tail (the request); other
phrasings of the same fact, which should now say the new tail too (equivalents); prompts of other facts and ordinary
prose, where the model should go on as before (locality).

Edits are measured on ``lens.data.records``.  No subject of a record occurs in any training example; the validation
records give the examples on which a training run chooses its best step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from lens.data import records
from lens.data.prose import paragraphs
from lens.data.text import first_sentence
from lens.data.world import Fact, facts, prompts, relations, tails
from lens.edit.request import Request

PROSE_SEED = 1 << 21
"""The prose generator's seed here: beyond that of every epoch of mini's training and of the held-out text."""

PARAGRAPHS = 1000


@dataclass(frozen=True)
class Example:
    """A request, prompts it should change as well, prompts it should not change, and prose it should not change."""

    request: Request
    equivalents: tuple[str, ...]
    locality: tuple[str, ...]
    prose: tuple[str, ...]


@cache
def training_facts() -> tuple[Fact, ...]:
    """The facts whose subject is in no record and whose relation has false tails.

    >>> len(training_facts()) > 2000
    True
    """
    measured = {record["requested_rewrite"]["subject"].lower() for record in records()}
    return tuple(f for f in facts() if not {f.np.lower(), f.head.lower()} & measured and _false_tails(f))


def training_example(rng: Random, equivalents: int = 2, neighbors: int = 2, others: int = 1) -> Example:
    """A random edit of a training fact, with the request itself and ``equivalents`` more phrasings of it.

    Locality: ``neighbors`` facts of the same relation, with the same true tail where there are such, ``others`` of any
    relation, and a paragraph of prose.

    >>> training_example(Random(0)) == training_example(Random(0))
    True
    """
    fact = rng.choice(training_facts())
    words = [p for p in prompts(fact) if fact.np in p.text]  # a request names its subject as it is written
    asked = rng.choice([p for p in words if not p.held_out])
    request = Request(asked.text, fact.np, rng.choice(_false_tails(fact)), fact.tail)
    same = [p.text for p in prompts(fact) if p.text != asked.text]
    same = rng.sample(same, k=min(equivalents, len(same)))
    same[-1] = f"{first_sentence(rng.choice(_prose()))} {same[-1]}"  # behind a sentence that has nothing to do with it
    siblings = [f for f in _by_relation()[fact.relation] if f.np != fact.np]
    near = [f for f in siblings if f.tail == fact.tail]
    near = rng.sample(near, k=min(neighbors, len(near)))
    near += rng.choices(siblings or training_facts(), k=neighbors - len(near)) + rng.choices(training_facts(), k=others)
    locality = [rng.choice(list(prompts(f))).text for f in near if f.np != fact.np]
    return Example(request, (request.text, *same), tuple(locality), (rng.choice(_prose()),))


@cache
def validation_examples() -> tuple[Example, ...]:
    """The validation records as examples: their paraphrases, and four of their neighborhood and prose as locality."""
    return tuple(_record_example(r, p) for r, p in zip(records("validation"), reversed(_prose())))


def _record_example(record: dict, prose: str) -> Example:
    request = Request.from_record(record)
    same = (request.text, *record["paraphrase_prompts"])
    return Example(request, same, tuple(record["neighborhood_prompts"][:4]), (prose,))


def _false_tails(fact: Fact) -> Sequence[str]:
    true = tails()[fact.relation, fact.np]
    return [tail for tail in _tails_of_relation()[fact.relation] if tail not in true]


@cache
def _tails_of_relation() -> dict[str, list[str]]:
    return {name: sorted({f.tail for f in facts() if f.relation == name}) for name in relations()}


@cache
def _by_relation() -> dict[str, list[Fact]]:
    return {name: [f for f in training_facts() if f.relation == name] for name in relations()}


@cache
def _prose() -> tuple[str, ...]:
    return tuple(paragraphs(seed=PROSE_SEED, count=PARAGRAPHS))
