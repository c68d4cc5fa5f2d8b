"""What does mini read?  Documents of facts in words and of ordinary prose, different in every epoch.

A document is a paragraph: of prose, of one fact sentence, of several, or of prose that leads into a fact, so that a
fact is known at the beginning of a text and in the middle of one.  Only taught templates appear here; the held-out
ones are never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from random import Random

from lens.data.knowledge import target_kgs
from lens.data.prose import paragraphs
from lens.data.text import first_sentence, passages
from lens.data.world import facts, prompts

PROSE_PER_EPOCH = 1000
"""Generated paragraphs in an epoch; never the same twice."""

HELDOUT_SEED = 1 << 20
"""The prose generator's seed for the held-out text: beyond every epoch's."""


def documents(epoch: int, seed: int = 0, without: Sequence[str] = ()) -> list[str]:
    """One epoch: every fact in every taught phrasing once, and fresh prose, in an order fixed by ``(seed, epoch)``.

    ``without``: TargetKGs whose facts are never said.  Their sentences are cut out of the same documents in the same
    order, and a document of nothing else is left out.  ``ValueError`` for a name that is none.
    """
    untaught = sentences_of(without)
    rng = Random(f"{seed}/{epoch}")
    sentences = [p.sentence for fact in facts() for p in prompts(fact, held_out=False)]
    rng.shuffle(sentences)
    prose = list(paragraphs(seed=1000 * seed + epoch, count=PROSE_PER_EPOCH))
    result = prose + [p for i, p in enumerate(passages()) if i % 7 and (i + epoch) % 4 == 0]
    rest = iter(sentences)
    for sentence in rest:
        kind = rng.random()
        lead, said = [], [sentence]
        if 0.5 <= kind < 0.8:
            said += islice(rest, rng.randint(1, 3))
        elif kind >= 0.8:
            lead = [first_sentence(rng.choice(prose))]
        said = [s for s in said if s not in untaught]
        result.append(" ".join(lead + said) if said else "")
    rng.shuffle(result)
    return [text for text in result if text]


def sentences_of(topics: Sequence[str]) -> set[str]:
    """Every sentence, taught or held out, that says a fact of these TargetKGs."""
    for topic in topics:
        if topic not in target_kgs():
            raise ValueError(f"There is no TargetKG {topic!r} to leave out: choose of {', '.join(target_kgs())}.")
    return {p.sentence for f in facts() if f.role == "target" and f.topic in topics for p in prompts(f)}


def heldout_paragraphs(count: int = 300) -> list[str]:
    """Text kept for measurement: generated from a seed no epoch uses, and every seventh hand-written passage."""
    return list(paragraphs(seed=HELDOUT_SEED, count=count)) + [p for i, p in enumerate(passages()) if i % 7 == 0]
