"""No question of the test was answered in training, and nothing but knowledge answers it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import replace

import pytest

import lens
from lens import relearn
from lens.data import Fact, Prompt, Question, hub, knowledge, target_kgs, verbalize

TASKS = [(name, seed) for name in target_kgs() for seed in (0, 1)]


@functools.cache
def asked(name, seed):
    return relearn.questions(knowledge(name), seed=seed)


def words(fact, tail) -> set:
    return {frozenset((head.casefold(), tail.casefold())) for head in (fact.head, fact.np)}


@pytest.mark.parametrize("name, seed", TASKS)
def test_no_fact_of_one_part_is_named_in_another(name, seed):
    """Not its sentence, not its two words, in whatever relation, order and role: not even as a wrong choice."""
    parts = asked(name, seed)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        said = [{(q.text, q.choices[q.answer]) for q in parts[part]} for part in (one, other)]
        assert not said[0] & said[1]
    shown = {pair for q in parts.train for choice in q.choices for pair in words(q.fact, choice)}
    later = {pair for part in parts[1:] for q in part for pair in words(q.fact, q.fact.tail)}
    assert later and not shown & later


def test_own_controls_of_other_relations_are_not_asked_for_in_two_parts():
    kg = knowledge("fruit", control=knowledge("sun").target, control_held_out=[])
    for seed in range(20):
        parts = relearn.questions(kg, seed=seed)
        facts = [{q.fact for q in part} for part in parts]
        assert not facts[0] & facts[1] and not facts[0] & facts[2] and not facts[1] & facts[2]


@pytest.mark.parametrize("name, seed", TASKS)
def test_half_of_the_facts_are_the_target_s_and_the_split_is_by_fact(name, seed):
    kg = knowledge(name)
    targets = {prompt.fact for prompt in kg.target}
    facts = [{q.fact for q in part} for part in asked(name, seed)]
    assert all(q.filtered == (q.fact in targets) for part in asked(name, seed) for q in part)
    assert set().union(*facts) & targets == targets
    for part in facts:
        assert 2 * len(part & targets) == len(part)
    test, every = len(facts[2] & targets), len(targets)
    assert abs(test - every / 2) <= 1 and len(facts[1] & targets) >= 1


@pytest.mark.parametrize("name, seed", TASKS)
def test_one_of_five_choices_is_true(name, seed):
    true = lens.data.tails()
    for q in (q for part in asked(name, seed) for q in part):
        assert len({choice.casefold() for choice in q.choices}) == 5
        assert q.choices[q.answer] == q.fact.tail and q.concept == q.fact.np
        for i, choice in enumerate(q.choices):
            assert (choice in true[q.fact.relation, q.fact.np]) == (i == q.answer), (q.text, choice)


def near_a_fifth(right: list[bool]) -> bool:
    """Within three standard errors."""
    return abs(sum(right) / len(right) - 0.2) < 3 * math.sqrt(0.16 / len(right))


def test_the_choices_do_not_tell_which_is_right():
    """Not their place, not their length, and not how often they were right in training."""
    tasks = [asked(*task) for task in TASKS]
    one = {(q.fact, id(task)): (task, q) for task in tasks for q in task.test}.values()  # a question of each fact
    assert len(one) > 350
    for place in range(5):
        assert near_a_fifth([q.answer == place for _, q in one])
    assert near_a_fifth([max(q.choices, key=lambda c: (len(c), c)) == q.choices[q.answer] for _, q in one])
    guesses = []
    for task, q in one:
        often = Counter(q.choices[q.answer] for q in task.train)
        guesses.append(max(q.choices, key=lambda choice: (often[choice], choice)) == q.choices[q.answer])
    assert sum(guesses) / len(guesses) < 0.2 + 3 * math.sqrt(0.16 / len(guesses))


def test_a_model_that_knows_nothing_learns_no_shortcut(mini):
    """Mini's shape with random weights, trained on all questions of three KGs: one right in five in the test."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    ignorant = lens.LanguageModel(
        AutoModelForCausalLM.from_config(mini.model.config).eval(), mini.tokenizer, "ignorant"
    )
    right = []
    for name in ("fruit", "sun", "swimming"):
        task = relearn.questions(knowledge(name), phrasings=1)
        tuned = relearn.tune(ignorant, task.train, task.test, "full", lr=1e-3, steps=16, every=16)
        assert tuned.curve[-1]["loss"] < math.log(5) + 0.3
        right += tuned.right.values()
    assert near_a_fifth(right)


