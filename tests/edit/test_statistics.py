"""The second moment of FF2's inputs: taken once, streamed, kept on disk, and never trusted when damaged."""

from __future__ import annotations

import re
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

import lens
from lens import Request, data, edit
from lens.__main__ import main
from lens.edit import statistics
from lens.data.paths import table
from lens.edit.statistics import Statistics
from lens.evaluate.editors import resolve
from lens.model.families import FAMILIES
from lens.model.watching import watch

TEXTS = ["The cat is on the mat.", "Another one", "", "the thirteenth other thing is one of the others", "on"] * 3
FLOAT32 = 2**-24  # C is rounded to it, once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "statistics"


@pytest.fixture
def unknown(monkeypatch):
    """After this, whoever runs a model to take statistics fails."""

    def forget():
        def fail(*_):
            raise AssertionError("the model was run again")

        monkeypatch.setattr(statistics, "measure", fail)

    return forget


def dense(lm, layer, pieces):
    """C in float64 from one run per text, every FF2 input at once."""
    rows = []
    for ids in pieces:
        with torch.no_grad(), watch({0: lm.site(layer, "ff2")}) as seen:
            lm.model(input_ids=torch.tensor([ids]), use_cache=False)
        rows.append(seen[0][0].reshape(len(ids), -1))
    k = torch.cat(rows)
    return k.T @ k / len(k)


def ids_of(lm, texts):
    return [ids for text in texts if (ids := lm.tokenizer(text)["input_ids"])]


@pytest.mark.parametrize("kind", FAMILIES)
def test_streamed_statistics_are_the_dense_second_moment_without_padding(tiny, kind, error):
    lm = tiny(kind)
    known = edit.covariance(lm, [0, -1], TEXTS)
    assert sorted(known) == [0, 2]
    for layer, s in known.items():
        assert s.layer == layer and s.C.dtype == torch.float32 and s.C.shape == (40, 40)
        assert s.count == sum(map(len, ids_of(lm, TEXTS)))
        assert error(s.C, dense(lm, layer, ids_of(lm, TEXTS))) <= FLOAT32


@pytest.mark.parametrize("tokens", [1, 50, 10**6])
def test_they_do_not_depend_on_how_the_text_is_cut_into_batches(tiny, tokens, monkeypatch, error):
    lm = tiny("llama")
    monkeypatch.setattr(statistics, "TOKENS", tokens)
    assert error(edit.covariance(lm, 1, TEXTS)[1].C, dense(lm, 1, ids_of(lm, TEXTS))) <= FLOAT32


def test_exactly_the_first_count_tokens_are_read_of_a_text_without_end(tiny, error):
    lm = tiny("gpt2")
    first, second = ids_of(lm, TEXTS)[:2]
    count = len(first) + 4
    s = edit.covariance(lm, 0, cycle(TEXTS), count=count)[0]
    assert s.count == count and error(s.C, dense(lm, 0, [first, second[:4]])) <= FLOAT32


def test_a_layer_by_numpy_s_number_is_kept_like_any_other(tiny):
    assert type(edit.covariance(tiny("gpt2"), [np.int64(1)], TEXTS)[1].layer) is int


def test_a_text_longer_than_the_model_reads_is_read_in_pieces(tiny, error):
    lm = tiny("gpt2")
    ids = lm.tokenizer("the cat is on the mat and then some more of it " * 5)["input_ids"]
    assert len(ids) > 128
    got = edit.covariance(lm, 1, ["the cat is on the mat and then some more of it " * 5])[1]
    assert error(got.C, dense(lm, 1, [ids[i : i + 64] for i in range(0, len(ids), 64)])) <= FLOAT32


def test_one_pass_serves_all_layers_and_ends_at_the_highest(tiny):
    lm, runs = tiny("opt"), [0, 0, 0]
    hooks = [
        module.register_forward_hook(lambda *_, i=i: runs.__setitem__(i, runs[i] + 1))
        for i, module in enumerate(lm.layers)
    ]
    edit.covariance(lm, [0, 1], TEXTS)
    assert runs == [1, 1, 0]
    edit.covariance(lm, [0, 1], TEXTS)
    assert runs == [1, 1, 0], "known statistics were taken again"
    [hook.remove() for hook in hooks]


