"""Which edits can be asked for?  Records in CounterFact's own JSON format, made from the built-in world.

A record asks for a false tail in place of a true one, and brings the prompts that measure what the edit did: the same
fact in other words (paraphrases, phrasings never seen in training), other heads with the same true tail
(neighborhood), and beginnings of free text about the subject (generation).  The public ``counterfact.json`` of Meng
et al. (2022) reads the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from lens.data import manifest, paths
from lens.data.opening import FORMATS, format_of, read_json
from lens.data.text import first_sentence, heldout
from lens.data.world import Fact, facts, fill, prompts, relations, tails
from lens.given import door, spelled

NEIGHBORS = 5
"""A fact needs at least this many other heads with its tail to become a record."""


SPLITS = ("test", "validation")

FIELDS = tuple(f"requested_rewrite.{name}" for name in ("prompt", "subject", "target_new.str", "target_true.str"))
PROMPTS = ("paraphrase_prompts", "neighborhood_prompts")
OPTIONAL = ("attribute_prompts", "generation_prompts")


def records(split: str | None = None) -> list[dict]:
    """The built-in CounterFact-style records: all 500, or the 400 of "test" or the 100 of "validation".

    The split is by subject, so that no subject is in both: of the subjects in the order of the file, each where it is
    first named, the first and every fifth after it are for validation, with all of their records.

    >>> len(records()), len(records("test")), len(records("validation"))
    (500, 400, 100)
    """
    everything = json.loads(manifest.whole(paths.world() / "records.json").read_text(encoding="utf-8"))
    if split is None:
        return everything
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: choose {' or '.join(map(repr, SPLITS))}, or None for all.")
    subjects = list(dict.fromkeys(r["requested_rewrite"]["subject"] for r in everything))
    chosen = set(subjects[::5])
    return [r for r in everything if (r["requested_rewrite"]["subject"] in chosen) == (split == "validation")]


@door
def load_records(path: str | Path) -> list[dict]:
    """The records of a JSON or JSON Lines file in CounterFact's format: the public ``counterfact.json``, or your own.

    A Hugging Face hub dataset id ("owner/name") is taken too where the dataset holds a file ``counterfact.json`` and
    there is a network.  Raises ``OSError`` where there is no such file, and ``ValueError`` where it holds no records,
    or one lacks a field; the sentence names the record and the field.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.json"
    ...     _ = path.write_text(json.dumps(records()[:3]))
    ...     len(load_records(path))
    3
    """
    file = Path(path).expanduser()
    if not file.is_file():
        file = _from_hub(str(path))
    found = read_json(file)
    if not isinstance(found, list):
        raise ValueError(
            f"The file {file} holds no list of records but a {type(found).__name__}: see lens.data.records."
        )
    if not found:
        raise ValueError(f"The file {file} holds no records: give one with at least one.")
    return check_records(found)


def check_records(found: Sequence[Mapping]) -> Sequence[Mapping]:
    """The records, unchanged; ``ValueError`` in one sentence for the first that is none of CounterFact's format."""
    if not found:
        raise ValueError("There are no records: give at least one.")
    seen: dict[int, int] = {}
    for i, record in enumerate(found):
        if not isinstance(record, Mapping):
            raise ValueError(f"Record number {i} is no record but a {type(record).__name__}: see lens.data.records.")
        if (other := format_of(record)) not in (None, "CounterFact"):
            raise ValueError(
                f"Record number {i} has the format of {other} ({', '.join(sorted(FORMATS[other]))}), and CounterFact's "
                "is needed: write it as those of lens.data.records."
            )
        case = record.get("case_id")
        if not isinstance(case, int) or isinstance(case, bool) or not 0 <= case < 1 << 32:
            raise ValueError(
                f"Record number {i} has the case_id {case!r}: it needs a whole number from 0 to 2**32 - 1."
            )
        if case in seen:
            raise ValueError(f"Records number {seen[case]} and {i} have the same case_id, {case}: give each its own.")
        seen[case] = i
        for field in FIELDS:
            value = record
            for key in field.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"The record with case_id {case} has no text in {field} ({value!r}): it needs one.")
            spelled(f"The text in {field} of the record with case_id {case}", value)
        prompt = record["requested_rewrite"]["prompt"]
        if prompt.count("{}") != 1:
            raise ValueError(
                f"The record with case_id {case} has the prompt {prompt!r}: write {{}} where its subject stands, once."
            )
        for field in (*PROMPTS, *(name for name in OPTIONAL if name in record)):
            value = record.get(field)
            if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
                raise ValueError(f"The record with case_id {case} has no list of texts in {field}: it needs one.")
    return found


def _from_hub(name: str) -> Path:
    """``counterfact.json`` of a hub dataset, downloaded; ``OSError`` where ``name`` is none or it cannot be reached."""
    missing = f"There is no file {name}: check the path, or give a hub dataset id that holds a counterfact.json"
    if name.count("/") != 1 or name.endswith((".json", "/")) or name.startswith((".", "/")):
        raise OSError(f"{missing}.")
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, "counterfact.json", repo_type="dataset"))
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise OSError(f"{missing}, with a network to reach it ({first}).") from None


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
    lead = first_sentence(rng.choice(heldout()))
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
