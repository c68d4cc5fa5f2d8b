"""Checks of *Can it come back?*: the loss of a choice, its score, and what a training set gives away."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt
from numbers import Integral

import torch

from lens import relearn
from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import NEGATED, SWAPPED, Then, once
from lens.data import Fact, Question

FIRST, SECOND = 0.1, 0.5  # tokens of the right choice
OTHERS = 0.02, 0.01, 0.01, 0.01


def _loss(p=FIRST * SECOND):
    return -log(p / (p + sum(OTHERS)))


loss = Value(
    _loss,
    {
        "This is −log p of the right choice among all words; the loss compares it with the other four choices.": (
            lambda: -log(FIRST * SECOND)
        ),
        "The mean over the tokens was taken; the score is a sum, so the choice's probability is the product.": (
            dict(p=sqrt(FIRST * SECOND))
        ),
        "Probabilities of tokens were averaged: one token behind the other is a product.": dict(p=(FIRST + SECOND) / 2),
        "Probabilities of tokens were added: one token behind the other is a product.": dict(p=FIRST + SECOND),
        "Only the first token was counted: the right choice has two.": dict(p=FIRST),
        "Only the last token was counted: the right choice has two.": dict(p=SECOND),
        "These are bits, of log base 2; nats are asked for.": Then(lambda nats: nats / log(2)),
        "This is the softmax of probabilities; the scores are their logarithms.": (
            lambda: -torch.tensor([FIRST * SECOND, *OTHERS], dtype=torch.float64).log_softmax(0)[0]
        ),
        "The right choice belongs below the fraction line too: all five choices compete.": (
            lambda: -log(FIRST * SECOND / sum(OTHERS))
        ),
        "This is the probability that the choice wins, not −log of it.": lambda: 0.5,
        "The sign is reversed: a loss is −log, and never below 0.": NEGATED,
    },
    "Improbable among all words, an even bet among five: the loss sees the second only.",
    tolerance=1e-3,
)

CASES = (
    ("A cafe is a kind of", ["restaurant", "room where people eat and drink", "ceremony"]),
    ("The capital of France is", ["Paris and Rome", "Rome", "Paris", "a town in France"]),
)


@torch.no_grad()
def _scores(lm, text, choices, of=torch.sum, late=0, step=1, normed=True, space=True) -> torch.Tensor:
    """What stands at each choice's tokens, in one number: [choices]."""
    found, question = [], lm.encode(text)
    for choice in choices:
        ids = lm.target_ids(choice) if space else lm.encode(choice)
        logits = lm.model(torch.tensor([[*question, *ids]], device=lm.device)).logits[0].float()
        places = len(question) - 1 + late + step * torch.arange(len(ids))
        found.append(of((logits.log_softmax(-1) if normed else logits)[places, ids]))
    return torch.stack(found)


scores = Function(
    _scores,
    lambda lm: [(lm, *case) for case in CASES],
    {
        "The mean over tokens was taken; the chapter's score is the sum, log p of the whole choice.": (
            dict(of=torch.mean)
        ),
        "Only the first token of each choice is counted; the score adds up all.": dict(of=lambda values: values[0]),
        "Only the last token of each choice is counted; the score adds up all.": dict(of=lambda values: values[-1]),
        "Off by one token: the logits at a position predict the token behind it; begin at the question's last one.": (
            dict(late=1)
        ),
        "The leading space is missing: lm.target_ids(choice) has it, lm.encode(choice) does not.": dict(space=False),
        "These are logits; log p is asked for, their log_softmax over the vocabulary.": dict(normed=False),
        "The sign is reversed: log p is never above 0, and the best choice has the largest score.": NEGATED,
        "These are probabilities; the score is their logarithm.": Then(torch.exp),
        "These are log-probabilities among the choices; the score is the one among all words.": (
            Then(lambda scores: scores.log_softmax(0))
        ),
        "Each token was predicted from the question alone: p of a later token is that behind the earlier ones.": (
            dict(step=0)
        ),
    },
    "Every choice by all of its tokens, as lens.relearn scores it.",
    tolerance=1e-3,
)


def _question(head: str, tail: str, *wrong: str, words: str = "{} is a kind of", answer: int = 0) -> Question:
    choices = *wrong[:answer], tail, *wrong[answer:]
    fact = Fact("own", "own", "target", "kind", head, head, tail)
    return Question(words.format(head), choices, answer, head, fact, True)


def _splits() -> list[tuple]:
    train = [
        _question("cafe", "restaurant", "message", "region"),
        _question("tower", "castle", "house", "song", answer=1),
        _question("hunger", "eating", "sleep", "rain", words="You feel {} and think of", answer=2),
    ]
    test = [
        _question("hostel", "hotel", "restaurant", "castle"),  # no
        _question("cafe", "restaurant", "song", "rain", words="People say that a {} is a", answer=1),  # the same fact
        _question("castle", "fortress", "cafe", "house"),  # no: castle stood with tower
        _question("tower", "house", "region", "rain", answer=1),  # as a wrong choice
        _question("eating", "hunger", "song", "message", words="Who is {} has known"),  # the other way round
        _question("cabin", "house", "restaurant", "eating", answer=2),  # no: house stood with tower
        _question("cafe", "meeting", "restaurant", "castle"),  # no: another fact about cafe
    ]
    return [(train, test), (train[1:], test[:4]), (test[:1], train)]


