"""What an editor is asked: the request, and one sentence for each way it can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lens
from lens import Request, data
from lens.edit.request import as_requests


def test_a_prompt_may_name_its_subject_or_leave_a_place_for_it():
    assert Request("The capital of France is", "France", "Rome") == Request("The capital of {} is", "France", "Rome")
    assert Request("In {}, people speak", "Peru", "Spanish").text == "In Peru, people speak"


def test_a_subject_is_put_in_the_place_of_its_whole_word():
    request = Request("Unlike the Indian capital, the capital of India is", "India", "Rome")
    assert request.prompt == "Unlike the Indian capital, the capital of {} is"
    assert Request("The Indian capital is", "India", "Rome").prompt == "The {}n capital is"


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, lambda ids: {"input_ids": ids}])
def test_a_target_may_be_token_ids_in_any_form(mini, tmp_path, form):
    ids = mini.target_ids("Rome")
    request = Request("The capital of {} is", "France", form(ids), target_true=form(mini.target_ids("Paris")))
    assert request.target_new == tuple(ids) and hash(request) == hash(Request.from_record(vars(request)))
    want, edit = (lens.edit.shift(mini, one) for one in (Request(request.prompt, "France", "Rome"), request))
    assert torch.equal(edit.changes[0].delta, want.changes[0].delta) and str(ids[0]) in repr(edit)
    assert lens.edit.load(mini, lens.edit.save(edit, tmp_path / "ids")).requests == (request,)


def test_a_target_without_its_space_is_written_as_it_is_asked_for(mini, tmp_path):
    request = Request("The capital of {} is", "France", "##s", target_true="Paris")
    edit = lens.edit.shift(mini, request, eta=3.0)
    with edit:
        assert lens.logit_lens(mini, request.text).words[-1][-1][0] == "s"
    assert lens.edit.load(mini, lens.edit.save(edit, tmp_path / "s")).requests == (request,)
    explorer = lens.widgets.EditExplorer(mini, request, layers=[7], sizes=[1])
    assert explorer.state["facts"][0]["new"] == "s"


def test_a_subject_that_contains_braces_is_put_in_as_it_is():
    assert Request("The file {} holds", "{0}", "text").text == "The file {0} holds"


def test_every_built_in_record_is_a_request():
    for record in data.records():
        request = Request.from_record(record)
        assert request.subject in request.text
        assert request.target_new == record["requested_rewrite"]["target_new"]["str"]
        assert request.target_true == record["requested_rewrite"]["target_true"]["str"]


def test_the_public_file_s_fields_are_read_as_they_are():
    record = json.loads(
        '{"case_id": 0, "requested_rewrite": {"prompt": "The mother tongue of {} is", "relation_id": "P103", '
        '"target_new": {"str": "English", "id": "Q1860"}, "target_true": {"str": "French", "id": "Q150"}, '
        '"subject": "Danielle Darrieux"}}'
    )
    assert as_requests(record) == (
        Request("The mother tongue of {} is", "Danielle Darrieux", "English", target_true="French"),
    )


@pytest.mark.parametrize(
    "fields, error, words",
    [
        (("The capital of it is", "France", "Rome"), ValueError, "no place in the prompt"),
        (("{} and {} are", "France", "Rome"), ValueError, "no place in the prompt"),
        (("The capital of {} is", " ", "Rome"), ValueError, "subject of an edit is empty"),
        (("The capital of {} is", "France", "  "), ValueError, "target of an edit is empty"),
        (("The capital of {} is", "France", "Paris", " Paris"), ValueError, "true one already"),
        (("The capital of {} is", "France", 7.5), TypeError, "target_new of an edit is 7.5.*text or token ids"),
        (("The capital of {} is", "France", True), TypeError, "target_new of an edit is True"),
        (("The capital of {} is", "France", "Rome", ["Paris"]), TypeError, "target_true of an edit is"),
        (("The capital of {} is", "France", "##"), ValueError, "target of an edit is empty"),
        (("The capital of {} is", "France", []), ValueError, "target of an edit is empty"),
        (("The capital of {} is", "France", [7, 8], (7, 8)), ValueError, "true one already"),
        (("The capital of {} is", "Sa\u0303o", "S\u00e3o", "Sa\u0303o"), ValueError, "true one already"),
        (("The capital of {} is", 7, "Rome"), TypeError, "subject of an edit is 7: give a text[.]"),
        ((None, "France", "Rome"), TypeError, "prompt of an edit is None"),
    ],
)
def test_a_request_that_asks_nothing_is_refused(fields, error, words, refuses):
    with refuses(error, words):
        Request(*fields)


@pytest.mark.parametrize("field", ["prompt", "subject", "target_new"])
def test_a_record_with_a_missing_field_is_refused_by_name(field, refuses):
    rewrite = dict(data.records()[0]["requested_rewrite"])
    del rewrite[field]
    with refuses(ValueError, f"no field '{field}'"):
        Request.from_record({"requested_rewrite": rewrite})


@pytest.mark.parametrize("thing", ["France", [], None, 3, ["France"], [None]])
def test_what_is_no_request_is_refused(thing, refuses):
    with refuses(TypeError, "Expected an edit request"):
        as_requests(thing)
