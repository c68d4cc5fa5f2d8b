"""In which words does a model know a fact best?  Of several phrasings, the one in which the tail is most probable.

    best = argmax over phrasings of (1/m) Σ_j log p(t_j | prompt, t_1 … t_{j−1}),    the tail t of m tokens

The paper keeps this one to remove a fact by, and holds the others out as paraphrases.
"""

from __future__ import annotations

from collections.abc import Iterable

from lens.data.world import Fact, Prompt
from lens.evaluate.scoring import score
from lens.model import LanguageModel


def best_phrasing(lm: LanguageModel, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
    """One prompt of each fact: that in which ``lm`` gives its tail the highest probability, the first of equals.

    Facts keep their order.  Raises ``ValueError`` where a prompt does not fit the model.

    >>> import lens
    >>> everything = lens.data.verbalize([("cafe", "hypernym", "restaurant"), ("stool", "hypernym", "seat")])
    >>> best = best_phrasing(lens.load("mini"), everything)
    >>> kg = lens.data.knowledge(best, unseen=everything)
    >>> len(kg.target), len(kg.unseen)
    (2, 16)
    """
    prompts = list(prompts)
    nll = score(lm, [p.text for p in prompts], [p.target for p in prompts]).nll.tolist()
    best: dict[Fact, int] = {}
    for i, prompt in enumerate(prompts):
        if nll[i] < nll[best.setdefault(prompt.fact, i)]:
            best[prompt.fact] = i
    return tuple(prompts[i] for i in best.values())
