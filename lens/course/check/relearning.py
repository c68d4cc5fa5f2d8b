"""Checks of *Can it come back?*: the loss of a choice, its score, and what a training set gives away."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt

import torch

from lens import relearn
from lens.course.check.exercise import Claims, Function, Value
from lens.data import Fact, Question
from lens.evaluate.scoring import score

TOKENS = 0.1, 0.5  # the right choice's
OTHERS = 0.02, 0.01, 0.01, 0.01


def _loss(right: float) -> float:
    return -log(right / (right + sum(OTHERS)))


loss = Value(
    lambda: _loss(TOKENS[0] * TOKENS[1]),
    {
        "This is −log p of the right choice among all words; the loss compares it with the other four choices.": (
            lambda: -log(TOKENS[0] * TOKENS[1])
        ),
        "The mean over the tokens was taken; the score is a sum, so the choice's probability is the product.": (
            lambda: _loss(sqrt(TOKENS[0] * TOKENS[1]))
        ),
        "Probabilities of tokens were averaged: one token behind the other is a product.": (
            lambda: _loss(sum(TOKENS) / 2)
        ),
        "Probabilities of tokens were added: one token behind the other is a product.": lambda: _loss(sum(TOKENS)),
        "Only the first token was counted: the right choice has two.": lambda: _loss(TOKENS[0]),
        "Only the last token was counted: the right choice has two.": lambda: _loss(TOKENS[1]),
        "These are bits, of log base 2; nats are asked for.": lambda: _loss(TOKENS[0] * TOKENS[1]) / log(2),
        "This is the softmax of probabilities; the scores are their logarithms.": (
            lambda: float(-torch.tensor([TOKENS[0] * TOKENS[1], *OTHERS], dtype=torch.float64).log_softmax(0)[0])
        ),
        "The right choice belongs below the fraction line too: all five choices compete.": (
            lambda: -log(TOKENS[0] * TOKENS[1] / sum(OTHERS))
        ),
        "This is the probability that the choice wins, not −log of it.": lambda: 0.5,
        "The sign is reversed: a loss is −log, and never below 0.": lambda: -_loss(TOKENS[0] * TOKENS[1]),
    },
    "Improbable among all words, an even bet among five: the loss sees the second only.",
    tolerance=1e-3,
)

CASES = (
    ("A cafe is a kind of", ("restaurant", "room where people eat and drink", "ceremony")),
    ("The capital of France is", ("Paris and Rome", "Rome", "Paris", "a town in France")),
)


def _cases(lm) -> list[tuple]:
    return [(lm, text, list(choices)) for text, choices in CASES]


def _scores(lm, text, choices) -> torch.Tensor:
    tokens = torch.tensor([len(lm.target_ids(choice)) for choice in choices])
    return -score(lm, [text] * len(choices), choices).nll.cpu() * tokens


@torch.no_grad()
def _each(lm, text, ids, offset: int = -1, normed: bool = True) -> list[float]:
    """What stands at the choice's tokens, ``offset`` places from their own; one list entry a token."""
    question = lm.encode(text)
    logits = lm.model(torch.tensor([[*question, *ids]], device=lm.device)).logits[0].float()
    values = logits.log_softmax(-1) if normed else logits
    return [float(values[len(question) + offset + i, token]) for i, token in enumerate(ids)]


def _by_token(combine, **options):
    return lambda lm, text, choices: [combine(_each(lm, text, lm.target_ids(c), **options)) for c in choices]


scores = Function(
    _scores,
    _cases,
    {
        "The mean over tokens was taken; the chapter's score is the sum, log p of the whole choice.": (
            _by_token(lambda values: sum(values) / len(values))
        ),
        "Only the first token of each choice is counted; the score adds up all.": _by_token(lambda values: values[0]),
        "Only the last token of each choice is counted; the score adds up all.": _by_token(lambda values: values[-1]),
        "Off by one token: the logits at a position predict the token behind it; begin at the question's last one.": (
            _by_token(sum, offset=0)
        ),
        "The leading space is missing: lm.target_ids(choice) has it, lm.encode(choice) does not.": (
            lambda lm, text, choices: [sum(_each(lm, text, lm.encode(c))) for c in choices]
        ),
        "These are logits; log p is asked for, their log_softmax over the vocabulary.": _by_token(sum, normed=False),
        "The sign is reversed: log p is never above 0, and the best choice has the largest score.": (
            lambda *given: -_scores(*given)
        ),
        "These are probabilities; the score is their logarithm.": lambda *given: _scores(*given).exp(),
        "These are log-probabilities among the choices; the score is the one among all words.": (
            lambda *given: _scores(*given).log_softmax(0)
        ),
        "Each token was predicted from the question alone: p of a later token is that behind the earlier ones.": (
            lambda lm, text, choices: [sum(_each(lm, text, [token])[0] for token in lm.target_ids(c)) for c in choices]
        ),
    },
    "Every choice by all of its tokens, as lens.relearn scores it.",
    tolerance=1e-3,
)


def _question(head: str, tail: str, *wrong: str, words: str = "{} is a kind of", answer: int = 0) -> Question:
    choices = [*wrong]
    choices.insert(answer, tail)
    fact = Fact("own", "own", "target", "kind", head, head, tail)
    return Question(words.format(head), tuple(choices), answer, head, fact, True)


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