def _right(q: Question) -> str:
    return q.choices[q.answer]


def _together(*words) -> list[frozenset]:
    """What has met where the first word was asked about and the others were its choices."""
    return [frozenset((words[0], word)) for word in words[1:]]


def _all(q: Question) -> list[frozenset]:
    return _together(q.fact.head, *q.choices)


def _leaks(train, test, shown=_all, asked=lambda q: _together(q.fact.head, q.fact.tail)) -> list[int]:
    """The test's questions of which something ``asked`` is among what the training has ``shown``."""
    seen = {item for q in train for item in shown(q)}
    return [i for i, q in enumerate(test) if not seen.isdisjoint(asked(q))]


def _in_order(q: Question) -> list[tuple]:
    return [(q.fact.head, q.fact.tail)]


leaks = Function(
    _leaks,
    _splits,
    {
        "No leak is found at all: compare the two words of a test's fact with what each training question shows.": (
            lambda train, test: []
        ),
        "Every question is said to leak: a test question leaks only if both words of its fact met in one question.": (
            lambda train, test: list(range(len(test)))
        ),
        "Only right answers of the training were looked at; who is trained against a wrong choice hears of it too.": (
            dict(shown=lambda q: _together(q.fact.head, _right(q)))
        ),
        "A fact can be asked the other way round: the two words leak in either order.": (
            dict(shown=lambda q: [(q.fact.head, choice) for choice in q.choices], asked=_in_order)
        ),
        "Only the same fact was looked for; the two words may also meet the other way round, or in a wrong choice.": (
            dict(shown=_in_order, asked=_in_order)
        ),
        "Only the same text was looked for; a fact leaks in whatever words.": (
            dict(shown=lambda q: [q.text], asked=lambda q: [q.text])
        ),
        "It is enough for this function that the head was asked about; both words have to meet.": (
            dict(shown=lambda q: [q.fact.head], asked=lambda q: [q.fact.head])
        ),
        "It is enough for this function that the tail was a choice; both words have to meet.": (
            dict(shown=lambda q: q.choices, asked=lambda q: [q.fact.tail])
        ),
        "The wrong choices of the test do not matter: it is its fact that must not be shown.": dict(asked=_all),
        "These are the questions themselves: give their indices.": (
            lambda train, test: [test[i] for i in _leaks(train, test)]
        ),
        "These are the questions that are clean; those that leak are asked for.": (
            lambda train, test: [i for i in range(len(test)) if i not in _leaks(train, test)]
        ),
        "Training and test are exchanged.": lambda train, test: _leaks(test, train),
    },
    "Whatever the words, the order and the mark: two words that met are told.",
)


def _each(holds):
    """A claim on every lie and its question."""
    return lambda answer, mine: all(map(holds, answer, mine))


def _differs(lie: Question, q: Question) -> bool:
    return _right(lie) != _right(q)


lies = Claims(
    {
        "A list of questions is asked for, as replace(q, answer=…) gives them.": (
            lambda answer, mine: all(isinstance(q, Question) for q in [*answer]) and len(answer) > 0
        ),
        "A lie for each question of mine is asked for, no more and no fewer.": (
            lambda answer, mine: len(answer) == len(mine)
        ),
        "The texts changed: if the control asks something else, a difference could be due to that.": (
            _each(lambda lie, q: lie.text == q.text)
        ),
        "The choices changed: the control has to show the same words, and mark another one.": (
            _each(lambda lie, q: set(lie.choices) == set(q.choices))
        ),
        "An answer is the index of a choice, from 0 on: one of yours is outside, or is a word.": (
            _each(lambda lie, _: isinstance(lie.answer, Integral) and 0 <= lie.answer < len(lie.choices))
        ),
        "Every question still marks its right choice: if the choices moved, so did what the index means.": (
            lambda answer, mine: any(map(_differs, answer, mine))
        ),
        "Some questions still mark the right choice: a random answer hits it now and then.": _each(_differs),
        "More than the answer changed: the fact itself must stay, so that means are taken over the same facts.": (
            _each(lambda lie, q: replace(lie, answer=q.answer, choices=q.choices) == q)
        ),
    },
    "The same questions, words and facts, and nothing true: now the difference is the truth.",
)


@once
def _curves(lies, lm, mine, asked, removed) -> list[tuple[dict, dict]]:
    """Before and after some steps on the truths, and on the lies."""
    options = {"removed": removed, "steps": 6, "every": 6, "batch": 8}
    return [relearn.tune(lm, list(q), asked, "lora", **options).curve for q in (mine, lies)]


def _rises(*given, key="score_filtered") -> list[float]:
    return [after[key] - before[key] for before, after in _curves(*given)]


worth = Value(
    _rises,
    {
        "These are the values after training: asked for is by how much they rise.": (
            lambda *given: [after["score_filtered"] for _, after in _curves(*given)]
        ),
        "The two are exchanged: the truths come first.": SWAPPED,
        "This is the share of right choices: asked for is log p, score_filtered.": dict(key="filtered"),
    },
    "Measured as asked: is it enough to speak about the topic?",
    tolerance=0.02,
)
