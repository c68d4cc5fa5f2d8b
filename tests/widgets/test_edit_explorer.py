"""The edit explorer shows what the edited model really answers, counts as lens.evaluate counts, and changes nothing."""

from __future__ import annotations

import json

import pytest
import torch

import lens
from lens.course.widgets import EditExplorer
from lens.course.widgets.answers import UNIT, answers
from lens.edit import Request
from lens.evaluate.prompts import Case, shares

PLACES = 1.01 / UNIT  # what rounding to 1/10 000 may change, and a last digit of float32


@pytest.fixture(scope="module")
def records():
    """One record whose targets are single tokens, and one whose new target is several."""
    return [lens.data.records()[0], next(r for r in lens.data.records() if " " in _new(r))]


def _new(record) -> str:
    return record["requested_rewrite"]["target_new"]["str"]


@pytest.fixture(scope="module")
def explorer(mini, records):
    return EditExplorer(mini, records, ("shift", "sgd_step"), layers=[4, 7], sizes=[0.5, 1], neighbors=10)


@pytest.fixture
def weights(mini):
    """Every weight is afterwards what it was, bit for bit."""
    before = {name: p.detach().clone() for name, p in mini.model.named_parameters()}
    yield
    for name, p in mini.model.named_parameters():
        assert torch.equal(p, before[name]), name


def _read(lm, fact, answer, text, close=PLACES):
    """The answer's words and probabilities are those of the logit lens in the model as it is now."""
    seen = lens.logit_lens(lm, text, k=4)
    assert [fact["words"][i] for i in answer[2::2]] == seen.words[-1][-1], text
    assert torch.allclose(torch.tensor(answer[3::2]) / UNIT, seen.probabilities[-1, -1], rtol=0, atol=close), text


def test_answers_before_are_the_model_s_own(mini, explorer):
    for fact in explorer.state["facts"]:
        for (_, text, _), answer in zip(fact["questions"], fact["before"]):
            _read(mini, fact, answer, text)


@pytest.mark.parametrize("editor", ["shift", "sgd_step"])
def test_answers_after_are_those_of_the_model_with_the_edit_written_into_it(mini, explorer, records, editor):
    state = explorer.state
    which = [e["name"] for e in state["editors"]].index(editor)
    eta = state["editors"][which]["eta"]
    for fact, record in zip(state["facts"], records):
        for place, layer in enumerate([4, 7]):
            where = {"layer": layer} if editor == "shift" else {"layers": [layer]}
            for s, strength in enumerate(state["sizes"][1:]):
                edit = getattr(lens.edit, editor)(mini, record, eta=strength * eta, **where)
                with edit:
                    for i in (0, 2, -1):
                        text = fact["questions"][i][1]
                        _read(mini, fact, fact["after"][which][place][s][i], text, close=2 * PLACES)


def test_strength_0_is_the_model_as_it_is_and_is_always_offered(explorer):
    assert explorer.state["sizes"] == [0, 0.5, 1]
    assert all(len(strengths) == 2 for fact in explorer.state["facts"] for e in fact["after"] for strengths in e)


def test_hits_are_the_accuracy_of_lens_evaluate(mini, explorer, records):
    """Also where the target has several tokens."""
    for fact, record in zip(explorer.state["facts"], records):
        edit = lens.edit.shift(mini, record, layer=7)
        (counted,) = shares(mini, [Case.of(mini, record)], [edit.changes])
        shown = fact["after"][0][1][1]
        for measure in ("efficacy", "paraphrase", "neighborhood"):
            hits = [a[1] for a, q in zip(shown, fact["questions"]) if q[0] == measure]
            assert sum(hits) / len(hits) == counted[f"{measure}_accuracy"], measure


def test_the_bar_of_a_longer_target_is_the_geometric_mean_over_its_tokens(mini, explorer, records):
    fact = explorer.state["facts"][1]
    assert len(mini.target_ids(_new(records[1]))) > 1 and fact["new"] == _new(records[1]).replace(" ", "·")
    nll = lens.evaluate.score(mini, [fact["prompt"]], [_new(records[1])]).nll
    assert abs(fact["before"][0][0] / UNIT - float((-nll).exp())) < PLACES


def test_a_target_shows_its_letters_also_where_they_are_several_tokens(mini):
    request = lens.Request("The capital of {} is", "France", "S\u00e3o Paulo")
    assert any("\\x" in word for word in mini.words(mini.target_ids(request.target_new)))
    fact = EditExplorer(mini, request, layers=[7], sizes=[1]).state["facts"][0]
    assert fact["new"] == fact["questions"][0][2] == "S\u00e3o\u00b7Paulo"


