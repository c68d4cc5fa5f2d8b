"""The authors' JSON files are read unchanged, however they cut the sentence; a bad file is refused in one sentence."""

from __future__ import annotations

import json

import pytest

from lens.data import knowledge, load_prompts
from lens.mask.sets import check_sets


def entry(given: str, label: str, model: str = "gpt2", **more) -> dict:
    return {"head": "cafe", "tail": "restaurant", f"best_{model}_input": given, f"best_{model}_label": label} | more


@pytest.fixture
def write(tmp_path):
    def to(entries, name: str = "building_best_format.json"):
        path = tmp_path / name
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
        return path

    return to


SAID = "A cafe is a kind of restaurant"


SENTENCES = [SAID, f" {SAID}", f"{SAID}."]
STAND_IN = "A cafe is a kind of <|endoftext|>"
CUTS = [
    (given, label)
    for given in [*SENTENCES, SAID[:-11], SAID[:-10]]
    for label in [*SENTENCES, "restaurant", " restaurant."]
]


@pytest.mark.parametrize("given, label", [*CUTS, *((STAND_IN, label) for label in SENTENCES)])
def test_every_way_to_cut_the_sentence_gives_the_same_prompt(write, given, label):
    (prompt,) = load_prompts(write([entry(given, label)]))
    assert (prompt.text, prompt.target) == ("A cafe is a kind of", "restaurant")
    assert (prompt.fact.source, prompt.fact.head, prompt.fact.tail) == ("released", "cafe", "restaurant")


@pytest.mark.parametrize("name", ["rain_forest.n.01", "Synset('rain_forest.n.01')", "rain_forest", "rain forest"])
def test_a_wordnet_sense_is_read_as_its_word(write, name):
    said = "A jungle is a kind of rain forest"
    (prompt,) = load_prompts(
        write([entry(said, said, head="jungle.n.01", tail=name)], "Synset('forest.n.01')_worse_format.json")
    )
    assert (prompt.text, prompt.target) == ("A jungle is a kind of", "rain forest")
    assert (prompt.fact.head, prompt.fact.tail, prompt.fact.topic) == ("jungle", "rain forest", "forest")


def test_a_tail_that_the_sentence_inflects_is_read_as_it_is_said(write):
    said = "You might see fruit being eaten"
    (prompt,) = load_prompts(write([entry(said, said, tail="eat", rel="ReceivesAction")]))
    assert (prompt.text, prompt.target) == ("You might see fruit being", "eaten")
    assert (prompt.fact.tail, prompt.fact.relation) == ("eat", "ReceivesAction")


def test_the_order_of_the_file_is_kept_and_a_missing_relation_is_empty(write):
    said = [f"A cafe of kind {i} is a restaurant" for i in range(5)]
    found = load_prompts(write([entry(s, s) for s in said]))
    assert [p.text for p in found] == [s.removesuffix(" restaurant") for s in said]
    assert {p.fact.relation for p in found} == {""}


def test_the_wording_of_one_model_is_chosen(write):
    path = write([entry(SAID, SAID) | entry("Cafes are restaurants", "Cafes are restaurants", "gpt2-large")])
    assert load_prompts(path, "gpt2")[0].text == "A cafe is a kind of"
    assert load_prompts(path, "gpt2-large")[0].text == "Cafes are"


def test_a_released_set_becomes_a_removal_with_its_paraphrases_and_controls(write):
    heads = [("cafe", "restaurant"), ("igloo", "hut")]
    best = write([entry(f"A {h} is a {t}", f"A {h} is a {t}", head=h, tail=t) for h, t in heads])
    others = [
        entry(f"{w} {h} is one {t}", f"{w} {h} is one {t}", head=h, tail=t) for w in ("The", "Any") for h, t in heads
    ]
    worse = write([*others, entry("A cafe is a restaurant", "restaurant")], "building_worse_format.json")
    controls = [
        entry(f"A {h} is a {t}", t, head=h, tail=t) for h, t in [("cat", "pet"), ("cafe", "shop"), ("gull", "bird")]
    ]
    kg = knowledge(best, unseen=str(worse), control=write(controls, "controlkg_train.json"), control_held_out=[])
    assert kg.name == "building" and [p.text for p in kg.target] == ["A cafe is a", "A igloo is a"]
    assert [p.text for p in kg.unseen] == ["The cafe is one", "The igloo is one", "Any cafe is one", "Any igloo is one"]
    assert [p.fact.head for p in kg.control] == ["cat", "gull"]
    alone = knowledge(str(best), model="gpt2")
    assert alone.target == kg.target and not alone.unseen and len(alone.control) > 4000
    assert not {"cafe", "igloo"} & {p.fact.head for p in alone.control}
    check_sets(alone.target, alone.control, alone.text)


BAD = {
    "{": "no whole JSON",
    json.dumps([entry(SAID, SAID)])[:-9]: "no whole JSON",
    "{}": "no list of triplets",
    "[]": "no list of triplets",
    "[3]": "no list of triplets",
    '[{"head": "cafe", "tail": "restaurant"}]': "holds no prompts: .*best_gpt2_input",
}


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_bad_file_is_refused(write, refuses, text):
    with refuses(ValueError, BAD[text]):
        load_prompts(write(text))


@pytest.mark.parametrize("key", ["head", "tail", "best_gpt2_input", "best_gpt2_label"])
@pytest.mark.parametrize("value", [None, 3, " "])
def test_an_entry_that_lacks_something_is_named(write, refuses, key, value):
    wrong = entry(SAID, SAID) | {key: value}
    with refuses(ValueError, rf"Entry number 1 of .* has no text under '{key}'"):
        load_prompts(write([entry(SAID, SAID), {k: v for k, v in wrong.items() if v is not None}]))


@pytest.mark.parametrize("given, label", [(SAID, "A dog is an animal"), ("restaurant", "restaurant"), ("A", "B C D")])
def test_an_input_and_a_label_that_do_not_fit_are_refused(write, refuses, given, label):
    with refuses(ValueError, "Entry number 0 of .*do not fit"):
        load_prompts(write([entry(given, label)]))


def test_another_models_wording_and_a_missing_file_are_refused(write, refuses, tmp_path):
    path = write([entry(SAID, SAID) | entry(SAID, SAID, "opt")])
    with refuses(ValueError, "several models: choose gpt2 or opt"):
        load_prompts(path)
    with refuses(ValueError, "no prompts for the model 'llama': choose gpt2 or opt"):
        load_prompts(path, "llama")
    for missing in (lambda: load_prompts(tmp_path / "none"), lambda: knowledge("none.json")):
        with refuses(OSError, "There is no file .*none"):
            missing()
