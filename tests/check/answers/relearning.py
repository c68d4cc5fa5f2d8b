"""Answers to the exercises of *Can it come back?*."""

from dataclasses import replace
from math import log, log2
from random import Random

import torch
from library import Answers

import lens
from lens import relearn


def by_choice(lm, text, choices):
    question, found = lm.encode(text), []
    for choice in choices:
        due = lm.target_ids(choice)
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*question, *due]], device=lm.device)).logits[0]
        log_p = logits.float().log_softmax(-1)
        found.append(sum(float(log_p[len(question) - 1 + i, token]) for i, token in enumerate(due)))
    return found


def by_lens(lm, text, choices):
    counts = torch.tensor([len(lm.target_ids(c)) for c in choices])
    return -lens.evaluate.score(lm, [text for _ in choices], choices).nll.cpu() * counts


def token_by_token(lm, text, choices):
    """One token after the other, in float64, as a tensor."""
    found = []
    for choice in choices:
        ids, total = list(lm.encode(text)), 0.0
        for token in lm.target_ids(choice):
            with torch.no_grad():
                last = lm.model(torch.tensor([ids], device=lm.device)).logits[0, -1].double()
            total, ids = total + last[token] - last.logsumexp(0), [*ids, token]
        found.append(total)
    return torch.stack(found)


def table(lm, text, choice, ids=None):
    """log p of every word at every position of question and choice, and the choice's ids."""
    ids = lm.target_ids(choice) if ids is None else ids
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*lm.encode(text), *ids]], device=lm.device)).logits[0].float()
    return logits, ids


def shifted(lm, text, choices):
    found = []
    for choice in choices:
        logits, ids = table(lm, text, choice)
        here = logits.log_softmax(-1)[-len(ids) :]
        found.append(float(here.gather(1, torch.tensor(ids)[:, None]).sum()))
    return found


def without_space(lm, text, choices):
    found = []
    for choice in choices:
        logits, ids = table(lm, text, choice, lm.encode(choice))
        here = logits.log_softmax(-1)[-len(ids) - 1 : -1]
        found.append(float(here.gather(1, torch.tensor(ids)[:, None]).sum()))
    return found


def raw(lm, text, choices):
    found = []
    for choice in choices:
        logits, ids = table(lm, text, choice)
        found.append(float(logits[-len(ids) - 1 : -1].gather(1, torch.tensor(ids)[:, None]).sum()))
    return found


def from_the_question(lm, text, choices):
    with torch.no_grad():
        log_p = lm.model(torch.tensor([lm.encode(text)], device=lm.device)).logits[0, -1].log_softmax(-1)
    return [float(log_p[torch.tensor(lm.target_ids(choice))].sum()) for choice in choices]


def first_tokens(lm, text, choices):
    with torch.no_grad():
        log_p = lm.model(torch.tensor([lm.encode(text)], device=lm.device)).logits[0, -1].log_softmax(-1)
    return log_p[[lm.target_ids(choice)[0] for choice in choices]]


def by_sets(train, test):
    shown = {frozenset((q.fact.head, choice)) for q in train for choice in q.choices}
    return [i for i, q in enumerate(test) if frozenset((q.fact.head, q.fact.tail)) in shown]


def by_loops(train, test):
    found = []
    for i, q in enumerate(test):
        for other in train:
            straight = other.fact.head == q.fact.head and q.fact.tail in other.choices
            turned = other.fact.head == q.fact.tail and q.fact.head in other.choices
            if (straight or turned) and i not in found:
                found.append(i)
    return found


def by_sorted_words(train, test):
    shown = [sorted((q.fact.head, c)) for q in train for c in q.choices]
    return torch.tensor([i for i, q in enumerate(test) if sorted((q.fact.head, q.choices[q.answer])) in shown])


def one_way(train, test):
    shown = {(q.fact.head, choice) for q in train for choice in q.choices}
    return [i for i, q in enumerate(test) if (q.fact.head, q.fact.tail) in shown]


def right_only(train, test):
    shown = [{q.fact.head, q.choices[q.answer]} for q in train]
    return [i for i, q in enumerate(test) if {q.fact.head, q.fact.tail} in shown]


def same_fact(train, test):
    facts = [(q.fact.head, q.fact.tail) for q in train]
    return [i for i, q in enumerate(test) if (q.fact.head, q.fact.tail) in facts]


def mine(lm):
    return ([q for q in relearn.questions(lens.data.knowledge("building"), phrasings=1).train if q.filtered],)


def next_one(questions):
    return [replace(q, answer=(q.answer + 1) % len(q.choices)) for q in questions]


def at_random(questions):
    random = Random(0)
    return [replace(q, answer=random.choice([i for i in range(len(q.choices)) if i != q.answer])) for q in questions]


def any_at_random(questions):
    random = Random(0)
    return [replace(q, answer=random.randrange(len(q.choices))) for q in questions]


def moved(questions, keep):
    """The choices one place on; the index stays, or follows the right choice."""
    found = []
    for q in questions:
        choices = q.choices[1:] + q.choices[:1]
        found.append(replace(q, choices=choices, answer=q.answer if keep else choices.index(q.choices[q.answer])))
    return found


