"""What would the model say next?  The likeliest words behind many prompts, and whether a hoped-for target is said.

    p(w | prompt) = softmax(head(ln_f(h_n)))_w,      at the last token of each prompt

Prompts of one length run together, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lens.course.widgets.explorer import Words
from lens.edit.branch import branches
from lens.edit.edit import Change
from lens.evaluate.scoring import score
from lens.model import LanguageModel, Tokens
from lens.model.batch import chunks
from lens.model.soundness import finite, not_finite
from lens.model.tokens import plain
from lens.model.watching import as_a_function
from lens.readout.projection import check_k

TOKENS = 4096
"""How many tokens run through the model at a time."""

UNIT = 10_000
"""Explorers hold probabilities as whole numbers of 1/10 000, half the text of a fraction."""


@dataclass(frozen=True)
class Answers:
    """Of N prompts the likeliest next tokens ``ids`` [N, k], best first, and their ``probabilities`` [N, k], 0 to 1.

    ``hoped`` [N]: the probability of each prompt's target (of several tokens, teacher-forced, the geometric mean);
    ``said`` bool [N]: is every token of it the likeliest?
    """

    ids: Tensor
    probabilities: Tensor
    hoped: Tensor
    said: Tensor

    def plain(self, lm: LanguageModel, words: Words) -> list[list[int]]:
        """Each answer as whole numbers: p of the target, 1 if it is said, place of a word in ``words``, its p, …"""
        rows = zip(self.hoped.tolist(), self.said.tolist(), lm.words(self.ids), self.probabilities.tolist())
        return [
            [round(UNIT * p), int(said), *(n for w, q in zip(words(best), each) for n in (w, round(UNIT * q)))]
            for p, said, best, each in rows
        ]


@torch.no_grad()
def next_words(lm: LanguageModel, normed: Tensor, hoped: Sequence[int], k: int) -> Answers:
    """Read ln_f's output at the prompts' last tokens, ``normed`` [N, d]; ``hoped``: one token for each."""
    check_k(lm, k)
    p, tokens = lm.head(normed).float().softmax(-1).cpu(), torch.tensor(hoped)
    best = p.topk(k)
    if not finite(best.values):
        raise not_finite(lm, "Probabilities are NaN and stand for no words")
    return Answers(best.indices, best.values, p.gather(1, tokens[:, None])[:, 0], best.indices[:, 0] == tokens)


@torch.no_grad()
def answers(
    lm: LanguageModel,
    prompts: Sequence[Tokens],
    targets: Sequence[Tokens],
    k: int = 5,
    *,
    edits: Sequence[Sequence[Change]] | None = None,
    rows: Sequence[int] | None = None,
) -> Answers:
    """What the model answers to N prompts, and how probable ``targets[i]`` is behind ``prompts[i]``.

    ``edits`` and ``rows`` [N] run prompt i as if ``edits[rows[i]]`` were applied (see ``lens.edit.branches``).  Raises
    ``ValueError`` for a prompt or target that does not fit the model, and for a k that is not from 1 to V.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> found = answers(lm, ["The capital of France is", "The capital of Italy is"], ["Paris", "Paris"])
    >>> lm.words(found.ids[:, 0]), found.said.tolist()
    (['·Paris', '·Rome'], [True, False])
    """
    prompts, due = plain(prompts), [lm.target_ids(target) for target in plain(targets)]
    asked = [lm.encode(prompt) for prompt in prompts]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
    ids, probabilities = torch.zeros(len(due), k, dtype=torch.long), torch.zeros(len(due), k)
    hoped, said = torch.zeros(len(due)), torch.zeros(len(due), dtype=torch.bool)
    for where in chunks(order, lambda i: len(asked[i]), TOKENS, padding=0):
        carried = [0 if rows is None else rows[i] for i in where] if edits else None
        with as_a_function(lm.model), branches(lm, edits or [], carried):
            run = torch.tensor([asked[i] for i in where], device=lm.device)
            hidden = lm.base_model(run, use_cache=False).last_hidden_state
            part = next_words(lm, hidden[:, -1], [due[i][0] for i in where], k)
        ids[where], probabilities[where] = part.ids, part.probabilities
        hoped[where], said[where] = part.hoped, part.said
    longer = [i for i, target in enumerate(due) if len(target) > 1]
    if longer:
        of = [rows[i] for i in longer] if edits and rows is not None else None
        scores = score(lm, [prompts[i] for i in longer], [due[i] for i in longer], edits=edits, rows=of)
        hoped[longer], said[longer] = (-scores.nll).exp().cpu(), scores.correct.cpu()
    return Answers(ids, probabilities, hoped, said)
