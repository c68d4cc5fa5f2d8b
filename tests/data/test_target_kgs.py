"""What is removed, kept and measured does not overlap, in every built-in TargetKG and in sets of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256

import pytest

from lens.data import facts, knowledge, prompts, target_kgs, verbalize
from lens.data.corpus import HELDOUT_SEED, PROSE_PER_EPOCH
from lens.data.knowledge import HELD_OUT, TEXT_SEED, disjoint
from lens.data.prose import paragraphs
from lens.mask.sets import check_sets

EPOCHS = 14  # of mini's training: 3000 steps of 16 rows of 128 tokens, 460 thousand tokens an epoch
each = pytest.mark.parametrize("kg", [knowledge(name) for name in target_kgs()], ids=target_kgs())


def said(some) -> set[str]:
    return {p.text for p in some}


@each
def test_controls_share_no_head_tail_or_sentence_with_the_target(kg):
    target, control = [*kg.target, *kg.unseen], [*kg.control, *kg.control_held_out]
    for of in (lambda p: p.fact.head, lambda p: p.fact.np, lambda p: p.target, lambda p: p.text):
        assert not {of(p).casefold() for p in target} & {of(p).casefold() for p in control}
    assert {p.fact.source for p in control} == {p.fact.source for p in target}
    assert len(kg.control) > 2000 and len(kg.control_held_out) > 900


@each
def test_no_prompt_that_is_measured_as_unseen_is_trained_on(kg):
    assert not said(kg.target) & said(kg.unseen)
    assert not said(kg.control) & said(kg.control_held_out)
    assert not {p.fact for p in kg.control} & {p.fact for p in kg.control_held_out}
    for some in (kg.target, kg.unseen, kg.control, kg.control_held_out):
        assert len({p.sentence for p in some}) == len(some)


@each
def test_every_target_fact_is_trained_on_in_its_first_phrasing_and_measured_in_four_others(kg):
    wanted = [f for f in facts() if f.topic == kg.name and f.role == "target"]
    for fact in wanted:
        trained = {p.template: p for p in kg.target if p.fact == fact}
        unseen = [p for p in kg.unseen if p.fact == fact]
        assert 0 in trained and len(trained) >= 4 and not any(p.held_out for p in trained.values())
        assert [p.held_out for p in unseen] == [False, False, True, True]
        assert {p.template for p in unseen} | set(trained) == {p.template for p in prompts(fact)}
    assert {p.fact for p in kg.target} == {p.fact for p in kg.unseen} == set(wanted)


@each
def test_mask_training_accepts_the_sets_and_no_text_says_a_target(kg):
    check_sets(kg.target, kg.control, kg.text)
    check_sets([*kg.target, *kg.unseen], [*kg.control, *kg.control_held_out], [*kg.text, *kg.text_held_out])


def test_a_control_fact_is_held_out_for_every_target_or_for_none():
    kept = {p.fact for name in target_kgs() for p in knowledge(name).control}
    held_out = {p.fact for name in target_kgs() for p in knowledge(name).control_held_out}
    assert kept and held_out and not kept & held_out


def test_ordinary_text_for_training_and_for_measurement_differ_and_the_model_read_neither():
    kg = knowledge("fruit")
    texts = [*kg.text, *kg.text_held_out]
    assert len(kg.text) == 400 and len(kg.text_held_out) == 300 and len(set(texts)) == 700
    assert TEXT_SEED != HELDOUT_SEED
    read = {text for epoch in range(EPOCHS) for text in paragraphs(seed=epoch, count=PROSE_PER_EPOCH)}
    assert not read & set(texts)


@pytest.mark.slow
def test_the_sets_and_their_order_are_the_same_in_every_process():
    """A mask's training follows from its seed only if the order of its examples does not hang on Python's hashes."""
    show = "from lens.data import *; print([vars(knowledge(name)) for name in target_kgs()])"
    done = [
        subprocess.run([sys.executable, "-c", show], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True)
        for seed in ("1", "2")
    ]
    first, second = (sha256(d.stdout).hexdigest() for d in done)
    assert first == second and len(done[0].stdout) > 1_000_000


def test_europes_capitals_are_removed_beside_all_other_capitals():
    kg = knowledge("capitals")
    removed, kept = ({p.fact for p in (*a, *b)} for a, b in ((kg.target, kg.unseen), (kg.control, kg.control_held_out)))
    assert ("France", "Paris") in {(f.head, f.tail) for f in removed} and len(removed) == 38
    assert {f.relation for f in removed | kept} == {"capital"} and not removed & kept
    assert removed | kept == {f for f in facts() if f.relation == "capital"}, "no fact is lost"
    assert {f.tail for f in facts() if f.relation == "continent" and f.head in {g.head for g in removed}} == {"Europe"}
    assert target_kgs(every=True) == (*target_kgs(), "capitals")


def test_an_unknown_name_is_refused_with_those_there_are(refuses):
    with refuses(ValueError, "no TargetKG 'buildings': choose one of building, .*swimming, capitals, or give a JSON file"):
        knowledge("buildings")


# --- sets of one's own ------------------------------------------------------------------------------------------------

OWN = [("barn owl", "is_a", "bird"), ("oak", "is_a", "tree"), ("oak", "has_property", "tall")]


def test_own_triplets_get_built_in_controls_of_other_heads_and_tails():
    kg = knowledge(verbalize(OWN, topic="nature"))
    assert kg.name == "nature" and {p.fact.source for p in kg.control} == {"wordnet", "conceptnet"}
    for p in [*kg.control, *kg.control_held_out]:
        assert p.fact.head.casefold() not in ("barn owl", "oak") and p.target not in ("bird", "tree", "tall")
    assert any(f.tail == "bird" for f in facts()), "there was something to leave out"
    assert not said(kg.target) & said(kg.unseen) and len(kg.unseen) == 2 * len(OWN)
    assert {p.template for p in kg.target} >= {0}


def test_encyclopedic_facts_are_kept_beside_encyclopedic_ones():
    kg = knowledge(p for f in facts() if f.relation == "capital" for p in prompts(f))
    assert {p.fact.source for p in kg.control} == {"encyclopedia"} and kg.name == "geography"
    countries = {f.head for f in facts() if f.relation == "capital"}
    assert not countries & {p.fact.head for p in [*kg.control, *kg.control_held_out]}
    assert any(f.head in countries and f.relation == "language" for f in facts()), "there was something to leave out"


def test_what_is_given_is_taken():
    everything = verbalize(OWN)
    plain = [p for p in everything if p.template == 0]
    control = verbalize([(f"thing {i}", "is_a", "object") for i in range(40)] + [("oak", "is_a", "plant")])
    held_out = [p for p in control if p.fact.head in ("thing 3", "thing 4")]
    texts = [f"Paragraph {i}." for i in range(10)]
    kg = knowledge(plain, unseen=everything, control=control, control_held_out=held_out, text=texts)
    assert kg.target == tuple(plain) and set(kg.unseen) == set(everything) - set(plain)
    assert kg.control_held_out == tuple(held_out)
    assert {p.fact.head for p in kg.control} == {f"thing {i}" for i in range(40)} - {"thing 3", "thing 4"}
    assert set(kg.text) | set(kg.text_held_out) == set(texts) and len(kg.text_held_out) == -(-10 // HELD_OUT)
    assert knowledge(plain, text=texts, text_held_out=["Other."]).text == tuple(texts)


def test_a_single_phrasing_is_trained_on_and_of_two_one_is_unseen():
    once, twice = (verbalize(OWN[:1], {"is_a": ["{Np} is a {tail}.", "Look: {np} is a {tail}."][:n]}) for n in (1, 2))
    assert [(len(kg.target), len(kg.unseen)) for kg in map(knowledge, (once, twice))] == [(1, 0), (1, 1)]


def test_the_same_prompt_given_twice_is_trained_on_once():
    assert knowledge([*verbalize(OWN), *verbalize(OWN)]) == knowledge(verbalize(OWN))


def test_two_true_tails_of_one_prompt_do_not_put_it_among_the_unseen():
    kg = knowledge(verbalize([("oak", "has_property", tail) for tail in ("tall", "old", "green", "strong")]))
    assert not said(kg.target) & said(kg.unseen)


@pytest.mark.parametrize("heads", [("Oak", "oak"), ("\u00c9pic\u00e9a", "e\u0301pice\u0301a")])
def test_disjoint_ignores_case_and_how_a_letter_is_composed(heads):
    for words in (lambda head, tail: (head, "is_a", tail), lambda head, tail: (tail, "is_a", head)):  # head or tail
        one, other = (verbalize([words(head, word)])[0].fact for head, word in zip(heads, ("tree", "plant")))
        assert disjoint([other], [one]) == [] and disjoint([one], []) == [one]


def test_a_sentence_has_the_space_that_running_text_has():
    facts = [("Peking", "is", tail) for tail in ("big", "\u5317\u4eac", "##s")]
    sentences = [prompt.sentence for prompt in verbalize(facts, {"is": "{Np} is {tail}."})]
    assert sentences == ["Peking is big.", "Peking is\u5317\u4eac.", "Peking iss."]


def test_sets_that_cannot_be_are_refused(refuses):
    with refuses(ValueError, "target has no prompts"):
        knowledge([])
    with refuses(ValueError, "'a text' for a prompt.*verbalize"):
        knowledge(["a text"])
    with refuses(ValueError, "No control fact is left for own"):
        knowledge(verbalize(OWN), control=verbalize(OWN))
    with refuses(ValueError, "text is one text"):
        knowledge("building", text="All of it.")
    for text in ([], ["One."], ["One.", "One."]):
        with refuses(ValueError, "remains empty: give at least two different paragraphs"):
            knowledge("building", text=text)
    with refuses(ValueError, "an item of text"):
        knowledge("building", text=["One.", 2])
    twice = knowledge("building", text=["A ship came in.", "It rained."] * 4)
    assert not set(twice.text) & set(twice.text_held_out)
