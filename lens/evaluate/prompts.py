"""Did the edit take, does it reach other words for the same fact, and did it leave the neighbors alone?

    measure        prompts                                     should say      success
    efficacy       the request's own                           target_new      p(new) > p(true)
    paraphrase     the same fact in other words                target_new      p(new) > p(true)
    neighborhood   other subjects with the same true target    target_true     p(true) > p(new)

Two conventions, which papers mix and this book names: **accuracy** is the share of prompts where every token of the
target that should be said is the argmax, teacher-forced (*Backward Lens*, Table 1); **success** is the share where its
p is the larger of the two (ROME), with log p the mean over the target's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lens.edit.edit import Change
from lens.edit.request import Request
from lens.evaluate.scoring import score
from lens.model import LanguageModel

MEASURES = ("efficacy", "paraphrase", "neighborhood")
CONVENTIONS = ("accuracy", "success")
SHARES = tuple(f"{measure}_{convention}" for measure in MEASURES for convention in CONVENTIONS)
"""The six columns: ``efficacy_accuracy``, ``efficacy_success``, ``paraphrase_accuracy``, …"""


@dataclass(frozen=True)
class Case:
    """One record as this model reads it: its request, and token ids of its targets and of each measure's prompts."""

    case_id: int
    request: Request
    new: list[int]
    true: list[int]
    prompts: dict[str, list[list[int]]]
    generation: list[list[int]]

    @classmethod
    def of(cls, lm: LanguageModel, record: Mapping) -> Case:
        """Raises ``ValueError`` in one sentence where a prompt or a target does not fit the model."""
        request = Request.from_record(record)
        if request.target_true is None:
            raise ValueError("The record names no true target: give requested_rewrite a field 'target_true'.")
        new, true = lm.target_ids(request.target_new), lm.target_ids(request.target_true)
        texts = {
            "efficacy": [request.text],
            "paraphrase": record["paraphrase_prompts"],
            "neighborhood": record["neighborhood_prompts"],
        }
        prompts = {measure: [lm.encode(text) for text in some] for measure, some in texts.items()}
        longest = max((p for some in prompts.values() for p in some), key=len)
        lm.encode([*longest, *max(new, true, key=len)[:-1]])
        generation = [lm.encode(text) for text in record.get("generation_prompts", ())]
        return cls(record["case_id"], request, new, true, prompts, generation)


def shares(
    lm: LanguageModel, cases: Sequence[Case], edits: Sequence[Sequence[Change]] | None = None
) -> list[dict[str, float | None]]:
    """The six ``SHARES`` of each case, with ``edits[i]`` beside the weights for case i; None where it has no prompts.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> case = Case.of(lm, lens.data.records()[0])
    >>> unedited, edited = shares(lm, [case, case], [(), lens.edit.shift(lm, case.request, eta=2.0).changes])
    >>> unedited["efficacy_success"], edited["efficacy_success"]
    (0.0, 1.0)
    """
    pairs = [
        (i, measure, prompt, target)
        for i, case in enumerate(cases)
        for measure in MEASURES
        for prompt in case.prompts[measure]
        for target in ((case.true, case.new) if measure == "neighborhood" else (case.new, case.true))
    ]
    carried = [i for i, *_ in pairs] if edits else None
    scores = score(lm, [p for *_, p, _ in pairs], [t for *_, t in pairs], edits=edits, rows=carried)
    nll, correct = scores.nll.tolist(), scores.correct.tolist()
    seen: list[dict[str, list[bool]]] = [{name: [] for name in SHARES} for _ in cases]
    for k in range(0, len(pairs), 2):  # the target that should be said, then the other
        i, measure, *_ = pairs[k]
        seen[i][f"{measure}_accuracy"].append(correct[k])
        seen[i][f"{measure}_success"].append(nll[k] < nll[k + 1])
    return [{name: sum(hits) / len(hits) if hits else None for name, hits in one.items()} for one in seen]
