"""Behind which of its prompts does a fetched model answer a record right?  Asked once, and kept.

    data/known/MODEL-records.csv: a record's case_id, and the place among its prompts of the first that is answered
    right (0: the rewrite prompt; then the paraphrases); empty where none is

Every chapter that edits asks for the same records, and a large model takes minutes.  The table stands for the very
weights and the very records that it was made from; what it does not hold is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lens.data import manifest, paths
from lens.evaluate.scoring import score
from lens.model import LanguageModel


def ways(record: Mapping) -> list[str]:
    """The rewrite prompt, and the paraphrases that name the subject as it stands there, so that it can be cut out."""
    rewrite = record["requested_rewrite"]
    others = [p for p in record["paraphrase_prompts"] if p.count(rewrite["subject"]) == 1]
    return [rewrite["prompt"].replace("{}", rewrite["subject"]), *others]


def first_right(lm: LanguageModel, given: Sequence[Mapping]) -> list[int | None]:
    """Of each record, the place among its ``ways`` of the first that ``lm`` answers right; None where none is.

    >>> import lens
    >>> first_right(lens.load("mini"), lens.data.records("validation")[:3])
    [0, 0, 0]
    """
    from lens.results.csv_text import from_csv

    kept = from_csv(file_of(lm.name), *about(lm)) if lm.name in paths.FETCHED else []
    held = {int(row["case_id"]): int(row["way"]) if row["way"] else None for row in kept}
    missing = [record for record in given if record["case_id"] not in held]
    found = held | dict(zip((record["case_id"] for record in missing), _ask(lm, missing) if missing else ()))
    return [found[record["case_id"]] for record in given]


def table(lm: LanguageModel, given: Sequence[Mapping]) -> list[dict]:
    """The rows of the table for these records, every one asked."""
    places = _ask(lm, given)
    return [{"case_id": r["case_id"], "way": "" if p is None else p} for r, p in zip(given, places)]


def about(lm: LanguageModel) -> tuple[str, str]:
    """The lines of the file that say of which weights and which records it is."""
    return f"{lm.name} {lm.weights.current_fingerprint}", f"records {_records()}"


def file_of(model: str) -> Path:
    """Where the table of a model is kept."""
    return paths.root() / "known" / f"{model}-records.csv"


def _ask(lm: LanguageModel, given: Sequence[Mapping]) -> list[int | None]:
    asked = [(text, record["requested_rewrite"]["target_true"]["str"]) for record in given for text in ways(record)]
    right = iter(score(lm, *zip(*asked)).correct.tolist())
    each = [[next(right) for _ in ways(record)] for record in given]
    return [said.index(True) if True in said else None for said in each]


def _records() -> str:
    return manifest.listed("world")["world/records.json"]["sha256"]
