"""What does this model know?  The facts of a TargetKG, in the words it knows them by, and the records it answers right.

    known:  max over phrasings of exp((1/m) Σ_j log p(t_j | prompt, t_1 … t_{j−1})) ≥ least,     the tail t of m tokens

The built-in models were taught every fact in every phrasing.  A real model knows some facts, each in some words, and a
mask can only remove what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from math import exp
from operator import itemgetter

from lens import data
from lens.data import Fact, Knowledge, Prompt, paths
from lens.data.text import english
from lens.evaluate.answered import first_right, ways
from lens.evaluate.phrasings import surprise
from lens.given import door
from lens.model import LanguageModel

LEAST = 0.01
"""A tail's probability a token in a fact's best phrasing, from which on the fact counts as known."""

ASKED = 64
"""How many records are asked at a time."""

TRAINED, UNSEEN, CONTROL = (0, 2, 4), (1, 3), (0, 1, 2)
"""Places of the phrasings, best first, that a mask trains on, that it never sees, and of a control fact."""


@door
def known(lm: LanguageModel, prompts: Iterable[Prompt], least: float = LEAST) -> dict[Fact, tuple[Prompt, ...]]:
    """The facts of ``prompts`` that ``lm`` knows, each with its phrasings, the best-known first.

    Facts keep their order.  Raises ``ValueError`` where a prompt does not fit the model.

    >>> import lens
    >>> lm, kg = lens.load("mini"), lens.data.knowledge("building")
    >>> facts = known(lm, kg.target)
    >>> len(facts) == len({p.fact for p in kg.target})
    True
    """
    prompts = list(prompts)
    phrasings: dict[Fact, list[tuple[float, Prompt]]] = {prompt.fact: [] for prompt in prompts}
    for nll, prompt in sorted(zip(surprise(lm, prompts), prompts), key=itemgetter(0)):
        phrasings[prompt.fact].append((nll, prompt))
    return {fact: tuple(p for _, p in some) for fact, some in phrasings.items() if exp(-some[0][0]) >= least}


@door
def best_phrasing(lm: LanguageModel, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
    """One prompt of each fact: that in which ``lm`` gives its tail the highest probability, the first of equals.

    The paper keeps this one to remove a fact by, and holds the others out as paraphrases.  Facts keep their order.
    Raises ``ValueError`` where a prompt does not fit the model.

    >>> import lens
    >>> everything = lens.data.verbalize([("cafe", "hypernym", "restaurant"), ("stool", "hypernym", "seat")])
    >>> best = best_phrasing(lens.load("mini"), everything)
    >>> kg = lens.data.knowledge(best, unseen=everything)
    >>> len(kg.target), len(kg.unseen)
    (2, 16)
    """
    return tuple(some[0] for some in known(lm, prompts, least=0).values())


@door
def knowledge_for(lm: LanguageModel, target="building", *, least: float | None = None, **given) -> Knowledge:
    """``lens.data.knowledge(target, **given)`` as ``lm`` knows it: for a fetched model, or where ``least`` is given.

    Facts that the model does not know are left out (``least``: by default a probability of 0.01); of a target fact's
    phrasings, best first, the first, third and fifth are trained on and the second and fourth never seen, of a control
    fact the three best stay; and the text is English prose (``lens.data.english``) unless it is given.

    Raises ``ValueError`` in one sentence where the model knows no fact of the target or of its control, and what
    ``lens.data.knowledge`` raises.

    >>> import lens
    >>> knowledge_for(lens.load("mini"), "building") == lens.data.knowledge("building")
    True
    """
    if lm.name not in paths.FETCHED and least is None:
        return data.knowledge(target, **given)
    least = LEAST if least is None else least
    texts = {} if "text" in given else {"text": english("train"), "text_held_out": english("held_out")}
    kg = data.knowledge(target, **texts | given)
    targets = known(lm, (*kg.target, *kg.unseen), least)
    control, held_out = (known(lm, some, least) for some in (kg.control, kg.control_held_out))
    for name, facts in (("the target", targets), ("ControlKG", control), ("held-out ControlKG", held_out)):
        if not facts:
            raise ValueError(f"{lm.name} knows no fact of {name} of {kg.name}: give other facts, or a smaller least.")
    return replace(
        kg,
        target=_at(targets, TRAINED),
        unseen=_at(targets, UNSEEN),
        control=_at(control, CONTROL),
        control_held_out=_at(held_out, CONTROL),
    )


def records_for(
    lm: LanguageModel, split: str | None = None, *, answered: bool | None = None, most: int | None = None
) -> list[dict]:
    """``lens.data.records(split)``; for a fetched model, or where ``answered``, those that ``lm`` answers right.

    The model is asked by the rewrite prompt and by the paraphrases.  A record stays where the true answer comes first
    behind one of them; where that is a paraphrase, it changes places with the rewrite prompt, so that an edit has
    something to overwrite.  ``most``: only the first so many that stay, and no more are asked than that takes.

    >>> import lens
    >>> len(records_for(lens.load("mini"), "validation", most=20))
    20
    """
    given = data.records(split)
    if not (lm.name in paths.FETCHED if answered is None else answered):
        return given[:most]
    groups = (given[start : start + ASKED] for start in range(0, len(given), ASKED))
    places = ((record, j) for some in groups for record, j in zip(some, first_right(lm, some)))
    return list(islice((_asked(record, j) for record, j in places if j is not None), most))


def _asked(record: Mapping, j: int) -> dict:
    """The record with its way ``j`` as the rewrite prompt."""
    rewrite, worded = record["requested_rewrite"], ways(record)
    if j == 0:
        return dict(record)
    swapped = [worded[0] if p == worded[j] else p for p in record["paraphrase_prompts"]]
    prompt = worded[j].replace(rewrite["subject"], "{}")
    return {**record, "requested_rewrite": {**rewrite, "prompt": prompt}, "paraphrase_prompts": swapped}


def _at(known: dict[Fact, tuple[Prompt, ...]], places: tuple[int, ...]) -> tuple[Prompt, ...]:
    """The phrasings at these places; no phrasing was taught to this model, so none was held out from it."""
    return tuple(replace(some[i], held_out=False) for some in known.values() for i in places if i < len(some))
