"""How surprising is each phrasing of the world's facts to a fetched model?  Asked once, and kept.

    data/known/MODEL.csv: a fact's head, relation and tail; −log p a token of the tail behind each phrasing, in order

Thousands of prompts take a large model minutes, and every chapter asks for the same ones.  The table stands for the
very weights that it was made from; what it does not hold is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isnan
from pathlib import Path

from lens.data import Fact, Prompt, facts, paths, prompts
from lens.evaluate.scoring import score
from lens.model import LanguageModel
from lens.model.soundness import not_finite

DIGITS = 6
"""Of a kept number, behind the point."""


def surprise(lm: LanguageModel, some: Sequence[Prompt]) -> list[float]:
    """−log p a token of each prompt's tail, from the table where it holds the prompt.

    >>> import lens
    >>> lm, kg = lens.load("mini"), lens.data.knowledge("building")
    >>> max(surprise(lm, kg.target[:4])) < 1
    True
    """
    held = _table(lm.name, lm.weights.current_fingerprint) if lm.name in paths.FETCHED else {}
    asked = [p for p in some if (p.text, p.target) not in held]
    found = score(lm, [p.text for p in asked], [p.target for p in asked]).nll.tolist() if asked else []
    if any(map(isnan, found)):
        raise not_finite(lm, "What the model says is NaN")
    known = held | {(p.text, p.target): value for p, value in zip(asked, found)}
    return [known[p.text, p.target] for p in some]


def table(lm: LanguageModel, some: Sequence[Fact]) -> list[dict]:
    """The rows of the table for these facts, every number asked for."""
    each = {fact: list(prompts(fact)) for fact in some}
    asked = [p for worded in each.values() for p in worded]
    found = iter(score(lm, [p.text for p in asked], [p.target for p in asked]).nll.tolist())
    return [
        {"head": fact.head, "relation": fact.relation, "tail": fact.tail}
        | {"nll": " ".join(f"{next(found):.{DIGITS}f}" for _ in worded)}
        for fact, worded in each.items()
    ]


def file_of(model: str) -> Path:
    """Where the table of a model is kept."""
    return paths.root() / "known" / f"{model}.csv"


def rows(model: str, fingerprint: str) -> list[dict]:
    """The rows of the table that is kept of these weights; none where there is no table."""
    from lens.results.csv_text import from_csv

    return from_csv(file_of(model), f"{model} {fingerprint}")


@cache
def _table(model: str, fingerprint: str) -> dict[tuple[str, str], float]:
    """(text, tail) → −log p a token; empty where there is no table of these weights."""
    kept = {(row["head"], row["relation"], row["tail"]): row["nll"].split() for row in rows(model, fingerprint)}
    return {
        (p.text, p.target): float(value)
        for fact in facts()
        for p, value in zip(prompts(fact), kept.get((fact.head, fact.relation, fact.tail), ()))
    }