def trained(lm):
    """The smallest case: a model of its own, since training writes into it."""
    kg = lens.data.knowledge("building")
    task = lens.relearn.questions(kg, phrasings=1)
    train, asked = ([q for q in part if q.filtered] for part in (task.train, task.test))
    return next_one(train), lens.load("mini", device="cpu"), train, asked, lens.mask.shipped("building")


def curves(*given):
    """Trained once, whatever answer asks."""
    if not CURVES:
        lies, lm, train, asked, removed = given
        options = {"removed": removed, "steps": 6, "every": 6, "batch": 8}
        CURVES.extend(lens.relearn.tune(lm, q, asked, "lora", **options).curve for q in (train, lies))
    return CURVES


CURVES = []


def rises(*given, key="score_filtered"):
    return [after[key] - before[key] for before, after in curves(*given)]


ANSWERS = {
    "loss": Answers(
        right=[log(2), 0.693, torch.tensor([0.05, 0.02, 0.01, 0.01, 0.01]).log().log_softmax(0)[0].neg()],
        wrong={
            "among all words": -log(0.05),
            "The mean over the tokens": -log(0.05**0.5 / (0.05**0.5 + 0.05)),
            "were added": -log(0.6 / 0.65),
            "were averaged": -log(0.3 / 0.35),
            "Only the first token": -log(0.1 / 0.15),
            "Only the last token": -log(0.5 / 0.55),
            "bits": -log2(0.5),
            "softmax of probabilities": float(-torch.tensor([0.05, 0.02, 0.01, 0.01, 0.01]).log_softmax(0)[0]),
            "below the fraction line": -log(0.05 / 0.05),
            "not −log of it": 0.05 / 0.10,
            "sign is reversed": log(0.05 / 0.10),
        },
        blind=[-log(0.5 / 0.65), -log(0.05 / 0.15)],
    ),
    "scores": Answers(
        right=[by_choice, by_lens, token_by_token],
        wrong={
            "mean over tokens": lambda lm, text, choices: -lens.evaluate.score(lm, [text] * len(choices), choices).nll,
            "Only the first token": first_tokens,
            "Only the last token": lambda lm, text, choices: [
                float(logits.log_softmax(-1)[-2, ids[-1]])
                for logits, ids in (table(lm, text, choice) for choice in choices)
            ],
            "Off by one": shifted,
            "leading space": without_space,
            "These are logits": raw,
            "sign is reversed": lambda *given: -by_lens(*given),
            "probabilities; the score is their logarithm": lambda *given: by_lens(*given).exp(),
            "among the choices": lambda *given: by_lens(*given).log_softmax(0),
            "from the question alone": from_the_question,
        },
        context=lambda lm: (lm,),
    ),
    "leaks": Answers(
        right=[by_sets, by_loops, by_sorted_words],
        wrong={
            "No leak is found": lambda train, test: [],
            "Every question is said to leak": lambda train, test: list(range(len(test))),
            "Only right answers": right_only,
            "either order": one_way,
            "Only the same fact": same_fact,
            "Only the same text": lambda train, test: [
                i for i, q in enumerate(test) if q.text in [other.text for other in train]
            ],
            "the head was asked": lambda train, test: [
                i for i, q in enumerate(test) if q.fact.head in {other.fact.head for other in train}
            ],
            "the tail was a choice": lambda train, test: [
                i for i, q in enumerate(test) if any(q.fact.tail in other.choices for other in train)
            ],
            "give their indices": lambda train, test: [test[i] for i in by_sets(train, test)],
            "clean": lambda train, test: sorted(set(range(len(test))) - set(by_sets(train, test))),
            "exchanged": lambda train, test: by_sets(test, train),
        },
    ),
    "lies": Answers(
        right=[next_one, at_random, lambda questions: tuple(moved(questions, keep=True))],
        wrong={
            "now and then": any_at_random,
            "still marks its right choice": lambda questions: moved(questions, keep=False),
            "The choices changed": lambda questions: [
                replace(q, choices=(q.fact.head, *q.choices[1:]), answer=0) for q in questions
            ],
            "The texts changed": lambda questions: [
                replace(q, answer=other.answer, text=other.text) for q, other in zip(questions, questions[::-1])
            ],
            "the fact itself must stay": lambda questions: [
                replace(q, fact=replace(q.fact, tail=q.choices[q.answer])) for q in next_one(questions)
            ],
            "the index of a choice": lambda questions: [replace(q, answer=q.answer + 5) for q in questions],
            "A lie for each": lambda questions: next_one(questions)[:-1],
            "A list of questions": lambda questions: [(q.answer + 1) % 5 for q in questions],
        },
        context=mine,
        computed=True,
    ),
    "worth": Answers(
        right=[rises, lambda *given: torch.tensor(rises(*given)), lambda *given: tuple(rises(*given))],
        wrong={
            "values after training": lambda *given: [after["score_filtered"] for _, after in curves(*given)],
            "are exchanged": lambda *given: rises(*given)[::-1],
            "share of right choices": lambda *given: rises(*given, key="filtered"),
            "for the sign": lambda *given: [-rise for rise in rises(*given)],
        },
        context=trained,
        computed=True,
    ),
}
