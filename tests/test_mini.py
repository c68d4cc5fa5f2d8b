"""The built-in model: small enough to ship, an ordinary transformers model, and knowing what its card says."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lens
from lens import data
from lens.data import paths
from lens.data.corpus import documents, sentences_of
from lens.world import tokenizer as mini_tokenizer
from lens.world import train as training
from lens.world.evaluate import NEVER, best_ranks, totals
from lens.world.recipe import RECIPES
from lens.world.train import IGNORE, Batches, Recipe, schedule, train

# --- what is shipped --------------------------------------------------------------------------------------------------


def test_mini_is_at_most_twelve_megabytes_of_plain_files():
    files = [p for p in paths.model().rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 12_000_000
    assert {p.suffix for p in files} <= {".json", ".safetensors", ".md"}
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "evaluation.json"}
    assert names | {"recipe.json", "README.md"} <= {p.name for p in files}


def test_plain_transformers_opens_mini_in_float32():
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

    model, loading = AutoModelForCausalLM.from_pretrained(paths.model(), output_loading_info=True)
    assert type(model) is GPT2LMHeadModel and {p.dtype for p in model.parameters()} == {torch.float32}
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    tok = AutoTokenizer.from_pretrained(paths.model())
    ids = tok("The capital of France is", return_tensors="pt")
    said = model.generate(**ids, max_new_tokens=1, do_sample=False, pad_token_id=tok.eos_token_id)
    assert tok.decode(said[0]) == "The capital of France is Paris"


def test_mini_is_deep_and_wide_enough_for_pictures_of_layers_and_heads(mini):
    config = mini.model.config
    assert config.n_layer >= 8 and config.n_head >= 6 and len(mini.layers) == config.n_layer
    assert len(mini.tokenizer) == len(mini.unembedding) == config.vocab_size


@pytest.mark.parametrize("name", paths.BUILT_IN)
def test_the_shipped_recipe_is_the_one_the_command_runs(name):
    shipped = json.loads((paths.model(name) / "recipe.json").read_text(encoding="utf-8"))
    assert Recipe(**shipped | {"without": tuple(shipped.get("without", ()))}) == RECIPES[name]
    assert ("without" in shipped) == (name == "mini-twin"), "only what was left out is said"
    lm = lens.load(name)
    assert (len(lm.layers), lm.width) == (RECIPES[name].layers, RECIPES[name].width)


def test_a_space_belongs_to_the_word_after_it_as_in_gpt2(mini):
    tok = mini.tokenizer
    for word in ("Paris", "Japan", "the", "river"):
        (alone,) = tok(" " + word)["input_ids"]
        assert tok.convert_ids_to_tokens(alone) == "Ġ" + word and mini.word(alone) == "·" + word
        assert mini.target_ids(word) == mini.target_ids(" " + word) == [alone] != tok(word)["input_ids"]
    assert tok("The capital")["input_ids"][0] != tok(" The")["input_ids"][0]
    assert tok.bos_token_id == tok.eos_token_id == 0 and tok("a")["input_ids"][0] != 0  # nothing is added silently
    for text in ("São Tomé, 猫 🙂\n\t  x", "it's  a  test ", "\x00"):
        assert tok.decode(tok(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_most_answers_of_one_word_are_one_token(mini):
    words = {f.tail for f in data.facts() if " " not in f.tail and f.tail.isalpha()}
    whole = sum(len(mini.target_ids(w)) == 1 for w in words)
    assert whole >= 0.95 * len(words)


# --- what it knows ----------------------------------------------------------------------------------------------------


def card_of(name):
    return json.loads((paths.model(name) / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def card():
    return card_of("mini")


@pytest.mark.parametrize("name", paths.BUILT_IN)
def test_the_card_meets_the_bars(name):
    card = card_of(name)
    share = totals(card["recall"])
    assert share["taught top-1"] >= 0.97
    assert share["held-out top-1"] >= 0.80
    assert share["held-out rank ≤ 10, any true tail"] >= 0.95
    assert sum(row["facts"] for row in card["recall"]) == len(data.facts())


def test_ordinary_text_is_uncertain_to_mini_but_less_than_to_n_grams(card):
    """Of the kind it was trained on; passages people wrote are harder, and the card says how much."""
    generated, written = card["perplexity"]["generated"], card["perplexity"]["hand-written"]
    assert 2 < generated["model"] < generated["bigram"] < generated["unigram"] and generated["tokens"] > 5000
    assert generated["model"] < written["model"] < written["bigram"] and written["tokens"] > 500


@pytest.mark.parametrize("name", paths.BUILT_IN)
def test_the_readable_card_says_the_numbers_of_the_measured_one(name):
    card = card_of(name)
    text = (paths.model(name) / "README.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells[2:-1] for line in text.splitlines() if len(cells := line.split("|")) > 4}
    want = [f"{100 * value:.1f} %" for value in totals(card["recall"]).values()]
    assert [cell.strip() for cell in rows["**all**"][1:]] == want
    for name, row in card["perplexity"].items():
        assert [cell.strip() for cell in rows[name][1:]] == [f"{row[m]:.1f}" for m in ("model", "bigram", "unigram")]


def test_the_twin_knows_its_world_but_for_every_second_topic():
    """What it was taught it says as mini does; what it never read comes first hardly more often than by chance."""
    assert RECIPES["mini-twin"].without == data.target_kgs()[::2] and "statement" in RECIPES["mini-twin"].without
    never = totals(card_of("mini-twin")["recall"], NEVER)
    assert never["taught top-1"] <= 0.1 and never["held-out top-1"] <= 0.1
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        twin, own = (json.loads((paths.model(name) / file).read_text(encoding="utf-8")) for name in ("mini-twin", "mini"))
        assert twin | {"transformers_version": 0} == own | {"transformers_version": 0}


@pytest.fixture(scope="module")
def sample():
    """600 prompts drawn with a fixed seed, taught and held out, and what plain transformers says to each."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    everything = [p for f in data.facts() for p in data.prompts(f)]
    chosen = random.Random(2024).sample(everything, 600)
    model, tok = (c.from_pretrained(paths.model()) for c in (AutoModelForCausalLM, AutoTokenizer))
    by_length: dict[int, list] = {}
    for p in chosen:
        by_length.setdefault(len(tok(p.text)["input_ids"]), []).append(p)
    ranks = {}
    for group in by_length.values():  # equal lengths: no padding anywhere
        with torch.inference_mode():
            logits = model(**tok([p.text for p in group], return_tensors="pt"), logits_to_keep=1).logits[:, -1]
        for p, row in zip(group, logits):
            truths = [tok(" " + t)["input_ids"][0] for t in data.tails()[p.fact.relation, p.fact.np]]
            ranks[id(p)] = int((row > row[truths].max()).sum())
    return chosen, [ranks[id(p)] for p in chosen]