def test_answers_do_not_depend_on_what_else_is_asked(mini):
    texts = ["The capital of France is", "The", "The capital of Spain is", "Paris is the capital of"]
    together = answers(mini, texts, ["Paris"] * 4)
    for i, text in enumerate(texts):
        alone = answers(mini, [text], ["Paris"])
        assert together.ids[i].tolist() == alone.ids[0].tolist()
        assert torch.allclose(together.hoped[i], alone.hoped[0], atol=1e-6)


def test_an_edit_without_factors_is_applied_and_taken_back(mini, records, weights):
    def slowly(lm, request):
        return lens.edit.finetune(lm, request, steps=3)

    explorer = EditExplorer(mini, records[:1], slowly, sizes=[1])
    (fact,) = explorer.state["facts"]
    assert explorer.state["editors"] == [{"name": "slowly", "eta": None, "own": None, "layers": [None]}]
    assert fact["layers"] == [[[lens.edit.settings(mini, "finetune")["layer"]]]]
    with slowly(mini, Request.from_record(records[0])):
        _read(mini, fact, fact["after"][0][0][0][0], fact["prompt"])
    assert not mini.changed


def test_every_layer_is_tried_where_an_edit_is_one_step_and_the_editor_s_own_elsewhere(mini, records):
    state = EditExplorer(mini, records[:1], ("shift", "mend"), sizes=[1], neighbors=1).state
    assert [e["layers"] for e in state["editors"]] == [list(range(8)), [None]]
    assert state["editors"][0]["own"] == lens.edit.settings(mini, "shift")["layer"]
    assert state["facts"][0]["layers"][0] == [[layer] for layer in range(8)]


def test_the_model_is_left_alone(mini, records, state):
    before = state(mini.model)
    EditExplorer(mini, records, layers=[3], sizes=[1])
    assert state(mini.model) == before


def test_a_bare_request_is_measured_on_other_facts_of_its_relation(mini):
    requests = [Request("The capital of {} is", "France", "Oslo"), Request("The capital of {} is", "Italy", "Paris")]
    other = Request("{} is a country in", "Spain", "Asia")
    first, second, third = EditExplorer(mini, [*requests, other], layers=[7], sizes=[1]).state["facts"]
    assert first["true"] == "Paris", "the model says what is true where nobody else does"
    assert first["questions"][:2] == [
        ["efficacy", "The capital of France is", "Oslo"],
        ["neighborhood", "The capital of Italy is", "Rome"],
    ]
    assert "The capital of France is" not in [text for _, text, _ in second["questions"]], "it says Paris already"
    for fact, form in ((first, "The capital of "), (second, "The capital of "), (third, "is a country in")):
        assert len(fact["questions"]) == 5 and all(form in text for _, text, _ in fact["questions"])
        near = zip(fact["questions"][1:], fact["before"][1:])
        assert all(answer[1] for _, answer in near), "a neighbor is a fact that the model says"


def test_neighbors_share_the_relation_so_an_edit_that_breaks_every_capital_keeps_none(mini, explorer):
    """France to Rome, layer 7 with η 0.8: other capitals become Rome too, which unrelated prompts would hide."""
    fact = {"prompt": "The capital of France is", "subject": "France", "target": "Rome", "layer": 7, "eta": 0.8}
    explorer.request = {"id": "broken", **fact}
    case = explorer.answer["case"]
    near = [i for i, (measure, text, _) in enumerate(case["questions"]) if measure == "neighborhood"]
    assert len(near) == 10 and all(case["questions"][i][1].startswith("The capital of ") for i in near)
    after = case["after"][0][0][0]
    said = [case["words"][after[i][2]] for i in near]
    assert sum(after[i][1] for i in near) < len(near) / 2 and said.count("·Rome") > len(near) / 2, said


def test_a_prompt_of_no_known_relation_has_no_neighbors(mini, explorer):
    explorer.request = {"id": "none", "prompt": "My aunt in France likes", "subject": "France", "target": "Rome"}
    assert [q[0] for q in explorer.answer["case"]["questions"]] == ["efficacy"]


