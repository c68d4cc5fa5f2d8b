"""Records: the split keeps subjects apart; a file is read whole, or refused with the record and field at fault."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from lens.data import load_records, records
from lens.data.records import check_records


def subjects(some) -> set[str]:
    return {r["requested_rewrite"]["subject"] for r in some}


def test_the_split_takes_every_record_once_and_no_subject_twice():
    test, validation = records("test"), records("validation")
    assert len(test) == 400 and len(validation) == 100
    assert not subjects(test) & subjects(validation)
    assert sorted(r["case_id"] for r in test + validation) == [r["case_id"] for r in records()]


def test_the_split_is_the_documented_rule():
    order = []
    for r in records():
        if r["requested_rewrite"]["subject"] not in order:
            order.append(r["requested_rewrite"]["subject"])
    assert subjects(records("validation")) == {s for i, s in enumerate(order) if i % 5 == 0}
    assert records("validation") == records("validation")


def test_every_relation_is_in_both_splits():
    both = [{r["requested_rewrite"]["relation"] for r in records(split)} for split in ("test", "validation")]
    assert both[0] == both[1] == {r["requested_rewrite"]["relation"] for r in records()}


def test_an_unknown_split_is_refused(refuses):
    with refuses(ValueError, "'train'.*'test' or 'validation'"):
        records("train")


def public(case: int = 5) -> dict:
    """A record as the public counterfact.json spells it, made up."""
    return {
        "case_id": case,
        "pararel_idx": 2796,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "subject": "Marie Example",
        },
        "paraphrase_prompts": ["It was raining. Marie Example spoke the language"],
        "neighborhood_prompts": ["The mother tongue of Jean Example is"],
        "attribute_prompts": ["The mother tongue of John Example is"],
        "generation_prompts": ["Marie Example lives in"],
    }


def test_a_public_file_is_read_unchanged(tmp_path):
    path = tmp_path / "counterfact.json"
    want = [
        public(5),
        public(0),
        {k: v for k, v in public(9).items() if k not in ("attribute_prompts", "generation_prompts")},
    ]
    path.write_text(json.dumps(want), encoding="utf-8")
    assert load_records(path) == load_records(str(path)) == want


def test_our_own_file_is_one(tmp_path):
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records()), encoding="utf-8")
    assert load_records(path) == records() and check_records(records())


DAMAGE = [
    (lambda r: r.pop("case_id"), r"number 1 has the case_id None"),
    (lambda r: r.update(case_id="7"), r"number 1 has the case_id '7'"),
    (lambda r: r.update(case_id=True), r"number 1 has the case_id True"),
    (lambda r: r.update(case_id=-1), r"number 1 has the case_id -1"),
    (lambda r: r.update(case_id=2**32), r"number 1 has the case_id 4294967296"),
    (lambda r: r.update(case_id=0), r"number 0 and 1 have the same case_id, 0"),
    (lambda r: r.pop("requested_rewrite"), r"case_id 7 has no text in requested_rewrite\.prompt"),
    (lambda r: r.update(requested_rewrite=[1]), r"case_id 7 has no text in requested_rewrite\.prompt"),
    (lambda r: r["requested_rewrite"].pop("subject"), r"case_id 7 has no text in requested_rewrite\.subject"),
    (lambda r: r["requested_rewrite"].update(subject=" "), r"case_id 7 has no text in requested_rewrite\.subject"),
    (lambda r: r["requested_rewrite"].update(target_new="x"), r"case_id 7 .* requested_rewrite\.target_new\.str"),
    (lambda r: r["requested_rewrite"].pop("target_true"), r"case_id 7 .* requested_rewrite\.target_true\.str"),
    (lambda r: r["requested_rewrite"].update(prompt="No place"), r"case_id 7 has the prompt 'No place': write \{\}"),
    (lambda r: r["requested_rewrite"].update(prompt="{} or {}"), r"case_id 7 .*once"),
    (lambda r: r.pop("paraphrase_prompts"), r"case_id 7 has no list of texts in paraphrase_prompts"),
    (lambda r: r.update(neighborhood_prompts="x"), r"case_id 7 has no list of texts in neighborhood_prompts"),
    (lambda r: r.update(neighborhood_prompts=["x", 3]), r"case_id 7 has no list of texts in neighborhood_prompts"),
    (lambda r: r.update(generation_prompts=None), r"case_id 7 has no list of texts in generation_prompts"),
    (lambda r: r.update(attribute_prompts=[None]), r"case_id 7 has no list of texts in attribute_prompts"),
]


@pytest.mark.parametrize("damage, words", DAMAGE, ids=[words for _, words in DAMAGE])
def test_a_damaged_record_is_named_with_its_field(tmp_path, refuses, damage, words):
    bad = [public(0), deepcopy(public(7)), public(8)]
    damage(bad[1])
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(bad), encoding="utf-8")
    with refuses(ValueError, words):
        load_records(path)


@pytest.mark.parametrize(
    "content, words",
    [
        ('[{"case_id": 0, ', "no whole JSON"),
        ("", "no whole JSON"),
        ('{"case_id": 0}', "no list of records but a dict"),
        ("[]", "no records"),
        ("[3]", "number 0 is no record but a int"),
    ],
)
def test_a_file_that_holds_no_records_is_refused(tmp_path, refuses, content, words):
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    with refuses(ValueError, words):
        load_records(path)


def test_bytes_that_are_no_text_are_no_json(tmp_path, refuses):
    path = tmp_path / "bad.json"
    path.write_bytes(b"\xff\xfe\x00[")
    with refuses(ValueError, "no whole JSON"):
        load_records(path)


@pytest.mark.parametrize("path", ["nothing.json", "no/such/file", "folder/nothing.json"])
def test_a_missing_file_is_one_sentence(refuses, path):
    with refuses(OSError, f"no file {path}"):
        load_records(path)


def test_a_dataset_out_of_reach_is_one_sentence(refuses, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with refuses(OSError, "no file lens-book/nothing: .*counterfact.json, with a network"):
        load_records("lens-book/nothing")


def test_a_dataset_in_reach_is_read_like_a_file(tmp_path, monkeypatch):
    import huggingface_hub

    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([public()]), encoding="utf-8")
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(path))
    assert load_records("somebody/counterfact") == [public()]
    assert asked == [(("somebody/counterfact", "counterfact.json"), {"repo_type": "dataset"})]
