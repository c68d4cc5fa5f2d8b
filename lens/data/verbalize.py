"""How is a triplet put into words?  Templates that end in the tail, and "a", "an" or nothing before the head.

    ("cafe", "hypernym", "restaurant")   →   "A cafe is a kind of" → "restaurant",   "In short, a cafe is …" → …

The tail stands last, so that the text before it is a prompt and the tail what the model should say next.  A template
says where the head goes: ``{np}`` the noun phrase ("a cafe"), ``{Np}`` the same at the beginning of a sentence,
``{head}`` the head alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from lens.data.articles import indefinite
from lens.data.world import Fact, Prompt, fill, relations
from lens.given import several, spelled

_DETERMINER = re.compile(
    r"(the|an?|this|that|these|those|my|your|his|her|its|our|their|some|any|every|each|no|another)\s+", re.IGNORECASE
)


def verbalize(
    triplets: Iterable[Fact | Sequence[str] | Mapping[str, str]],
    templates: Mapping[str, str | Sequence[str]] | None = None,
    *,
    bare: Collection[str] = (),
    topic: str = "own",
) -> tuple[Prompt, ...]:
    """Every phrasing of each triplet (head, relation, tail), in the order of the templates.

    A triplet may be a dictionary with these three keys ("rel" will do for "relation").  ``templates``: relation → its
    templates, by default those of the built-in world (``lens.data.relations()``); ConceptNet's spelling of a relation
    ("AtLocation") finds "at_location".  ``bare``: the heads that stand without an article (``noun_phrase``).
    Underscores in words are read as spaces.  ``topic`` is kept with the facts.

    Raises ``ValueError`` in one sentence for a triplet that is none, a relation without templates, and a template
    that does not end in the tail.

    >>> prompt, *others = verbalize([("hourglass", "hypernym", "clock")])
    >>> prompt.text, prompt.target, len(others)
    ('An hourglass is a kind of', 'clock', 8)
    """
    several("triplets", triplets, "a triplet (head, relation, tail)", lambda item: True)
    known = {name: relation.templates for name, relation in relations().items()} if templates is None else templates
    found = []
    for number, triplet in enumerate(triplets):
        fact = triplet if isinstance(triplet, Fact) else _fact(triplet, number, bare, topic)
        spelled(f"Triplet number {number}", f"{fact.head} {fact.np} {fact.tail}")
        name = next((n for n in (fact.relation, _snake(fact.relation)) if n in known), None)
        if name is None:
            raise ValueError(
                f"There is no template for the relation {fact.relation!r} of triplet number {number}: give one in "
                f"templates, or use one of {', '.join(known)}."
            )
        some = [known[name]] if isinstance(known[name], str) else known[name]
        found += [Prompt(fill(_before_tail(t), fact), fact.tail, fact, i, False) for i, t in enumerate(some)]
    return tuple(found)


def noun_phrase(head: str, bare: Collection[str] = ()) -> str:
    """A head as it stands in mid-sentence: "a cafe", "an hour", "Paris", "the sun".

    Nothing is put before a head that begins with a determiner or a capital (a proper name; "X-ray" and its kind get
    their article), nor before those in ``bare``: mass nouns, plurals and activities, which spelling does not give away.

    >>> [noun_phrase(head, bare=["water"]) for head in ("hour", "the sun", "New York", "X-ray", "water")]
    ['an hour', 'the sun', 'New York', 'an X-ray', 'water']
    """
    proper = head[:1].isupper() and head[1:2] != "-"
    return head if head in bare or proper or _DETERMINER.match(head) else f"{indefinite(head)} {head}"


def _fact(triplet: Sequence[str] | Mapping[str, str], number: int, bare: Collection[str], topic: str) -> Fact:
    if isinstance(triplet, Mapping):
        parts = [triplet.get("head"), triplet.get("relation", triplet.get("rel")), triplet.get("tail")]
    else:
        parts = list(triplet) if isinstance(triplet, Sequence) and not isinstance(triplet, str) else []
    if len(parts) != 3 or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError(
            f"Triplet number {number} is {triplet!r}: give three texts, (head, relation, tail), or their dictionary."
        )
    head, relation, tail = (part.strip() for part in parts)
    head, tail = head.replace("_", " "), tail.replace("_", " ")
    return Fact("own", topic, "fact", relation, _DETERMINER.sub("", head, 1), noun_phrase(head, bare), tail)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition("/")[2]).lower()


def _before_tail(template: str) -> str:
    """The template up to the tail; ``ValueError`` in one sentence where that does not stand last."""
    before, between, after = template.partition(" {tail}")
    if not between or after.strip(" ."):
        raise ValueError(f"The template {template!r} does not end in the tail: write ' {{tail}}.' last.")
    slots = re.findall(r"\{(.*?)\}", before)
    if len(slots) != 1 or slots[0] not in ("np", "Np", "head"):
        raise ValueError(f"The template {template!r} needs its head once: write {{np}}, {{Np}} or {{head}} in it.")
    return before