@pytest.mark.parametrize("held_out, bar", [(False, 0.97), (True, 0.80)])
def test_a_fresh_sample_agrees_with_the_card_on_top_1(card, sample, held_out, bar):
    single = [
        rank
        for p, rank in zip(*sample)
        if p.held_out == held_out and len(data.tails()[p.fact.relation, p.fact.np]) == 1
    ]
    assert len(single) >= 80
    claimed = totals(card["recall"])["held-out top-1" if held_out else "taught top-1"]
    measured = sum(r == 0 for r in single) / len(single)
    spread = 4 * math.sqrt(max(claimed * (1 - claimed), 0.005) / len(single))  # four standard errors
    assert abs(measured - claimed) <= spread and claimed >= bar


def test_a_fresh_sample_agrees_with_the_card_on_rank_10(card, sample):
    ranks = [rank for p, rank in zip(*sample) if p.held_out]
    claimed = totals(card["recall"])["held-out rank ≤ 10, any true tail"]
    measured = sum(r < 10 for r in ranks) / len(ranks)
    assert abs(measured - claimed) <= 4 * math.sqrt(max(claimed * (1 - claimed), 0.005) / len(ranks))


def test_the_cards_batched_ranks_are_the_plain_ones(mini, sample):
    chosen, ranks = sample
    assert best_ranks(mini, chosen[:120], batch=50).tolist() == ranks[:120]


# --- how it was trained -----------------------------------------------------------------------------------------------

TINY = Recipe(vocabulary=400, layers=2, heads=2, width=16, context=32, row=32, batch=4, steps=6, warmup=2)


@cache
def few_documents() -> list[list[str]]:
    """Three epochs of forty documents in place of thousands."""
    return [documents(epoch)[:40] for epoch in range(3)]


def small_world(monkeypatch) -> None:
    for module in (training, mini_tokenizer):
        monkeypatch.setattr(module, "documents", lambda epoch, seed=0, without=(): few_documents()[epoch % 3])