def test_the_model_is_as_it_was(tiny, state):
    lm = tiny("gpt2")
    lm.model.train()
    before = state(lm.model)
    edit.covariance(lm, 0, TEXTS)
    assert state(lm.model) == before
    hook = lm.layers[0].register_forward_hook(lambda *_: 1 / 0)
    before = state(lm.model)
    with pytest.raises(ZeroDivisionError):
        edit.covariance(lm, 2, TEXTS)
    assert state(lm.model) == before
    hook.remove()


# --- what they are for


def test_solve_is_k_times_the_inverse_in_float64(tiny, error):
    s = edit.covariance(tiny("gpt2"), 1, TEXTS)[1]
    k = torch.randn(3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = s.solve(k)
    assert got.dtype == torch.float64
    assert error(got @ s.C.double(), k) < 1e-9
    assert error(got, np.linalg.solve(s.C.double().numpy(), k.numpy().T).T) < 1e-6  # each to its condition number


def test_c_is_factored_once(tiny, monkeypatch):
    lm, calls, real = tiny("gpt2"), [], torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda *a: calls.append(1) or real(*a))
    for _ in range(3):
        edit.covariance(lm, 1, TEXTS)[1].solve(torch.ones(2, 40))
    assert len(calls) == 1


def test_neurons_that_never_fire_get_the_stated_ridge(error):
    k = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1, 1, 1, 0, 0])
    s = Statistics(0, (k.T @ k / 500).triu() + (k.T @ k / 500).triu(1).T, 500, "")
    ridge = 2**-23 * s.C.double().trace()
    assert error(s.cholesky @ s.cholesky.T, s.C.double() + ridge * torch.eye(6, dtype=torch.float64)) < 1e-12


def test_too_few_tokens_for_the_width_are_refused_where_c_would_be_inverted(tiny, refuses):
    s = edit.covariance(tiny("gpt2"), 0, TEXTS, count=39)[0]
    with refuses(ValueError, "39 tokens, too few for FF2's 40 inputs"):
        s.solve(torch.ones(1, 40))


# --- kept and found again


def fresh(tiny, **changes):
    """The same model in a new object: memory knows nothing of it."""
    return tiny("gpt2", **changes)


def test_they_are_found_on_disk_by_another_session(tiny, cache, unknown):
    want = edit.covariance(fresh(tiny), [0, 2], TEXTS)
    assert len(list(cache.iterdir())) == 2
    unknown()
    got = edit.covariance(fresh(tiny), [0, 2], TEXTS)
    for layer in want:
        assert torch.equal(got[layer].C, want[layer].C) and got[layer].count == want[layer].count


def test_model_layer_corpus_and_count_each_make_a_file_of_their_own(tiny, cache):
    lm = fresh(tiny)
    edit.covariance(lm, 0, TEXTS)
    for i, another in enumerate(
        [
            lambda: edit.covariance(fresh(tiny, seed=1), 0, TEXTS),
            lambda: edit.covariance(lm, 1, TEXTS),
            lambda: edit.covariance(lm, 0, [*TEXTS[1:], TEXTS[0]]),
            lambda: edit.covariance(lm, 0, TEXTS, count=41),
        ]
    ):
        another()
        assert len(list(cache.iterdir())) == i + 2
    edit.covariance(lm, 0, iter([*TEXTS, ""]), count=10**6)  # the same tokens
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "another"])
def test_a_damaged_file_is_made_again(tiny, cache, damage):
    want = edit.covariance(fresh(tiny), 0, TEXTS)[0].C
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    if damage == "another":
        edit.covariance(fresh(tiny), 1, TEXTS)
        (other,) = set(cache.iterdir()) - {file}
        other.replace(file)
    else:
        half = len(whole) - 100
        flipped = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
        file.write_bytes({"cut": whole[:half], "flip": flipped, "empty": b""}[damage])
    assert torch.equal(edit.covariance(fresh(tiny), 0, TEXTS)[0].C, want)
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_result(tiny, cache):
    cache.parent.write_text("in the way")
    with pytest.warns(UserWarning, match="set LENS_CACHE"):
        assert edit.covariance(fresh(tiny), 0, TEXTS)[0].count > 0


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert statistics.cache() == tmp_path / "lens-book" / "statistics"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert statistics.cache().parts[-3:] == (".cache", "lens-book", "statistics")


