"""How answers are compared, described and refused, whatever the exercise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import lens
from lens.course.check import Claims, Function, Value, student
from lens.course.check.compare import difference, same

MATRIX = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]])


@pytest.mark.parametrize(
    "written",
    [
        MATRIX,
        MATRIX.double(),
        MATRIX.half(),
        MATRIX.numpy(),
        MATRIX.tolist(),
        tuple(map(tuple, MATRIX.tolist())),
        list(MATRIX),
        [list(map(np.float32, row)) for row in MATRIX.tolist()],
        MATRIX.clone().requires_grad_(),
        MATRIX * (1 + 3e-5),
    ],
)
def test_numbers_may_be_written_in_any_way(written):
    assert same(written, MATRIX) and same(MATRIX, written)


@pytest.mark.parametrize(
    "got, want, words",
    [
        (MATRIX.T, MATRIX, "transposed"),
        (torch.tensor([[1.0, 2], [3, 4]]).T, torch.tensor([[1.0, 2], [3, 4]]), "transposed"),
        (-MATRIX, MATRIX, "sign"),
        (MATRIX / 3, MATRIX, "constant factor"),
        (MATRIX.flatten(), MATRIX, "numbers are right"),
        (MATRIX[0].flip(0), MATRIX[0], "reverse"),
        (MATRIX[:1], MATRIX, "Off by one"),
        (MATRIX * math.nan, MATRIX, "NaN"),
        (MATRIX + torch.eye(2, 3), MATRIX, "2 of 6 entries"),
        ("Rome", " Rome", "space in front"),
        (" rome", " Rome", "capital"),
        ("Paris", "Rome", "another word"),
        (3, "Rome", "word or text"),
        ("Rome", 3, "A number is asked for"),
        ([1, 2], {"a": 1}, "A dictionary is asked for"),
        ({"a": 1}, {"a": 1, "b": 2}, "no entry for 'b'"),
        ({"a": 1, "b": 3}, {"a": 1, "b": 2}, "At 'b'"),
        (["x", "z"], ["x", "y"], "Number 2 of 2"),
        (["x"], ["x", "y"], "2 things"),
        (7.0, 8.0, "The number is not right"),
    ],
)
def test_a_difference_is_named_without_the_answer(got, want, words):
    assert not same(got, want)
    assert words in difference(got, want)


def test_what_is_close_but_not_equal_is_not_the_same():
    assert not same(MATRIX * 1.001, MATRIX) and not same(torch.tensor(math.nan), torch.tensor(math.nan))
    assert same(torch.tensor([math.inf, 1.0]), torch.tensor([math.inf, 1.0]))
    assert not same(torch.tensor([math.inf, 1.0]), torch.tensor([-math.inf, 1.0]))
    assert same(0.0, 0) and not same(1e-3, 0)
    assert same("·Rome", " Rome") and same({"·a", "b"}, {" a", "b"}) and not same({"a"}, {"a", "b"})


def test_a_failing_function_is_told_where_and_how():
    double = Function(lambda x: 2 * x, lambda: [(torch.ones(3),)], {}, "Doubled.")
    assert "stopped with ZeroDivisionError" in double(lambda x: 1 / 0).message
    assert "a tensor [3]" in double(lambda x: 1 / 0).message
    assert "A function is asked for" in double(7).message
    assert "argument" in double(lambda x: x.mul_(2)).message
    assert double(lambda x: x + x)


def test_what_is_remarked_of_one_case_is_not_forgotten_at_the_next():
    add = Function(lambda x: x + 1, lambda: [(torch.zeros(2),), (torch.ones(3),)], {}, "Added.")
    said = add(lambda x: x.add_(1) if len(x) == 2 else x + 1)
    assert not said and "argument" in said.message


def test_parts_are_told_apart_as_finely_as_the_whole():
    assert "At 'a'" in Value(lambda: {"a": 1.0}, {}, "Right.", tolerance=1e-6)({"a": 1.00001}).message
    listed = Value(lambda: ["x", 1.0, 2.0], {}, "Right.", tolerance=1e-6)
    assert "Number 3 of 3" in listed(["x", 1.0, 2.0001]).message


def test_no_answer_can_spoil_the_arguments_of_the_next():
    seen = []
    add = Function(lambda x: x + 1, lambda: [(torch.zeros(2),), (torch.zeros(2),)], {}, "Added.")
    add(lambda x: seen.append(x.clone()) or x.add_(1))
    assert all(torch.equal(x, torch.zeros(2)) for x in seen)


def test_a_verdict_in_a_notebook_is_text_and_never_markup():
    shown = Value(lambda: 1, {}, "Right: <b>one</b>.")(1)._repr_html_()
    assert "✓ Right: &lt;b&gt;one&lt;/b&gt;." in shown and "<b>" not in shown


def test_arguments_may_be_lists_and_dicts_of_tensors():
    total = Function(lambda parts: sum(parts["x"]), lambda: [({"x": [torch.ones(2), torch.zeros(2)]},)], {}, "Summed.")
    assert total(lambda parts: parts["x"][0] + parts["x"][1])
    assert "argument" in total(lambda parts: parts["x"][0].add_(parts["x"][1].fill_(0)) + parts["x"].pop()).message


def test_a_mistake_that_cannot_be_computed_is_passed_over():
    check = Value(lambda: 2, {"Broken.": lambda: [][1], "One less.": lambda: 1}, "Two.")
    assert check(1).message == "One less." and check(2)


def test_claims_are_asked_in_order_and_an_error_fails_the_claim():
    check = Claims({"First.": lambda x: x[0] > 0, "Second.": lambda x: x[1] > 0}, "Both.")
    assert [check(x).message for x in ((1, 1), (0, 1), (1, 0), 5, "ab")] == [
        "Both.",
        "First.",
        "Second.",
        "First.",
        "First.",
    ]


def test_the_same_student_has_the_same_facts_and_another_has_others():
    ada, bob = student("ada"), student("Bob ")
    assert ada == student(" Ada") and ada.seed == student("ADA").seed != bob.seed
    assert ada.records(5) == ada.records(5) != bob.records(5)
    chosen = [tuple(student(str(i)).choose(range(50), 2)) for i in range(40)]
    assert len(set(chosen)) > 35 and all(a != b for a, b in chosen)
    assert student().name == "" and len(student().records(3)) == 3


def test_a_student_is_a_text_and_cannot_choose_more_than_there_is(refuses):
    with refuses(TypeError, "'ada'"):
        student(7)
    assert student("Zo\u00eb") == student("Zoe\u0308") and student("STRASSE") == student("stra\u00dfe")
    with refuses(ValueError, "at most 3"):
        student("ada").choose("abc", 4)


def test_an_unknown_chapter_is_named_with_those_there_are():
    with pytest.raises(AttributeError, match="low_rank"):
        lens.check.chapter_of_wonders


def test_numbers_may_stand_in_lists_of_lists_of_tensors_and_in_sparse_ones():
    want = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    rows = [[value.clone().requires_grad_() for value in row] for row in want]
    assert same(rows, want) and same(want.to_sparse(), want) and not same([[rows[0][0]]], want)


def test_a_parameter_in_the_place_of_another_is_seen_and_taken_out(mini):
    def honest(lm):
        return float(lm.weight(0, "ff2").sum())

    def careless(lm):
        found, module = honest(lm), lm.site(0, "ff2")
        module.weight = torch.nn.Parameter(2 * module.weight.detach())
        return found

    def swaps(lm):
        found = honest(lm)
        lm.layers[0].mlp = torch.nn.Identity()
        return found

    own, module = mini.site(0, "ff2").weight, mini.layers[0].mlp
    check = Function(honest, lambda: [(mini,)], {}, "Right.")
    assert check(honest).message == "Right."
    for answer in (careless, swaps):
        assert "stayed in the weights" in check(answer).message
        assert mini.site(0, "ff2").weight is own and mini.layers[0].mlp is module


def test_a_matrix_that_was_not_given_back_is_seen(mini):
    """Measured from a model that has lost the fact already, ten weights more would do."""
    layer, weight = 6, mini.weight(6, "ff2").detach()
    kept, gone = weight.clone(), torch.zeros(weight.shape, dtype=torch.bool)
    gone.view(-1)[:10] = True
    weight.view(-1)[100:3100] = 0
    try:
        assert "give it its weights back" in lens.check.binary_mask.sorted_again(gone, mini, layer, None, []).message
    finally:
        weight.copy_(kept)
