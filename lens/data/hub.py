"""Which public text goes with public models?  WikiText-2 and CommonsenseQA, through the package ``datasets``.

Both are downloaded once and then read from the cache of ``datasets``; the built-in world needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from lens.data.world import Fact


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: ``answer`` is the index of the right choice, or None where it is not published.

    ``concept`` is the word that the question was written about.  ``fact``: the triplet that it asks for, where it was
    made of one; ``filtered``: does its answer need a fact of the TargetKG (``lens.relearn``)?

    >>> question = Question("Where would you find a pike?", ("river", "attic"), answer=0, concept="pike")
    >>> question.choices[question.answer]
    'river'
    """

    text: str
    choices: tuple[str, ...]
    answer: int | None
    concept: str = ""
    fact: Fact | None = None
    filtered: bool = False


def wikitext(split: str = "train") -> tuple[str, ...]:
    """The paragraphs of WikiText-2 (raw) in order, without headings: ``"train"``, ``"validation"`` or ``"test"``.

    They are as published, with a space before each mark of punctuation.  Raises ``ValueError`` for another split and
    ``OSError`` without ``datasets`` or, the first time, without a network.

    >>> knowledge("building", text=wikitext("train"), text_held_out=wikitext("test"))  # doctest: +SKIP
    """
    rows = _load("Salesforce/wikitext", "wikitext-2-raw-v1", split)
    lines = (row["text"].strip() for row in rows)
    return tuple(line for line in lines if line and not (line.startswith("= ") and line.endswith(" =")))


def commonsense_qa(split: str = "validation") -> tuple[Question, ...]:
    """The questions of CommonsenseQA: ``"train"``, ``"validation"`` or ``"test"``, whose answers are not published.

    Raises ``ValueError`` for another split and ``OSError`` without ``datasets`` or, the first time, without a network.

    >>> commonsense_qa()[0].choices  # doctest: +SKIP
    """
    return tuple(
        Question(
            row["question"],
            tuple(row["choices"]["text"]),
            row["choices"]["label"].index(row["answerKey"]) if row["answerKey"] else None,
            row["question_concept"],
        )
        for row in _load("tau/commonsense_qa", None, split)
    )


SPLITS = ("train", "validation", "test")


def _load(name: str, configuration: str | None, split: str):
    """The rows of a dataset's split; ``OSError`` in one sentence where it cannot be had."""
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r} of {name}: choose {', '.join(SPLITS)}.")
    try:
        from datasets import load_dataset
    except ImportError:
        raise OSError(
            f"The dataset {name} needs the package datasets: install it with 'pip install datasets', or use the "
            "built-in world."
        ) from None
    try:
        return load_dataset(name, configuration, split=split)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise OSError(
            f"The dataset {name} could not be read ({first}): try again with a network, or use the built-in world."
        ) from None
