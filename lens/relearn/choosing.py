"""How does a language model choose?  One score for each choice of a question, and the softmax over them.

    likelihood    score = Σ log p of the choice's tokens behind the question      a skill that every such model has
    classifier    score = w · h,  h at the last token of question and choice      as transformers' multiple-choice heads

The likelihood needs no training: it is the zero-shot answer.  The classifier must first learn what a right choice looks
like.  States h are ln_f's output, [d].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

import torch
from torch import Tensor, nn

from lens.data import Question
from lens.given import door
from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.soundness import not_finite
from lens.model.watching import as_a_function

READOUTS = ("likelihood", "classifier")

TOKENS = 2048
"""How many tokens run through the model at a time where nothing is trained, padding included."""


@dataclass(frozen=True)
class Asked:
    """Some questions as a batch.  ``ids`` [R, T]: question and choice, rows that are alike once, padded on the right.

    At ``position[k]`` of row ``row[k]`` token ``label[k]`` is due, which counts for choice ``owner[k]`` (all [K]) of
    the B·C choices; ``shape`` is (B, C), and ``answer`` [B] the right choices.
    """

    ids: Tensor
    row: Tensor
    position: Tensor
    label: Tensor
    owner: Tensor
    shape: tuple[int, int]
    answer: Tensor


class Encoded:
    """Questions as token ids, to be batched in any order.

    Raises ``ValueError`` for no questions, a question without a published answer, another number of choices than the
    first has, and what does not fit the model.
    """

    def __init__(self, lm: LanguageModel, questions: Sequence[Question], readout: str = "likelihood"):
        if readout not in READOUTS:
            raise ValueError(f"There is no readout {readout!r}: choose {' or '.join(READOUTS)}.")
        self.questions = questions = list(questions)
        if not questions:
            raise ValueError("There are no questions: give at least one.")
        self._device, self._whole = lm.device, readout == "classifier"
        self._choices = len(questions[0].choices)
        self._pairs: list[list[tuple[list[int], list[int]]]] = []  # prompt and choice, for each choice
        for q in questions:
            if q.answer is None:
                raise ValueError(f"The answer of {q.text!r} is not published: give questions that have one.")
            if len(q.choices) != self._choices or self._choices < 2:
                raise ValueError(
                    f"The question {q.text!r} has {len(q.choices)} choices: give each the same number, 2 or more."
                )
            prompt = lm.encode(q.text)
            self._pairs.append([(prompt, lm.target_ids(choice)) for choice in q.choices])
            lm.encode(max(([*prompt, *choice] for prompt, choice in self._pairs[-1]), key=len))  # may be too long

    def __len__(self) -> int:
        return len(self.questions)

    def _row(self, prompt: list[int], choice: list[int]) -> tuple[int, ...]:
        """What runs: all but the token that is due last, or all, where the end of the choice is read."""
        return (*prompt, *choice) if self._whole else (*prompt, *choice[:-1])

    def batch(self, chosen: Sequence[int]) -> Asked:
        """The questions of these indices, on the model's device."""
        rows: dict[tuple[int, ...], int] = {}
        where = []
        for owner, (prompt, choice) in enumerate(pair for i in chosen for pair in self._pairs[i]):
            ids = self._row(prompt, choice)
            row = rows.setdefault(ids, len(rows))
            due = [len(ids) - 1] if self._whole else range(len(prompt) - 1, len(ids))
            where += [(row, at, token, owner) for at, token in zip(due, choice)]
        ids, _ = pad(list(rows))
        answer = torch.tensor([self.questions[i].answer for i in chosen])
        moved = (t.to(self._device) for t in (ids, *torch.tensor(where).T))
        return Asked(*moved, (len(chosen), self._choices), answer.to(self._device))

    def chunks(self) -> list[list[int]]:
        """All indices, by length, in batches of about ``TOKENS`` tokens."""
        sizes = [sum(map(len, {self._row(*pair) for pair in pairs})) for pairs in self._pairs]
        found: list[list[int]] = []
        total = 0
        for i in sorted(range(len(self)), key=lambda i: len(self._pairs[i][0][0])):
            if not found or total + sizes[i] > TOKENS:
                found.append([])
                total = 0
            found[-1].append(i)
            total += sizes[i]
        return found


