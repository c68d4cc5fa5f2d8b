"""Which edits can be asked for?  Records in CounterFact's own JSON format, made from the built-in world.

A record asks for a false tail in place of a true one, and brings the prompts that measure what the edit did: the same
fact in other words (paraphrases, phrasings never seen in training), other heads with the same true tail
(neighborhood), and beginnings of free text about the subject (generation).  The public ``counterfact.json`` of Meng
et al. (2022) reads the same.
"""

from __future__ import annotations

import json
from random import Random

from lens.data import paths
from lens.data.text import heldout
from lens.data.world import Fact, facts, fill, prompts, relations, tails

NEIGHBORS = 5
"""A fact needs at least this many other heads with its tail to become a record."""


def records() -> list[dict]:
    """The built-in CounterFact-style records.

    >>> records()[0]["requested_rewrite"]["target_true"].keys()
    dict_keys(['str', 'id'])
    """
    return json.loads((paths.world() / "records.json").read_text(encoding="utf-8"))


def make_records(count: int = 500, seed: int = 0) -> list[dict]:
    """Write ``count`` records from the encyclopedic facts, spread evenly over the relations that have neighbors."""
    rng = Random(seed)
    by_tail: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts():
        if fact.source == "encyclopedia":
            by_tail.setdefault((fact.relation, fact.tail), []).append(fact)
    pools: dict[str, list[Fact]] = {}
    for (relation, _), group in by_tail.items():
        if len(group) > NEIGHBORS:
            pools.setdefault(relation, []).extend(group)
    for pool in pools.values():
        rng.shuffle(pool)
    chosen: list[Fact] = []
    while len(chosen) < count and any(pools.values()):
        chosen += [pool.pop() for pool in pools.values() if pool]
    return [_record(i, fact, by_tail, rng) for i, fact in enumerate(chosen[:count])]


def _record(case: int, fact: Fact, by_tail: dict, rng: Random) -> dict:
    relation = relations()[fact.relation]
    others = [tail for name, tail in by_tail if name == fact.relation and tail not in tails()[fact.relation, fact.np]]
    new = rng.choice(others)
    taught = [t for i, t in enumerate(relation.templates) if i not in relation.held_out(fact)]
    # The subject stands in the prompt exactly as given, so a lower-case one must not begin the sentence.
    taught = [t for t in taught if "{np}" in t or ("{Np}" in t and fact.np[0].isupper())]
    template = rng.choice(taught).removesuffix(" {tail}.")
    unseen = [p.text for p in prompts(fact, held_out=True)]
    lead = rng.choice(heldout()).split(". ")[0].rstrip(".") + "."
    return {
        "case_id": case,
        "pararel_idx": case,
        "requested_rewrite": {
            "prompt": template.replace("{np}", "{}").replace("{Np}", "{}"),
            "relation_id": relation.id or relation.name,
            "relation": relation.name,
            "target_new": _target(fact.relation, new),
            "target_true": _target(fact.relation, fact.tail),
            "subject": fact.np,
        },
        "paraphrase_prompts": [unseen[0], f"{lead} {unseen[1]}"],
        "neighborhood_prompts": _ten([f for f in by_tail[fact.relation, fact.tail] if f.np != fact.np], rng),
        "attribute_prompts": _ten(by_tail[fact.relation, new], rng),
        "generation_prompts": [fill(t, fact) for t in relation.generation] * 2,
    }


def _ten(group: list[Fact], rng: Random) -> list[str]:
    """Ten taught prompts over a group of facts: as many heads as possible before any comes twice."""
    queues = [rng.sample([p.text for p in prompts(f, held_out=False)], k=4) for f in rng.sample(group, k=len(group))]
    turns = [queue[turn] for turn in range(4) for queue in queues]
    return turns[:10]


def _target(relation: str, tail: str) -> dict:
    return {"str": tail, "id": f"{relation}/{tail}"}
