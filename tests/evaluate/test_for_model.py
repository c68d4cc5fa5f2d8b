"""Is a model asked for what it knows, in the words it knows it by, and for nothing it does not know?"""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

import lens
from lens.__main__ import main
from lens.data import facts, knowledge, prompts, records
from lens.evaluate import answered, knowledge_for, known, phrasings, records_for, score
from lens.evaluate.for_model import _asked
from lens.results.csv_text import as_csv


@pytest.fixture(scope="module")
def stranger(mini):
    """The built-in model under a name that is not built in: it knows much, and nobody says so."""
    return lens.LanguageModel(mini.model, mini.tokenizer, "stranger")


def test_a_built_in_model_knows_its_world_whole(mini):
    assert knowledge_for(mini, "sun") == knowledge("sun") and records_for(mini, "test") == records("test")


def test_a_fetched_model_is_asked_without_being_told_to(stranger, monkeypatch):
    monkeypatch.setattr("lens.data.paths.FETCHED", ("stranger",))
    three = records("test")[:3]
    monkeypatch.setattr("lens.data.records", lambda split: three)
    for asks in ("answered", "phrasings"):
        monkeypatch.setattr(f"lens.evaluate.{asks}.score", lambda *_: pytest.fail("asked"))
    for ask in (records_for, knowledge_for):
        with pytest.raises(pytest.fail.Exception, match="asked"):
            ask(stranger)