def test_a_user_without_a_home_folder_is_warned_and_works_on(tiny, monkeypatch):
    """As in a container that runs under a number nobody has given a name."""
    for name in ("LENS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", dict().__getitem__)  # KeyError, whoever it is
    with pytest.raises(RuntimeError):
        Path.home()
    with pytest.warns(UserWarning, match="no home folder.: set LENS_CACHE"):
        assert edit.covariance(fresh(tiny), 0, TEXTS)[0].count > 0
    monkeypatch.setenv("LENS_CACHE", "~/here")
    with pytest.warns(UserWarning, match="no home folder.: set LENS_CACHE"):
        assert edit.covariance(fresh(tiny), 0, TEXTS)[0].count > 0


def test_the_built_in_models_defaults_are_shipped(mini, unknown, cache):
    unknown()
    layers = {edit.settings(mini, "rome")["layer"], *edit.settings(mini, "memit")["layers"]}
    known = edit.covariance(mini, layers)
    assert not cache.exists()
    for s in known.values():
        assert s.count == statistics.COUNT and s.C.shape == (768, 768) and torch.equal(s.C, s.C.T)
        assert torch.linalg.eigvalsh(s.C.double())[0] > 0
    files = list((data.paths.root() / "statistics").iterdir())
    assert len(files) == len(layers) and max(f.stat().st_size for f in files) < 1_500_000


@pytest.mark.slow
def test_what_is_shipped_is_what_the_model_computes(mini, error):
    layer = edit.settings(mini, "rome")["layer"]
    shipped = edit.covariance(mini, layer)[layer]
    (again,) = statistics.measure(mini, [layer], *statistics._read(mini, None, statistics.COUNT))
    assert again.corpus == shipped.corpus and error(again.C, shipped.C) < 1e-5


# --- whose text


def test_a_model_that_read_other_text_is_told_once_which_text_is_taken(tiny, mini, recwarn):
    lm, count = tiny("gpt2"), 200
    edit.covariance(lm, 0, TEXTS)
    edit.covariance(mini, 0, count=900)
    assert not recwarn
    for layer in (0, 1, 0):
        edit.covariance(lm, layer, count=count)
    (warning,) = recwarn
    assert re.match("The statistics of .* are those of the toy prose .* texts=, or --texts FILE", str(warning.message))


@pytest.mark.parametrize("editor", ["rome", "memit", "alphaedit"])
def test_an_editor_takes_the_readers_text(tiny, refuses, monkeypatch, recwarn, editor):
    monkeypatch.setitem(table("editors.json")[editor]["gpt2-xl"], "prefixes", [(2, 4)])  # tiny models read 64 tokens
    lm, request = tiny("gpt2"), Request("The {} is on the", "cat", "mat")
    layers = {"layer": 1} if editor == "rome" else {"layers": [0, 1]}
    layers |= {"threshold": 1e9} if editor == "alphaedit" else {}
    run, known = getattr(edit, editor), edit.covariance(lm, [0, 1], TEXTS)
    want = run(lm, request, steps=2, statistics=known, **layers)
    named, chosen, make = resolve(lm, editor, {"texts": iter(TEXTS), "steps": 2} | layers)
    for got in (run(lm, request, steps=2, texts=iter(TEXTS), **layers), make(request), make(request)):
        assert got.settings["corpus"] == known[1].corpus and all(map(_same, got.changes, want.changes))
    assert named == editor and len(chosen["texts"]) == 64 and not recwarn  # a digest, not the text
    with refuses(ValueError, "give one of the two"):
        run(lm, request, texts=TEXTS, statistics=known, **layers)


def _same(a, b) -> bool:
    return torch.equal(a.x, b.x) and torch.equal(a.delta, b.delta)