def weights(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_topic_left_out_is_never_said_and_all_else_is_said_as_before():
    untaught, said = sentences_of(["sun"]), documents(3)
    without = documents(3, without=["sun"])
    assert len(untaught) > 100 and sum(any(s in text for s in untaught) for text in said) > 50
    assert not any(s in text for s in untaught for text in without)
    alike = [text for text in said if not any(s in text for s in untaught)]
    kept = set(alike)
    assert [text for text in without if text in kept] == alike, "the other documents, in the same order"
    taught = {p.sentence for f in data.facts() for p in data.prompts(f, held_out=False)} - untaught
    assert taught <= {p for text in without for p in parts(text)}
    with pytest.raises(ValueError, match="no TargetKG 'moon'"):
        documents(0, without=["moon"])


def parts(text: str) -> set[str]:
    """Every run of whole sentences in a document."""
    ends = [0, *(i + 2 for i in range(len(text)) if text[i : i + 2] == ". "), len(text) + 1]
    return {text[a : b - 1] for i, a in enumerate(ends) for b in ends[i + 1 :]}


def test_training_repeats_itself_bit_for_bit_and_opens_as_a_model(tmp_path, monkeypatch):
    import lens

    small_world(monkeypatch)
    first = train(tmp_path / "a", tmp_path / "w", TINY, "cpu")
    torch.rand(7), random.random()  # whatever happened before does not matter
    again = train(tmp_path / "b", tmp_path / "w", TINY, "cpu", every=4)
    assert same(weights(first), weights(again))
    for name in ("tokenizer.json", "config.json", "recipe.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert not list((tmp_path / "w").iterdir()), "a finished run leaves no checkpoint"
    other = train(tmp_path / "c", tmp_path / "w", Recipe(**asdict(TINY) | {"seed": 1}), "cpu")
    assert not same(weights(first), weights(other))
    lm = lens.load(first, device="cpu")
    assert lm.dtype == torch.float32 and len(lm.layers) == 2
    assert lens.capture(lm, "The capital", "Paris").loss > 0


KILLED = """
import json, os, signal, sys
from pathlib import Path
from lens.world import tokenizer, train
everything = json.loads(sys.argv[4])
train.documents = tokenizer.documents = lambda epoch, seed=0, without=(): everything[epoch % 3]
save = train.store
def save_and_die(*args):
    save(*args)
    os.kill(os.getpid(), signal.SIGKILL)
train.store = save_and_die
train.train(Path(sys.argv[1]), Path(sys.argv[2]), train.Recipe(**eval(sys.argv[3])), "cpu", every=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_training_goes_on_and_ends_in_the_same_weights(tmp_path, monkeypatch):
    small_world(monkeypatch)
    whole = weights(train(tmp_path / "whole", tmp_path / "w", TINY, "cpu"))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out"), str(tmp_path / "work"), repr(asdict(TINY))]
    command.append(json.dumps(few_documents()))
    root = str(Path(training.__file__).resolve().parents[2])
    died = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, timeout=300)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    (checkpoint,) = (tmp_path / "work").glob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == 2 and not (tmp_path / "out").exists()
    assert same(weights(train(tmp_path / "out", tmp_path / "work", TINY, "cpu", every=2)), whole)


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path, monkeypatch):
    small_world(monkeypatch)

    def stop(*args):
        save(*args)
        raise KeyboardInterrupt

    save = training.store
    monkeypatch.setattr(training, "store", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", tmp_path / "w", TINY, "cpu", every=2)
    monkeypatch.setattr(training, "store", save)
    other = Recipe(**asdict(TINY) | {"lr": 1e-4})
    fresh = weights(train(tmp_path / "fresh", tmp_path / "elsewhere", other, "cpu"))
    assert same(weights(train(tmp_path / "out", tmp_path / "w", other, "cpu")), fresh)


@pytest.mark.parametrize("steps", [0, -1])
def test_a_training_of_no_steps_is_refused_and_writes_nothing(tmp_path, monkeypatch, steps, capsys):
    from lens.__main__ import main

    small_world(monkeypatch)
    monkeypatch.setattr(training, "Batches", lambda *_: pytest.fail("it trained"))
    arguments = ["mini", "train", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "w"), "--steps", str(steps)]
    try:
        assert main(arguments) in (1, 2)
    except SystemExit as end:
        assert end.code == 2
    assert not (tmp_path / "out").exists() and "steps" in capsys.readouterr().err


def test_rows_hold_whole_documents_and_labels_ignore_the_padding(mini, monkeypatch):
    small_world(monkeypatch)
    recipe = Recipe(**asdict(TINY) | {"row": 64})
    batches, end = Batches(mini.tokenizer, recipe), mini.tokenizer.eos_token_id
    encoded = [tuple(ids[:63]) for ids in mini.tokenizer(training.documents(0))["input_ids"]]
    found = []
    for row in batches._pack(0):
        assert len(row) <= 64 and row[-1] == end
        document: list[int] = []
        for token in row:
            if token == end:
                found.append(tuple(document))
                document = []
            else:
                document.append(token)
    assert sorted(found) == sorted(encoded), "every document once, from its first token, none split over two rows"
    ids, labels = batches[0]
    assert ids.shape == labels.shape == (4, 64)
    for row, label in zip(ids, labels):
        n = int((label != IGNORE).sum())
        assert torch.equal(row[:n], label[:n]) and row[n - 1] == end
        assert bool((label[n:] == IGNORE).all()) and bool((row[n:] == 0).all())
    assert int((labels == IGNORE).sum()) > 0


def test_a_batch_depends_on_its_step_alone(mini, monkeypatch):
    """A resumed run asks for step 9 first; it gets what an unbroken run gets ninth."""
    small_world(monkeypatch)
    in_order = Batches(mini.tokenizer, TINY)
    walked = [in_order[step] for step in range(30)]
    for step in (29, 9, 0, 17):
        fresh = Batches(mini.tokenizer, TINY)[step]
        assert all(torch.equal(a, b) for a, b in zip(fresh, walked[step]))
        assert all(torch.equal(a, b) for a, b in zip(in_order[step], walked[step]))
    assert len(in_order.starts) > 2, "the thirty steps cross two borders of epochs"


def test_the_learning_rate_rises_then_falls_to_nothing():
    recipe = Recipe()
    rates = [schedule(step, recipe) for step in range(recipe.steps)]
    top = rates.index(max(rates))
    assert max(rates) == 1.0 and abs(top - recipe.warmup) <= 1
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 1e-3 and rates[0] > 0
