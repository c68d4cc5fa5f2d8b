"""A file that a reader brings is read as Windows and the hub write it, and named where it is something else."""

from __future__ import annotations

import codecs
import json

import pytest

from lens.data import load_prompts, load_records, load_texts, records
from lens.data.opening import POINTER

SAID = "A cafe is a kind of restaurant"
RECORDS = records()[:3]
TRIPLETS = [{"head": "cafe", "tail": "restaurant", "best_gpt2_input": SAID, "best_gpt2_label": SAID}] * 2
READERS = [(load_records, RECORDS), (load_prompts, TRIPLETS)]
ZSRE = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology"],
    "loc": "nq question: who played desmond doss father in hacksaw ridge",
    "loc_ans": "Hugo Weaving",
    "cond": "Trinity College >> University of Michigan || …",
}
MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [RECORDS[0]["requested_rewrite"]],
    "questions": ["What is the capital of the country of citizenship of Ivanka Trump's spouse?"],
    "answer": "Washington D.C.",
    "new_answer": "Ottawa",
    "new_single_hops": [],
}


def lines(entries) -> bytes:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\r\n" for entry in entries).encode()


@pytest.mark.parametrize("read, entries", READERS, ids=["records", "prompts"])
def test_marks_encodings_and_json_lines_change_nothing(tmp_path, read, entries):
    plain, other = tmp_path / "plain.json", tmp_path / "other.json"
    plain.write_text(json.dumps(entries), encoding="utf-8")
    want = [getattr(one, "sentence", one) for one in read(plain)]
    assert len(want) == len(entries)
    text = json.dumps(entries, ensure_ascii=False)
    written = codecs.BOM_UTF8 + text.encode(), text.encode("utf-16"), lines(entries), codecs.BOM_UTF8 + lines(entries)
    for content in written:
        other.write_bytes(content)
        assert [getattr(one, "sentence", one) for one in read(other)] == want, content[:20]


@pytest.mark.parametrize("read, entries", READERS, ids=["records", "prompts"])
def test_what_is_no_data_of_this_kind_is_named(tmp_path, refuses, read, entries):
    path = tmp_path / "data.json"
    pointer = POINTER + b"v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
    other = json.dumps([TRIPLETS, RECORDS][entries is TRIPLETS]).encode()
    shapes = {
        "Git LFS pointer.*git lfs pull": pointer,
        "zsRE": lines([ZSRE, ZSRE]),
        "MQuAKE": json.dumps([MQUAKE]).encode(),
        "released knowledge graphs" if entries is RECORDS else "CounterFact": other,
        "no whole JSON": lines(entries)[:-9],
    }
    for words, content in shapes.items():
        path.write_bytes(content)
        with refuses(ValueError, words):
            read(path)


def test_texts_are_the_paragraphs_of_a_file(tmp_path, refuses):
    path = tmp_path / "mine.txt"
    path.write_bytes(codecs.BOM_UTF8 + " \r\nIt rained.\r\nAll day.\r\n \r\n\r\nSão Paulo slept.\n".encode())
    assert load_texts(path) == load_texts(str(path)) == ("It rained. All day.", "São Paulo slept.")
    for content, words in ((b" \n", "no text"), ("São".encode("latin-1"), "byte 1.*save it as UTF-8")):
        path.write_bytes(content)
        with refuses(ValueError, words):
            load_texts(path)
    with refuses(OSError, "no file"):
        load_texts(tmp_path / "none.txt")