def test_the_same_seed_asks_the_same_and_another_seed_does_not():
    kg = knowledge("building")
    assert relearn.questions(kg, seed=1) == asked("building", 1) != asked("building", 0)


def test_two_relations_between_the_same_words_stay_together(monkeypatch):
    kg = knowledge("building")
    pairs = [("sky", "blue"), ("sea", "deep"), ("oak", "tall"), ("elm", "wide"), ("ant", "red"), ("bee", "loud")]

    def prompt(head, tail, relation):
        return Prompt(f"{head} {relation}", tail, Fact("own", "own", "target", relation, head, head, tail), 0, False)

    own = [prompt(*pair, relation) for pair in pairs for relation in ("is", "has")]
    own += [prompt(tail, head, "makes") for head, tail in pairs]
    for seed in range(5):
        task = relearn.questions(replace(kg, target=tuple(own), unseen=()), seed=seed)
        parts = [{frozenset((q.fact.head, q.fact.tail)) for q in part if q.filtered} for part in task]
        assert sum(map(len, parts)) == len(pairs) == len(set().union(*parts))


def test_blind_questions_have_no_right_choice():
    test = asked("sun", 0).test
    answers = {q.text: q.choices[q.answer] for q in test}
    other = relearn.blind(test, seed=3)
    assert [q.choices for q in other] == [q.choices for q in test] and other == relearn.blind(iter(test), seed=3)
    assert all(answers[q.text] not in q.choices for q in other)


def test_what_cannot_be_asked_is_refused(refuses):
    kg = knowledge("building")
    for wrong in ({"test": 0}, {"test": 0.9, "validation": 0.2}, {"test": 1.0}):
        with refuses(ValueError, "shares"):
            relearn.questions(kg, **wrong)
    with refuses(ValueError, "phrasings is 0"):
        relearn.questions(kg, phrasings=0)
    few = replace(kg, target=kg.target[:1], unseen=())
    with refuses(ValueError, "1 facts do not fill"):
        relearn.questions(few)
    alike = [Fact("own", "own", "target", "is", head, head, "x") for head in "abcdef"]
    some = tuple(verbalize(alike, {"is": ["{np} is {tail}."]}))
    with refuses(ValueError, "fewer than 5 choices"):
        relearn.questions(replace(kg, target=some, unseen=(), control=some, control_held_out=()))
    with refuses(ValueError, "No other question fits"):
        relearn.blind(asked("sun", 0).test[:1])


def row(text, concept, choices, key):
    labels = list("ABCDE")[: len(choices)]
    return {
        "question": text, "question_concept": concept, "answerKey": key,
        "choices": {"label": labels, "text": list(choices)},
    }  # fmt: skip


@pytest.fixture
def published(monkeypatch):
    rows = [
        row("What is a cafe?", "Cafe", ("attic", "Restaurant"), "B"),
        row("Where do you eat?", "restaurant", ("cafe", "attic"), "A"),
        row("What is not a cafe?", "cafe", ("attic", "restaurant"), "A"),
        row("Where is a pike?", "pike", ("river", "attic"), "A"),
    ]
    monkeypatch.setattr(hub, "_load", lambda name, configuration, split: rows if split != "test" else None)


def test_commonsense_qa_is_filtered_by_concept_and_right_choice(published):
    task = relearn.commonsense_qa(knowledge("building"))
    assert [q.filtered for q in task.test] == [True, True, False, False]
    assert task.validation == () and len(task.train) == 4 and isinstance(task.train[0], Question)
    hidden = relearn.mark([Question("?", ("a", "b"), None, "cafe")], knowledge("building"))
    assert not hidden[0].filtered


def test_commonsense_qa_trains_by_the_same_code(published, tiny):
    task = relearn.commonsense_qa(knowledge("building"))
    for readout in ("likelihood", "classifier"):
        tuned = relearn.tune(tiny("gpt2"), task.train, task.test, "head", steps=2, readout=readout)
        assert set(tuned.right) == {0, 1, 2, 3}