def test_known_facts_are_those_with_a_probable_tail_and_phrasings_go_from_best_to_worst(stranger):
    kg = knowledge("building")
    prompts = [*kg.target, *kg.unseen]
    nll = dict(zip(prompts, score(stranger, [p.text for p in prompts], [p.target for p in prompts]).nll.tolist()))
    best = {fact: min(nll[p] for p in prompts if p.fact == fact) for fact in {p.fact for p in prompts}}
    least = sorted(best.values())[len(best) // 2]  # half of the facts are that well known
    found = known(stranger, prompts, least=exp(-least) * 0.999999)
    assert set(found) == {fact for fact, value in best.items() if value <= least - log(0.999999)}
    for some in found.values():
        assert [nll[p] for p in some] == sorted(nll[p] for p in some)


def test_what_a_table_holds_of_these_weights_is_not_asked_again(stranger, monkeypatch, tmp_path):
    fact, other = [f for f in facts() if f.role == "target"][:2]
    rows = phrasings.table(stranger, [fact])
    monkeypatch.setattr(phrasings.paths, "root", lambda: tmp_path)
    monkeypatch.setattr(phrasings.paths, "FETCHED", (stranger.name,))
    (tmp_path / "known").mkdir()
    some, asked = [*prompts(fact), *prompts(other)], []
    monkeypatch.setattr(phrasings, "score", lambda lm, *pairs: asked.append(len(pairs[0])) or score(lm, *pairs))
    for fingerprint, left in ((stranger.fingerprint, len(list(prompts(other)))), ("of other weights", len(some))):
        phrasings._table.cache_clear()
        phrasings.file_of(stranger.name).write_text(as_csv(rows, f"{stranger.name} {fingerprint}"), encoding="utf-8")
        exact = score(stranger, [p.text for p in some], [p.target for p in some]).nll.tolist()
        assert phrasings.surprise(stranger, some) == pytest.approx(exact, abs=1e-5) and asked.pop() == left
    phrasings._table.cache_clear()


def test_facts_that_do_not_exist_are_refused_before_a_model_opens(capsys):
    assert main(["model", "known", "no-such-model", "--source", "wordnet", "capitols"]) == 1
    assert "--source capitols: there are no such facts; choose of animal_class" in capsys.readouterr().err


def test_which_records_are_answered_is_asked_once_for_the_same_weights_and_records(stranger, monkeypatch, tmp_path):
    given = records("validation")[:4]
    wrong = {**given[1], "requested_rewrite": given[1]["requested_rewrite"] | {"target_true": {"str": "Zanzibar"}}}
    three, digest = [given[0], wrong, given[2]], answered._records()
    rows = answered.table(stranger, three)
    assert [row["way"] for row in rows] == [0, "", 0]
    monkeypatch.setattr(answered.paths, "root", lambda: tmp_path)
    monkeypatch.setattr(answered.paths, "FETCHED", (stranger.name,))
    monkeypatch.setattr(answered, "_records", lambda: digest)
    (tmp_path / "known").mkdir()
    asked, ask = [], answered._ask
    monkeypatch.setattr(answered, "_ask", lambda lm, some: asked.append(len(some)) or ask(lm, some))
    for about, left in (
        (answered.about(stranger), 1),
        ((f"{stranger.name} of other weights", f"records {digest}"), 4),
        ((f"{stranger.name} {stranger.fingerprint}", "records of another world"), 4),
    ):
        answered.file_of(stranger.name).write_text(as_csv(rows, "by hand", *about), encoding="utf-8")
        assert answered.first_right(stranger, [*three, given[3]]) == [0, None, 0, 0] and asked.pop() == left


def test_any_other_model_trains_on_some_of_its_best_phrasings_and_never_sees_others(stranger, refuses):
    whole = knowledge("building")
    few = {"control": whole.control[:60], "control_held_out": whole.control_held_out[:30]}
    kg = knowledge_for(stranger, "building", least=0.01, **few)
    ranked = known(stranger, (*whole.target, *whole.unseen))
    for fact, some in ranked.items():
        texts = {name: [p.text for p in getattr(kg, name) if p.fact == fact] for name in ("target", "unseen")}
        assert texts == {"target": [some[i].text for i in (0, 2, 4)], "unseen": [some[i].text for i in (1, 3)]}
    assert not any(p.held_out for p in (*kg.target, *kg.unseen, *kg.control, *kg.control_held_out))
    assert kg.text == lens.data.english("train") and kg.text_held_out == lens.data.english("held_out")
    assert not {p.text for p in kg.target} & {p.text for p in kg.unseen}
    with refuses(ValueError, "knows no fact of the target of building"):
        knowledge_for(stranger, "building", least=1.0, **few)


def test_a_record_stays_where_the_answer_is_right_in_some_words_and_is_asked_in_these(stranger, monkeypatch):
    given = records("validation")[:12]
    ask = [r["requested_rewrite"] for r in given]
    # A paraphrase that the model answers in place of a rewrite prompt that it does not.
    swapped = {**given[0], "requested_rewrite": ask[0] | {"prompt": "It is not known which words come after {} and"}}
    swapped["paraphrase_prompts"] = [ask[0]["prompt"].format(ask[0]["subject"])]
    wrong = {**given[1], "requested_rewrite": ask[1] | {"target_true": {"str": "Zanzibar"}}}
    monkeypatch.setattr("lens.data.records", lambda split: [swapped, wrong, given[2]])
    assert len(records_for(stranger, "validation")) == 3 and len(records_for(stranger, "validation", most=2)) == 2
    found = records_for(stranger, "validation", answered=True)
    assert [r["case_id"] for r in found] == [given[0]["case_id"], given[2]["case_id"]]
    monkeypatch.setattr("lens.evaluate.for_model.ASKED", 2)  # asked in parts, and no further than is needed
    assert records_for(stranger, "validation", answered=True) == found
    assert records_for(stranger, "validation", answered=True, most=1) == found[:1]
    assert found[0]["requested_rewrite"]["prompt"] == ask[0]["prompt"]
    assert found[0]["paraphrase_prompts"] == [f"It is not known which words come after {ask[0]['subject']} and"]
    right = score(
        stranger,
        [r["requested_rewrite"]["prompt"].format(r["requested_rewrite"]["subject"]) for r in found],
        [r["requested_rewrite"]["target_true"]["str"] for r in found],
    )
    assert right.correct.all()


def test_braces_of_a_paraphrase_are_asked_as_they_stand():
    record = records("validation")[0]
    subject, prompt = (record["requested_rewrite"][name] for name in ("subject", "prompt"))
    worded = f"In the set {{x}} there is {subject}, which is in"
    asked = _asked({**record, "paraphrase_prompts": [worded]}, 1)
    assert lens.Request.from_record(asked).text == answered.ways(asked)[0] == worded
    assert asked["paraphrase_prompts"] == [prompt.replace("{}", subject)]


def test_prompts_of_a_set_are_replaced_and_never_written_into(mini):
    kg = knowledge("building")
    before = replace(kg)
    known(mini, kg.target)
    assert kg == before


def test_what_a_ruined_model_says_is_no_answer(tiny, refuses):
    lm = tiny("gpt2")
    asked = [p for p in knowledge("building").target[:4] if len(lm.encode(p.text)) < 50]
    with torch.no_grad():
        lm.weight(1, "ff2").fill_(1e300)
    with refuses(ValueError, "What the model says is NaN"):
        known(lm, asked)


def test_new_answers_are_added_to_the_table_of_the_same_weights(stranger, monkeypatch, tmp_path, capsys):
    some = [fact for fact in facts() if fact.role == "target"][:3]
    monkeypatch.setattr(phrasings.paths, "root", lambda: tmp_path)
    monkeypatch.setattr(phrasings.paths, "FETCHED", (stranger.name,))
    monkeypatch.setattr("lens.model.loading.load", lambda name, device=None: stranger)
    for asked in (some[:2], some[1:]):
        monkeypatch.setattr("lens.commands.model._facts", lambda _, asked=asked: asked)
        assert main(["model", "known", stranger.name]) == 0
    assert [row["head"] for row in phrasings.rows(stranger.name, stranger.fingerprint)] == [f.head for f in some]
    assert main(["model", "known", str(tmp_path / "mine"), "--records"]) == 1
    assert "Answers are kept of fetched models" in capsys.readouterr().err