@pytest.mark.slow
def test_the_commands_take_a_file_of_text(tmp_path, capsys):
    file, rows = tmp_path / "mine.txt", tmp_path / "rows.jsonl"
    file.write_text("\n\n".join(data.passages()), encoding="utf-8-sig")
    assert main(["edit", "statistics", "--texts", str(file), "--layers", "4", "--device", "cpu"]) == 0
    assert main(["edit", "statistics", "--texts", str(file), "--layers", "4", "--out", str(tmp_path / "out")]) == 0
    want = edit.covariance(lens.load("mini", device="cpu"), 4, data.passages())[4]
    assert [f.name for f in (tmp_path / "out").iterdir()] == [f.name for f in (tmp_path / "cache/statistics").iterdir()]
    assert capsys.readouterr().out.count(f"over {want.count} tokens") == 2
    short = ["--limit", "1", "--no-entropy", "--no-perplexity", "--set", "steps=1", "--layer", "4", "--device", "cpu"]
    assert main(["counterfact", "--editor", "rome", "--texts", str(file), "--out", str(rows), *short]) == 0
    header = lens.evaluate.Report.read(rows).header
    assert len(header["settings"]["texts"]) == 64
    assert main(["counterfact", "--editor", "shift", "--texts", str(file), *short]) == 1
    assert "has no setting 'texts'" in capsys.readouterr().err


# --- refused


def test_wrong_questions_are_refused_in_one_sentence(tiny, refuses):
    lm = tiny("gpt2")
    with refuses(IndexError, "no layer 7"):
        edit.covariance(lm, [0, 7], TEXTS)
    for texts in ([], ["", ""]):
        with refuses(ValueError, "have no tokens"):
            edit.covariance(lm, 0, texts)
    with refuses(TypeError, "one string"):
        edit.covariance(lm, 0, "a text")
    with refuses(TypeError, "got 3: give strings"):
        edit.covariance(lm, 0, [3])
    with refuses(ValueError, "count is 0"):
        edit.covariance(lm, 0, TEXTS, count=0)


@pytest.mark.parametrize("editor", ["rome", "memit", "alphaedit"])
def test_statistics_of_another_layer_or_model_are_refused(tiny, refuses, editor):
    lm, other = tiny("gpt2"), tiny("gpt2", seed=1)
    other = lens.LanguageModel(other.model, other.tokenizer, "another")
    request, own = Request("The {} is on the", "cat", "mat"), edit.covariance(lm, [0, 1], TEXTS)
    where = {"layer": 0} if editor == "rome" else {"layers": [0]}
    for wrong in ({0: own[1]}, edit.covariance(other, 0, TEXTS)):
        with refuses(ValueError, "The statistics given for layer 0 are those of layer"):
            getattr(edit, editor)(lm, request, statistics=wrong, **where)


def test_statistics_that_were_written_into_are_taken_again(tiny):
    lm = tiny("gpt2")
    taken = edit.covariance(lm, 0, TEXTS)[0]
    kept = taken.C.clone()
    assert edit.covariance(lm, 0, TEXTS)[0] is taken
    taken.C.add_(1.0)
    assert torch.equal(edit.covariance(lm, 0, TEXTS)[0].C, kept)


def test_an_edited_models_statistics_are_not_kept_as_the_models(tiny, refuses):
    lm = tiny("gpt2")
    with edit.shift(lm, Request("The {} is on the", "cat", "mat"), layer=0, eta=0.1):
        with refuses(RuntimeError, "changed now .Edit.*undo that first"):
            edit.covariance(lm, 0, TEXTS)
    edit.covariance(lm, 0, TEXTS)


# --- the command


def test_the_command_takes_keeps_and_names_them(tiny, cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lens.model.loading, "load", lambda *_, **__: fresh(tiny))
    assert main(["edit", "statistics", "--model", "a model", "--layers", "0", "1", "--count", "60"]) == 0
    assert capsys.readouterr().out.count("over 60 tokens.") == 2 and len(list(cache.iterdir())) == 2
    assert (
        main(["edit", "statistics", "--model", "a model", "--layers", "2", "--count", "60", "--out", str(tmp_path)])
        == 0
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 and len(list(cache.iterdir())) == 2
    assert main(["edit", "statistics", "--model", "a model", "--layers", "9"]) == 1
    assert "There is no layer 9" in capsys.readouterr().err
