"""What does mini read?  Documents of facts in words and of ordinary prose, different in every epoch.

A document is a paragraph: of prose, of one fact sentence, of several, or of prose that leads into a fact, so that a
fact is known at the beginning of a text and in the middle of one.  Only taught templates appear here; the held-out
ones are never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from lens.data.prose import paragraphs
from lens.data.text import passages
from lens.data.world import facts, prompts

PROSE_PER_EPOCH = 1000
"""Generated paragraphs in an epoch; never the same twice."""

HELDOUT_SEED = 1 << 20
"""The prose generator's seed for the held-out text: beyond every epoch's."""


def documents(epoch: int, seed: int = 0) -> list[str]:
    """One epoch: every fact in every taught phrasing once, and fresh prose, in an order fixed by ``(seed, epoch)``."""
    rng = Random(f"{seed}/{epoch}")
    sentences = [p.sentence for fact in facts() for p in prompts(fact, held_out=False)]
    rng.shuffle(sentences)
    prose = list(paragraphs(seed=1000 * seed + epoch, count=PROSE_PER_EPOCH))
    result = prose + [p for i, p in enumerate(passages()) if i % 7 and (i + epoch) % 4 == 0]
    rest = iter(sentences)
    for sentence in rest:
        kind = rng.random()
        if kind < 0.5:
            result.append(sentence)
        elif kind < 0.8:
            result.append(" ".join([sentence, *_take(rest, rng.randint(1, 3))]))
        else:
            lead = rng.choice(prose).split(". ")[0].rstrip(".") + "."
            result.append(f"{lead} {sentence}")
    rng.shuffle(result)
    return result


def heldout_paragraphs(count: int = 300) -> list[str]:
    """Text kept for measurement: generated from a seed no epoch uses, and every seventh hand-written passage."""
    return list(paragraphs(seed=HELDOUT_SEED, count=count)) + [p for i, p in enumerate(passages()) if i % 7 == 0]


def _take(items: Iterator[str], count: int) -> Iterator[str]:
    for _, item in zip(range(count), items):
        yield item
