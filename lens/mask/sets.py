"""Are the three sets of a training what they should be?  Not empty, and the controls hold no fact of the target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from unicodedata import normalize

from lens.data.world import Prompt
from lens.given import spelled


def check_sets(
    target: Sequence[Prompt], control_kg: Sequence[Prompt], control_lm: Sequence[str]
) -> tuple[list[Prompt], list[Prompt], list[str]]:
    """The sets as lists; ``ValueError`` in one sentence for the first thing that is wrong with them."""
    sets = []
    for name, given in (("target", target), ("control_kg", control_kg), ("control_lm", control_lm)):
        sets.append(list(given))
        if isinstance(given, str) or not sets[-1]:
            raise ValueError(f"The set {name} is {'one text' if isinstance(given, str) else 'empty'}: give a list.")
    target, control_kg, control_lm = sets
    facts = {_fact(p): p for p in target}
    texts = {_same(p.text) for p in target}
    for p in control_kg:
        if _fact(p) in facts or _same(p.text) in texts:
            raise ValueError(
                f"The control set holds a fact of the target set ({p.text!r} → {p.target!r}), which cannot be both "
                "removed and kept: leave it out of one of them."
            )
    sentences = {_same(p.sentence): p for p in target}
    for text in control_lm:
        text = _same(spelled("A text of control_lm", text))
        for sentence, p in sentences.items():
            if sentence in text:
                raise ValueError(
                    f"A text of control_lm says a target's sentence ({p.sentence!r}), which cannot be both removed and "
                    "kept: leave that text out."
                )
    return target, control_kg, control_lm


def _fact(prompt: Prompt) -> tuple[str, str, str]:
    return prompt.fact.relation, _same(prompt.fact.head), _same(prompt.fact.tail)


_same = partial(normalize, "NFC")  # two spellings of a name are one
