"""Does every check accept what is right, name what is wrong, and keep the answer to itself?"""

from __future__ import annotations

import functools
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import torch

import lens.course.check
from lens.course.check.compare import same
from lens.course.check.exercise import Claims, Exercise, Function, Value

BOOK = Path(__file__).resolve().parents[2] / "book"
ANSWERS = {chapter: import_module(f"answers.{chapter}").ANSWERS for chapter in lens.check.CHAPTERS}
CHECKS = [(chapter, name) for chapter in ANSWERS for name in ANSWERS[chapter]]
RIGHT = [(c, n, i) for c, n in CHECKS for i in range(len(ANSWERS[c][n].right))]
WRONG = [(c, n, words) for c, n in CHECKS for words in ANSWERS[c][n].wrong]
BLIND = [(c, n, i) for c, n in CHECKS for i in range(len(ANSWERS[c][n].blind))]
UNNAMED = re.compile(
    r"The number is not right|This is another word|entries are not\.|stopped with|Not right yet|[Hh]ere the shape is"
    r"|is asked for, and this is a|The result holds NaN"
)
"""What a check says of an answer that differs in a way it does not know."""


def declared(chapter):
    """The names of a chapter's checks."""
    module = getattr(lens.check, chapter)
    return {name for name, value in vars(module).items() if isinstance(value, Exercise)}


def used(chapter):
    """The checks that a chapter's notebook calls, by name."""
    cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    return set(re.findall(rf"lens\.check\.{chapter}\.(\w+)", code))


@pytest.fixture(scope="session")
def begin(mini):
    """``begin(chapter, name)``: the check and what it is given beside the answer, which is worked out once."""

    @functools.cache
    def begin(chapter, name):
        return getattr(getattr(lens.check, chapter), name), ANSWERS[chapter][name].context(mini)

    return begin


@pytest.fixture(scope="session")
def judged(begin):
    """``judged(chapter, name, which)``: the verdict, given once, on a wrong answer by its words, or a blind one."""

    @functools.cache
    def judged(chapter, name, which):
        answers, (check, context) = ANSWERS[chapter][name], begin(chapter, name)
        answer = answers.wrong[which] if isinstance(which, str) else answers.blind[which]
        return check(answers.given(answer, context), *context)

    return judged


@pytest.mark.parametrize("chapter", lens.check.CHAPTERS)
def test_every_check_is_used_in_its_chapter_and_has_a_library_of_answers(chapter):
    assert declared(chapter) == set(ANSWERS[chapter]) == used(chapter)
    assert 3 <= len(declared(chapter)) <= 5
    for name, answers in ANSWERS[chapter].items():
        assert len(answers.right) >= 3 and len(answers.wrong) >= 3, name


@pytest.mark.parametrize("chapter, name, number", RIGHT)
def test_correct_answers_pass_however_they_are_written(chapter, name, number, begin):
    answers, (check, context) = ANSWERS[chapter][name], begin(chapter, name)
    verdict = check(answers.given(answers.right[number], context), *context)
    assert verdict.passed, verdict
    verdict.require()


@pytest.mark.parametrize("chapter, name, words", WRONG)
def test_a_wrong_answer_is_told_its_own_misconception(chapter, name, words, judged):
    verdict = judged(chapter, name, words)
    assert not verdict.passed
    assert words in verdict.message, verdict
    assert "\n" not in verdict.message and len(verdict.message) < 250, verdict
    with pytest.raises(AssertionError):
        verdict.require()


def test_a_graders_run_of_wrong_answers(judged, capsys):
    """Accepted: none; told which mistake it is: nine in ten.  The blind answers were written without the checks."""
    rows = []
    for chapter in lens.check.CHAPTERS:
        for kind, given in (("foreseen", WRONG), ("blind", BLIND)):
            verdicts = [judged(*one) for one in given if one[0] == chapter]
            named = sum(not UNNAMED.search(verdict.message) for verdict in verdicts)
            rows.append((chapter, kind, len(verdicts), named, sum(verdict.passed for verdict in verdicts)))
    sums = {kind: [sum(row[i] for row in rows if row[1] == kind) for i in (2, 3, 4)] for kind in ("foreseen", "blind")}
    answers, named, accepted = map(sum, zip(*sums.values()))
    with capsys.disabled():
        print(f"\n{'wrong answers':22}{'':9}{'given':>6}{'named':>6}{'accepted':>9}")
        for chapter, kind, *counts in [*rows, *(("all", kind, *sums[kind]) for kind in sums)]:
            print(f"{chapter:22}{kind:9}{counts[0]:6}{counts[1]:6}{counts[2]:9}")
        print(f"misconception named: {named / answers:.1%} of {answers}; accepted: {accepted}")
    assert answers >= 300 and accepted == 0 and named >= 0.9 * answers


@pytest.mark.parametrize("chapter, name", CHECKS)
def test_an_exercise_not_begun_is_invited_not_blamed(chapter, name, begin):
    check, context = begin(chapter, name)
    for nothing in (None, ...):
        assert repr(check(nothing, *context)).startswith("… Your turn")
    if isinstance(check, Function):
        for empty in (lambda *arguments: None, lambda *arguments: ...):
            assert check(empty, *context).message.startswith("Your turn")


@pytest.mark.parametrize("chapter, name", CHECKS)
def test_nonsense_gets_a_verdict_and_never_an_error(chapter, name, begin):
    check, context = begin(chapter, name)
    things = "banana", -17, [], [["a"], 1], {"a": 1}, torch.zeros(2, 0), float("nan"), object(), lambda *a: "banana"
    for nonsense in things:
        verdict = check(nonsense, *context)
        assert not verdict.passed and verdict.message, nonsense


@pytest.mark.parametrize("chapter, name", CHECKS)
def test_checks_are_deterministic_and_leave_the_model_as_it_was(chapter, name, begin, mini, state):
    answers, (check, context) = ANSWERS[chapter][name], begin(chapter, name)
    answer = answers.given(answers.right[0], context)
    before = state(mini.model)
    assert check(answer, *context) == check(answer, *context)
    assert state(mini.model) == before


@pytest.mark.parametrize("chapter, name", CHECKS)
def test_mistakes_differ_from_the_right_answer(chapter, name, begin):
    """A mistake that gives the right answer by accident would tell a correct reader that they are wrong, or nothing."""
    check, context = begin(chapter, name)
    if isinstance(check, Claims):
        return
    cases = check.cases(*context) if isinstance(check, Function) else [context]
    wanted = [check.reference(*arguments) for arguments in cases]
    for message, wrong in check.mistakes.items():
        assert message.endswith((".", "?", ")")), message
        differs = []
        for arguments, want in zip(cases, wanted):
            try:
                differs.append(not same(wrong(*arguments), want, check.tolerance))
            except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError):
                continue
        assert any(differs), message
    assert isinstance(check, (Function, Value))
