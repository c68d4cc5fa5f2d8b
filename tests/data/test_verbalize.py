"""Triplets become sentences that end in the tail, with the right article before the head."""

from __future__ import annotations

import pytest

from lens.data import facts, noun_phrase, prompts, relations, verbalize
from lens.data.articles import indefinite

AN = """apple hour hourglass honest honor heir herb umbrella usher ugly uncle unable unusual unimportant uninvited
    unidentified onerous only 8-bit 80 8,000 11 18th 11-year-old X-ray FBI MRI L-shaped SUV éclair Élan udder Uzbek"""
A = """cafe honey herbivore house university unicorn union unanimous unidirectional user useful usual usage utopia
    uranium ukulele European ewe euro one one-off once UFO U-turn T-shirt CEO 1 7 110 180 1800 yard Ugandan"""


@pytest.mark.parametrize("article, words", [("an", AN), ("a", A)])
def test_the_article_follows_the_sound(article, words):
    assert {word: indefinite(word) for word in words.split()} == dict.fromkeys(words.split(), article)


def test_the_rule_writes_every_noun_phrase_of_the_world_that_was_written_by_hand():
    articled = [f for f in facts() if f.np in (f"a {f.head}", f"an {f.head}")]
    assert len(articled) > 500 and not [f.np for f in articled if noun_phrase(f.head) != f.np]
    names = [f for f in facts() if f.np == f.head and f.head[0].isupper()]
    assert len(names) > 1500 and not [f.np for f in names if noun_phrase(f.head) != f.np]
    definite = [f.np for f in facts() if f.np.startswith("the ")]
    assert len(definite) > 30 and not [np for np in definite if noun_phrase(np) != np]


def test_an_article_is_put_only_where_none_stands():
    already = ["a cafe", "an hour", "the sun", "my hat", "some water", "Paris", "The Hague", "water", "going home"]
    assert [noun_phrase(head, bare=("water", "going home")) for head in already] == already
    assert noun_phrase("theater") == "a theater" and noun_phrase("anthill") == "an anthill"  # "the", "an" are words


def test_the_worlds_own_facts_are_put_into_the_worlds_own_words():
    for fact in facts()[::7]:
        assert {p.text for p in prompts(fact)} <= {p.text for p in verbalize([fact])}
        assert len(verbalize([fact])) == len(relations()[fact.relation].templates)


def test_a_dictionary_is_read_by_its_keys_names_and_a_set_not_at_all(refuses):
    want = verbalize([("hourglass", "hypernym", "clock")])
    for name in ("relation", "rel"):
        assert verbalize([{"tail": "clock", "head": "hourglass", name: "hypernym"}]) == want
    for other in ({"head": "hourglass", "relation": "hypernym", "object": "clock"}, {"hourglass", "hypernym", "clock"}):
        with refuses(ValueError, "Triplet number 0 .* give three texts"):
            verbalize([other])


def test_a_prompt_and_its_tail_make_the_sentence():
    (prompt,) = verbalize([("ice_cream", "IsA", "frozen_food")], {"IsA": "{Np} is a kind of {tail}."}, topic="food")
    assert prompt.sentence == "An ice cream is a kind of frozen food." and not prompt.held_out
    assert (prompt.text, prompt.target) == ("An ice cream is a kind of", "frozen food")
    assert (prompt.fact.head, prompt.fact.topic) == ("ice cream", "food")


@pytest.mark.parametrize("name", ["at_location", "AtLocation", "/r/AtLocation"])
def test_conceptnets_names_find_the_templates(name):
    texts = [p.text for p in verbalize([("the swimmer", name, "pool")])]
    assert texts[0] == "One place to find the swimmer is the" and len(texts) == 8
    assert verbalize([("the swimmer", name, "pool")])[0].fact.head == "swimmer"


@pytest.mark.parametrize("slot, text", [("{np}", "x a cat is"), ("{Np}", "x A cat is"), ("{head}", "x cat is")])
def test_each_slot_puts_the_head_in_its_own_way(slot, text):
    assert verbalize([("cat", "is", "small")], {"is": f"x {slot} is {{tail}}"})[0].text == text


@pytest.mark.parametrize(
    "template, sentence",
    [
        ("{Np} is {tail} today.", "does not end in the tail"),
        ("{tail} is what {np} is.", "does not end in the tail"),
        ("{Np} is.", "does not end in the tail"),
        ("{Np} is '{tail}'.", "does not end in the tail"),
        ("It is {tail}.", "needs its head once"),
        ("{Np} and {np} are {tail}.", "needs its head once"),
        ("{subject} is {tail}.", "needs its head once"),
        ("{tail} or {Np} is {tail}.", "does not end in the tail|needs its head once"),
    ],
)
def test_a_template_without_the_tail_at_its_end_is_refused(refuses, template, sentence):
    with refuses(ValueError, sentence):
        verbalize([("cat", "is", "small")], {"is": [template]})


@pytest.mark.parametrize("triplet", ["cat is small", ("cat", "is"), ("cat", "is", " "), ("cat", "is", 3)])
def test_what_is_no_triplet_is_refused(refuses, triplet):
    with refuses(ValueError, "Triplet number 1 is .*three texts"):
        verbalize([("cat", "hypernym", "animal"), triplet])


def test_a_relation_without_templates_is_refused_with_those_there_are(refuses):
    with refuses(ValueError, "relation 'eats' of triplet number 0.*hypernym"):
        verbalize([("cat", "eats", "fish")])