@pytest.mark.slow
def test_state_is_plain_json_and_small_for_six_facts_at_every_layer(mini):
    state = EditExplorer(mini, lens.data.records("test")[:6]).state
    text = json.dumps(state, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(text) == state and len(text.encode()) < 100_000
    fact = state["facts"][0]
    assert [len(fact["after"][0]), len(fact["after"][0][0]), len(fact["after"][0][0][0])] == [8, 5, 7]


def test_an_edit_that_has_nothing_to_change_says_so(mini):
    request = Request("The capital of {} is", "France", "Paris")
    (fact,) = EditExplorer(mini, request, layers=[6, 7], sizes=[1]).state["facts"]
    assert fact["notes"] == ["The model says 'Paris' already, so nothing is changed."]
    assert fact["layers"] == [[[], []]] and all(found == [fact["before"]] for found in fact["after"][0])


# What a reader types


def test_a_typed_fact_is_answered_like_a_given_one(mini, explorer):
    explorer.request = {"id": "a", "prompt": " The capital of France is ", "subject": "France", "target": "Rome"}
    case = explorer.answer["case"]
    with lens.edit.shift(mini, Request("The capital of {} is", "France", "Rome"), layer=7):
        _read(mini, case, case["after"][0][1][1][0], "The capital of France is")
    assert (case["new"], case["true"]) == ("Rome", "Paris")
    assert [q[0] for q in case["questions"]] == ["efficacy"] + 10 * ["neighborhood"]


def test_the_edited_model_can_be_tried_on_any_prompt(mini, explorer, records):
    explorer.request = {"id": "f", "fact": 0, "free": "The capital of Spain is "}
    case = explorer.answer["case"]
    assert case["questions"] == [["free", "The capital of Spain is", _new(records[0])]]
    for s, strength in enumerate(explorer.state["sizes"][1:]):
        edit = lens.edit.shift(mini, records[0], layer=4, eta=strength * explorer.state["editors"][0]["eta"])
        with edit:
            _read(mini, case, case["after"][0][0][s][0], "The capital of Spain is", close=2 * PLACES)


@pytest.mark.parametrize(("editor", "name"), [(None, "shift"), (1, "sgd_step")])
def test_a_layer_and_a_step_size_of_ones_own_can_be_chosen(mini, explorer, editor, name):
    fact = {"prompt": "The capital of France is", "subject": "France", "target": "Rome"}
    which = {} if editor is None else {"editor": editor}
    explorer.request = {"id": f"at {editor}", **fact, "layer": -3, "eta": 0.35, **which}
    case = explorer.answer["case"]
    assert (
        case["layers"] == [[[5]]] and [len(case["after"]), len(case["after"][0]), len(case["after"][0][0])] == [1] * 3
    )
    where = {"layer": 5} if name == "shift" else {"layers": [5]}
    with getattr(lens.edit, name)(mini, Request(*fact.values()), eta=0.35, **where):
        _read(mini, case, case["after"][0][0][0][0], fact["prompt"], close=2 * PLACES)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fact": 2}, "There is no fact number 2: there are 2."),
        ({"free": " "}, "The prompt is empty: type at least one word."),
        ({"layer": 8, "eta": 1}, "There is no layer 8: this model has 8 layers, 0 to 7."),
        ({"layer": 7}, "The step size η is None: give a number, such as 0.5."),
        ({"eta": 1}, "The layer is None: give a whole number, such as 7."),
        ({"layer": 7, "eta": 1, "editor": 2}, "There is no editor number 2: there are 2."),
    ],
)
def test_a_choice_that_is_none_is_one_sentence(explorer, change, says):
    explorer.request = {"id": f"none {change}", "fact": 0, **change}
    assert explorer.answer["problem"] == says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"subject": "Spain"}, "has no place in the prompt"),
        ({"subject": " "}, "subject of an edit is empty"),
        ({"target": ""}, "target of an edit is empty"),
        ({"prompt": ""}, "has no place"),
        ({"prompt": "France " * 300}, "reads at most"),
        ({"prompt": None, "subject": 3, "target": "\ud800"}, "."),
    ],
)
def test_a_typed_fact_that_cannot_be_edited_is_one_sentence_and_loses_nothing(mini, explorer, weights, change, says):
    before = explorer.state
    good = {"prompt": "The capital of France is", "subject": "France", "target": "Rome"}
    explorer.request = {"id": str(change), **good, **change}
    problem = explorer.answer["problem"]
    assert says in problem and problem.endswith(".") and "\n" not in problem
    assert explorer.state == before
    explorer.request = {"id": f"then {change}", **good}
    assert explorer.answer["case"]["new"] == "Rome"


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"requests": []}, ValueError, "no fact to edit"),
        ({"editors": []}, ValueError, "no editor"),
        ({"editors": "magic"}, ValueError, "There is no editor 'magic'"),
        ({"layers": [8]}, IndexError, "no layer 8"),
        ({"sizes": [0]}, ValueError, "Every strength is 0"),
        ({"sizes": [float("nan")]}, ValueError, "give numbers"),
        ({"sizes": ["1"]}, ValueError, "give numbers"),
        ({"requests": [{"case_id": 1}]}, ValueError, "requested_rewrite"),
        ({"requests": ["France"]}, ValueError, "an item of requests is 'France'"),
        ({"k": 0}, ValueError, "k is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(mini, records, refuses, given, kind, says):
    with refuses(kind, says):
        EditExplorer(mini, **{"requests": records[:1], "sizes": [1], "layers": [7], **given})