class Scorer(nn.Module):
    """``scorer(asked)``: scores [B, C] of the choices, in float32 or wider.

    ``probe`` is what a head trains: A [d, d], zero at first, in logits = head(h + h A) for the likelihood; w [d, 1]
    for the classifier; None where the model's own head reads.
    """

    def __init__(self, lm: LanguageModel, readout: str, probe: Tensor | None = None):
        super().__init__()
        self.model = lm.model  # its parameters are this module's, under "model."
        self._lm, self._readout, self._probe = lm, readout, probe

    def states(self, asked: Asked) -> Tensor:
        """ln_f's output where tokens are due, [K, d]."""
        hidden = self._lm.base_model(input_ids=asked.ids, use_cache=False).last_hidden_state
        return hidden[asked.row.to(hidden.device), asked.position.to(hidden.device)]

    def forward(self, asked: Asked, states: Tensor | None = None) -> Tensor:
        states = self.states(asked) if states is None else states
        states = states if self._probe is None else states.to(self._probe.device)
        wide = torch.promote_types(states.dtype, torch.float32)
        if self._readout == "classifier":
            each = (states.to(wide) @ self._probe)[:, 0]
        else:
            if self._probe is not None:
                states = states + (states.to(wide) @ self._probe).to(states.dtype)
            logits = self._lm.head(states)
            each = logits.log_softmax(-1).gather(1, asked.label.to(logits.device)[:, None])[:, 0]
        questions, choices = asked.shape
        scores = torch.zeros(questions * choices, dtype=wide, device=each.device)
        return scores.index_add(0, asked.owner.to(each.device), each).view(questions, choices)


@torch.no_grad()
def answered(score: Callable[[Asked], Tensor], encoded: Encoded) -> tuple[list[bool], list[float]]:
    """Is each question answered right, and which score has its right choice?  ``score``: ``Asked`` → scores [B, C].

    NaN where the score of any choice is no finite number.
    """
    right, scored = torch.zeros(len(encoded), dtype=torch.bool), torch.zeros(len(encoded), dtype=torch.float64)
    for chosen in encoded.chunks():
        asked = encoded.batch(chosen)
        scores, answer = score(asked).cpu(), asked.answer.cpu()
        right[torch.tensor(chosen)] = scores.argmax(1) == answer
        own = scores.gather(1, answer[:, None])[:, 0].double()
        scored[torch.tensor(chosen)] = own.where(scores.isfinite().all(1), torch.nan)
    return right.tolist(), scored.tolist()


def by_fact(questions: Sequence[Question], values: Sequence[float]) -> dict:
    """The mean of each fact's questions; a question made of none stands for itself, under its index."""
    found: dict = {}
    for i, (q, value) in enumerate(zip(questions, values)):
        found.setdefault(i if q.fact is None else q.fact, []).append(float(value))
    return {fact: fmean(some) for fact, some in found.items()}


def means(questions: Sequence[Question], values: Sequence[float]) -> dict[str, float]:
    """The mean over facts: of ``"all"``, of those that are ``"filtered"``, and of the ``"rest"``.

    Phrasings of one fact are averaged first: they are not independent.  NaN where there is no such fact.
    """
    kinds = {i if q.fact is None else q.fact: q.filtered for i, q in enumerate(questions)}
    each = by_fact(questions, values)
    parts = {"all": list(each), "filtered": [f for f in each if kinds[f]], "rest": [f for f in each if not kinds[f]]}
    return {name: fmean(each[f] for f in part) if part else float("nan") for name, part in parts.items()}


@door
def zero_shot(lm: LanguageModel, questions: Sequence[Question]) -> dict[str, float]:
    """The accuracy of ``lm`` as it is, of all, filtered and the rest: the choice of the highest log-probability.

    Raises ``ValueError`` for questions without an answer or that do not fit the model, and for scores that are NaN.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> zero_shot(lm, lens.relearn.questions(lens.data.knowledge("building")).test)["filtered"]
    1.0
    """
    asked = Encoded(lm, questions)
    with as_a_function(lm.model):
        right, scored = answered(Scorer(lm, "likelihood"), asked)
    if not all(map(isfinite, scored)):
        raise not_finite(lm, "Scores of choices are NaN or infinite")
    return means(asked.questions, right)
