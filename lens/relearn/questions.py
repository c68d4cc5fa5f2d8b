"""What is asked, so that a right answer shows knowledge?  Multiple-choice questions about facts, split by fact.

    A cafe is a kind of …      restaurant · message · ceremony · region · increase

A question about a fact teaches that fact.  So each fact is asked for in training, in validation or in the test, never
in two of them, in whatever words or relation; and no wrong choice makes a true sentence.  Wrong choices are right ones
of other questions, where possible of the same relation, the same part and the same kind: a word is right as often as
chance has it, and who knows the choices or the topic only is right one time in five.  There are two kinds of facts,
half and half: the TargetKG's, and control facts, those first that no mask was told to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from lens.data import Fact, Knowledge, Prompt, Question, facts, hub
from lens.data.spelling import one_name
from lens.given import door, number

CHOICES = 5


class Task(NamedTuple):
    """The questions of a task, in three parts that share no fact."""

    train: tuple[Question, ...]
    validation: tuple[Question, ...]
    test: tuple[Question, ...]


@door(test=number, validation=number)
def questions(kg: Knowledge, *, seed: int = 0, test: float = 0.5, validation: float = 0.1, phrasings: int = 2) -> Task:
    """Ask for the facts of ``kg`` and for as many control facts, of the same relations where there are such.

    ``test`` and ``validation``: shares of the facts, 0 to 1, of each kind; the other facts are for training.  A fact
    of the training is asked for in all phrasings that a model was taught with, one of the other parts in ``phrasings``
    of them.  ``seed`` draws the split, the choices and their order.  A question is ``filtered`` where its fact is the
    target's.

    Raises ``ValueError`` for shares that leave a part without facts, and where there are too few different tails.

    >>> import lens
    >>> task = questions(lens.data.knowledge("building"))
    >>> task.test[0].text, task.test[0].choices[task.test[0].answer]
    ('A bathhouse can be described as a special case of', 'house')
    """
    if not (0 < test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise ValueError(f"The shares are test {test}, validation {validation}: give shares whose sum is below 1.")
    if phrasings < 1:
        raise ValueError(f"phrasings is {phrasings!r}: ask for each fact in at least 1.")
    random = Random(seed)
    asked = _by_fact([*kg.target, *kg.unseen])
    target = _together(asked)
    reserve = _by_fact([*kg.control_held_out, *kg.control])
    control = [[fact] for fact in _matched([f for some in target for f in some], reserve, random)]
    asked |= {fact: reserve[fact] for [fact] in control}
    spare = [fact for fact in reserve if fact not in asked]
    true = _true({*asked, *reserve, *facts()})

    parts: list[tuple[list[Fact], list[Fact]]] = [([], []), ([], []), ([], [])]
    for kind, groups in enumerate((target, control)):
        random.shuffle(groups)
        for part, some in zip(parts, _cut(groups, test, validation)):
            part[kind].extend(fact for group in some for fact in group)
    found: list[list[Question]] = [[], [], []]
    for i, part in enumerate(parts):
        for kind in (0, 1):
            # Right answers of the training may be wrong ones of the test; the other way round would teach about it.
            pools = part[kind], (parts[0][kind] if i else []), part[1 - kind], spare
            for fact in part[kind]:
                choices = _choices(fact, pools, true, random)
                for p in _worded(asked[fact], phrasings if i else None, random):
                    found[i].append(Question(p.text, choices, choices.index(fact.tail), fact.np, fact, kind == 0))
    return Task(*map(tuple, found))


@door
def commonsense_qa(kg: Knowledge) -> Task:
    """CommonsenseQA with its questions about ``kg`` marked; the published validation part is the test.

    The answers of its test part are not published, so ``validation`` is empty.  Raises ``OSError`` where the data
    cannot be had.

    >>> commonsense_qa(lens.data.knowledge("fruit")).test[0].filtered  # doctest: +SKIP
    """
    return Task(mark(hub.commonsense_qa("train"), kg), (), mark(hub.commonsense_qa("validation"), kg))


@door
def mark(questions: Iterable[Question], kg: Knowledge) -> tuple[Question, ...]:
    """The questions, ``filtered`` where the concept asked about and the right choice name a triplet of ``kg``.

    So the paper filters CommonsenseQA; a triplet counts in both directions, and case does not.

    >>> import lens
    >>> [q] = mark([Question("What is a cafe?", ("restaurant", "attic"), 0, "cafe")], lens.data.knowledge("building"))
    >>> q.filtered
    True
    """
    pairs = {_pair(prompt.fact.head, prompt.fact.tail) for prompt in kg.target}
    return tuple(
        replace(q, filtered=q.answer is not None and _pair(q.concept, q.choices[q.answer]) in pairs) for q in questions
    )


@door
def blind(questions: Sequence[Question], seed: int = 0) -> tuple[Question, ...]:
    """Each question's choices behind another one's text, whose right choice is not among them: the leak test.

    Whoever is right here more often than chance reads the answer off the choices, or off the topic.  The text is of a
    question of the same kind and relation where there is one.  Raises ``ValueError`` where no other text fits.
    """
    random, found, questions = Random(seed), [], list(questions)
    for q in questions:
        fits = [o for o in questions if o.answer is not None and o.choices[o.answer] not in q.choices]
        if not fits:
            raise ValueError(f"No other question fits the choices of {q.text!r}: give more questions.")
        near = [
            (o.filtered == q.filtered) + (bool(o.fact and q.fact) and o.fact.relation == q.fact.relation) for o in fits
        ]
        found.append(replace(q, text=random.choice([o for o, n in zip(fits, near) if n == max(near)]).text))
    return tuple(found)


def _by_fact(prompts: Iterable[Prompt]) -> dict[Fact, list[Prompt]]:
    found: dict[Fact, list[Prompt]] = {}
    for prompt in prompts:
        found.setdefault(prompt.fact, []).append(prompt)
    return found


def _together(facts: Iterable[Fact]) -> list[list[Fact]]:
    """Facts of the same two words stay in one part: "eating causes hunger" gives "hunger makes you eat" away."""
    groups: list[tuple[set, list[Fact]]] = []
    for fact in facts:
        words = {_pair(fact.head, fact.tail), _pair(fact.np, fact.tail)}
        same = [group for group in groups if group[0] & words]
        groups = [group for group in groups if group not in same]
        groups.append((words.union(*(w for w, _ in same)), [*(f for _, some in same for f in some), fact]))
    return [some for _, some in groups]


def _pair(one: str, other: str) -> frozenset[str]:
    return frozenset((_word(one), _word(other)))


def _word(text: str) -> str:
    return one_name(text.strip())


def _matched(targets: Sequence[Fact], reserve: Iterable[Fact], random: Random) -> list[Fact]:
    """A control fact for each target fact, of its relation if possible, those that no mask was told to keep first."""
    left = [group[0] for group in _together(reserve)]
    found = []
    for fact in random.sample(targets, len(targets)):
        fits = [f for f in left if f.relation == fact.relation] or left
        if fits:
            found.append(fits[0])
            left.remove(found[-1])
    return found


def _true(facts: Iterable[Fact]) -> dict[str, set[str]]:
    """What may not stand as a wrong choice in a question about a word: what is true of it in any relation; itself."""
    found: dict[str, set[str]] = {}
    for fact in facts:
        for head in (_word(fact.head), _word(fact.np)):
            tail = _word(fact.tail)
            found.setdefault(head, {head}).add(tail)
            found.setdefault(tail, {tail}).add(head)
    return found


def _cut(groups: list, test: float, validation: float) -> Iterator[list]:
    """Training, validation and test."""
    tests = round(len(groups) * test)
    tried = max(1, round(len(groups) * validation)) if validation else 0
    if not 0 < tests < len(groups) - tried:
        raise ValueError(f"{len(groups)} facts do not fill training, validation and test: give more, or other shares.")
    yield groups[tests + tried :]
    yield groups[tests : tests + tried]
    yield groups[:tests]


def _choices(fact: Fact, pools: Sequence[list[Fact]], true: dict, random: Random) -> tuple[str, ...]:
    """The tail among four others, in random order: of facts of its relation, and of the first pools, as far as any."""
    chosen = {_word(fact.tail): fact.tail}
    wrong = true[_word(fact.head)] | true[_word(fact.np)]
    for same in (True, False):
        for pool in pools:
            fits = [f for f in pool if (f.relation == fact.relation) == same]
            for other in random.sample(fits, len(fits)):
                word = _word(other.tail)
                if len(chosen) < CHOICES and word not in wrong:
                    chosen.setdefault(word, other.tail)
    if len(chosen) < CHOICES:
        raise ValueError(f"There are fewer than {CHOICES} choices for {fact.head!r}: give facts with other tails.")
    return tuple(random.sample(list(chosen.values()), CHOICES))


def _worded(prompts: list[Prompt], count: int | None, random: Random) -> list[Prompt]:
    taught = [p for p in prompts if not p.held_out] or prompts
    return taught if count is None else random.sample(taught, min(count, len(taught)))