def _leaks(pairs, wanted=lambda q: frozenset((q.fact.head, q.fact.tail))):
    """The check that asks whether ``wanted`` of a test question is among ``pairs`` of the training."""

    def find(train, test):
        shown = {pair for one in train for pair in pairs(one)}
        return [i for i, q in enumerate(test) if wanted(q) in shown]

    return find


def _all(q: Question) -> list[frozenset]:
    return [frozenset((q.fact.head, choice)) for choice in q.choices]


_found = _leaks(_all)


def _in_order(q: Question) -> tuple[str, str]:
    return q.fact.head, q.fact.tail


leaks = Function(
    _found,
    _splits,
    {
        "No leak is found at all: compare the two words of a test's fact with what each training question shows.": (
            lambda train, test: []
        ),
        "Every question is said to leak: a test question leaks only if both words of its fact met in one question.": (
            lambda train, test: list(range(len(test)))
        ),
        "Only right answers of the training were looked at; who is trained against a wrong choice hears of it too.": (
            _leaks(lambda q: [frozenset((q.fact.head, _right(q)))])
        ),
        "A fact can be asked the other way round: the two words leak in either order.": (
            _leaks(lambda q: [(q.fact.head, choice) for choice in q.choices], _in_order)
        ),
        "Only the same fact was looked for; the two words may also meet the other way round, or in a wrong choice.": (
            _leaks(lambda q: [_in_order(q)], _in_order)
        ),
        "Only the same text was looked for; a fact leaks in whatever words.": (
            _leaks(lambda q: [q.text], lambda q: q.text)
        ),
        "It is enough for this function that the head was asked about; both words have to meet.": (
            _leaks(lambda q: [q.fact.head], lambda q: q.fact.head)
        ),
        "It is enough for this function that the tail was a choice; both words have to meet.": (
            _leaks(lambda q: list(q.choices), lambda q: q.fact.tail)
        ),
        "The wrong choices of the test do not matter: it is its fact that must not be shown.": (
            lambda train, test: [i for i, q in enumerate(test) if {*_all(q)} & {p for one in train for p in _all(one)}]
        ),
        "These are the questions themselves: give their indices.": (
            lambda train, test: [test[i] for i in _found(train, test)]
        ),
        "These are the questions that are clean; those that leak are asked for.": (
            lambda train, test: [i for i in range(len(test)) if i not in _found(train, test)]
        ),
        "Training and test are exchanged.": lambda train, test: _found(test, train),
    },
    "Whatever the words, the order and the mark: two words that met are told.",
)


lies = Claims(
    {
        "A list of questions is asked for, as replace(q, answer=…) gives them.": (
            lambda answer, mine: all(isinstance(q, Question) for q in [*answer]) and len(answer) > 0
        ),
        "A lie for each question of mine is asked for, no more and no fewer.": (
            lambda answer, mine: len(answer) == len(mine)
        ),
        "The texts changed: if the control asks something else, a difference could be due to that.": (
            lambda answer, mine: all(lie.text == q.text for lie, q in zip(answer, mine))
        ),
        "The choices changed: the control has to show the same words, and mark another one.": (
            lambda answer, mine: all(set(lie.choices) == set(q.choices) for lie, q in zip(answer, mine))
        ),
        "An answer is the index of a choice, from 0 on: one of yours is outside, or is a word.": (
            lambda answer, mine: all(isinstance(q.answer, int) and 0 <= q.answer < len(q.choices) for q in answer)
        ),
        "Every question still marks its right choice: if the choices moved, so did what the index means.": (
            lambda answer, mine: any(_right(lie) != _right(q) for lie, q in zip(answer, mine))
        ),
        "Some questions still mark the right choice: a random answer hits it now and then.": (
            lambda answer, mine: all(_right(lie) != _right(q) for lie, q in zip(answer, mine))
        ),
        "More than the answer changed: the fact itself must stay, so that means are taken over the same facts.": (
            lambda answer, mine: all(replace(a, answer=q.answer, choices=q.choices) == q for a, q in zip(answer, mine))
        ),
    },
    "The same questions, words and facts, and nothing true: now the difference is the truth.",
)


_last: list = [None, None]  # what was trained on, and its curves: every mistake asks for them again


def _curves(lies, lm, mine, asked, removed) -> list[tuple[dict, dict]]:
    """Before and after some steps on the truths, and on the lies."""
    given = tuple(lies), lm, tuple(mine), tuple(asked), removed
    if _last[0] != given:
        options = {"removed": removed, "steps": 6, "every": 6, "batch": 8}
        _last[:] = given, [relearn.tune(lm, list(q), asked, "lora", **options).curve for q in (mine, lies)]
    return _last[1]


def _rises(*given, key="score_filtered") -> list[float]:
    return [after[key] - before[key] for before, after in _curves(*given)]


worth = Value(
    _rises,
    {
        "These are the values after training: asked for is by how much they rise.": (
            lambda *given: [after["score_filtered"] for _, after in _curves(*given)]
        ),
        "The two are exchanged: the truths come first.": lambda *given: _rises(*given)[::-1],
        "This is the share of right choices: asked for is log p, score_filtered.": (
            lambda *given: _rises(*given, key="filtered")
        ),
    },
    "Measured as asked: is it enough to speak about the topic?",
    tolerance=0.02,
)
