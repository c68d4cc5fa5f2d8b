"""What is to be removed, and what must stay?  A TargetKG with its controls, in words, split for training and for test.

    target    facts to remove, in the phrasings a mask trains on;     unseen         the same facts in other phrasings
    control   facts of the same source that share neither head nor    control_held_out   such facts it never trains on
              tail with a target, to keep
    text      ordinary text, to keep                                  text_held_out  such text it never trains on

A mask that hides one sentence has not removed a fact: each target fact is trained on in several phrasings and measured
in two that the model was taught with but the mask never saw, and in those that neither of them saw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from random import Random

from lens.data.prose import paragraphs
from lens.data.text import heldout, passages
from lens.data.world import Fact, Prompt, facts, prompts

UNSEEN = 2
"""Taught phrasings of a target fact that no mask trains on."""

HELD_OUT = 4
"""Every so-manieth control fact is held out."""

TEXT_SEED = 1 << 21
"""The prose generator's seed for ControlLM: beyond every epoch's of the model's training and the held-out text's."""


@dataclass(frozen=True)
class Knowledge:
    """The sets of one removal, named as its TargetKG.  Prompts say facts; texts are paragraphs."""

    name: str
    target: tuple[Prompt, ...]
    unseen: tuple[Prompt, ...]
    control: tuple[Prompt, ...]
    control_held_out: tuple[Prompt, ...]
    text: tuple[str, ...]
    text_held_out: tuple[str, ...]


@cache
def target_kgs() -> tuple[str, ...]:
    """The names of the built-in TargetKGs: seven of WordNet's hypernyms, three of ConceptNet.

    >>> len(target_kgs()), target_kgs()[0]
    (10, 'building')
    """
    return tuple(dict.fromkeys(fact.topic for fact in facts() if fact.role == "target"))


@cache
def knowledge(name: str = "building") -> Knowledge:
    """A built-in TargetKG with its controls.  ``ValueError`` for a name that is none.

    >>> kg = knowledge("building")
    >>> kg.target[0].text, kg.target[0].target
    ('A structure is a kind of', 'artifact')
    """
    if name not in target_kgs():
        raise ValueError(f"There is no TargetKG {name!r}: choose one of {', '.join(target_kgs())}.")
    targets = [fact for fact in facts() if fact.topic == name and fact.role == "target"]
    source = [fact for fact in facts() if fact.source == targets[0].source]
    controls = disjoint(source, targets)
    kept = [fact for fact in controls if _draw(fact) % HELD_OUT]
    held_out = [fact for fact in controls if not _draw(fact) % HELD_OUT]
    seen, unseen = [], []
    for fact in targets:
        for i, prompt in enumerate(_shuffled(fact)):
            (unseen if i < UNSEEN else seen).append(prompt)
        unseen += prompts(fact, held_out=True)
    written = set(passages())
    return Knowledge(
        name,
        tuple(seen),
        tuple(unseen),
        tuple(p for fact in kept for p in prompts(fact, held_out=False)),
        tuple(p for fact in held_out for p in prompts(fact)),
        tuple(paragraphs(seed=TEXT_SEED, count=400)),
        tuple(text for text in heldout() if text not in written),
    )


def disjoint(pool: Iterable[Fact], targets: Iterable[Fact]) -> list[Fact]:
    """The facts of ``pool`` that share neither head nor tail with a target: a ControlKG."""
    targets = list(targets)
    heads, tails = {fact.head for fact in targets}, {fact.tail for fact in targets}
    return [fact for fact in pool if fact.head not in heads and fact.tail not in tails and fact not in targets]


def _draw(fact: Fact) -> int:
    """A number that follows from the fact alone, so that a control fact is held out for every TargetKG or for none."""
    return int.from_bytes(sha256(f"{fact.relation}|{fact.head}|{fact.tail}".encode()).digest()[:4], "big")


def _shuffled(fact: Fact) -> list[Prompt]:
    """A fact's taught phrasings in an order of its own, the first template's last: that one is always trained on."""
    first, *rest = prompts(fact, held_out=False)
    Random(_draw(fact)).shuffle(rest)
    return [*rest, first]
