"""``python -m lens mask train`` and ``evaluate``, as one calls them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch

import lens
from lens.__main__ import main
from lens.data import manifest, paths
from lens.mask import load, save
from lens.mask.training import train as really_train

FAST = ["steps=2", "check=1", "targets=4", "controls=4", "texts=1", "tokens=12"]
SETTINGS = [word for setting in FAST for word in ("--set", setting)]
EVALUATE = ["mask", "evaluate", "--model", "mini"]  # what a file names is opened only where it is built in

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tiny):
    """What every command opens here, under whatever name: a tiny model that reads whole paragraphs letter by letter."""
    return tiny("gpt2", torch.float32, n_positions=1024)


@pytest.fixture(autouse=True)
def small(monkeypatch, model):
    """Every TargetKG with a few of its prompts and texts, and the tiny model in place of mini."""
    whole = lens.data.knowledge

    def few(target, *, model=None):
        kg = whole(target, model=model)
        names = ("target", "unseen", "control", "control_held_out", "text", "text_held_out")
        return replace(kg, **{name: getattr(kg, name)[:6] for name in names})

    monkeypatch.setattr(lens.data, "knowledge", few)
    monkeypatch.setattr("lens.model.loading.load", lambda name, device=None: model)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder that may be written to."""
    root = tmp_path / "data"
    root.mkdir()
    shutil.copytree(paths.world(), root / "world")
    shutil.copy(paths.root() / "masks.json", root)
    monkeypatch.setattr(paths, "root", lambda: root)
    manifest.write()
    return root


def train(*arguments) -> int:
    return main(["mask", "train", *map(str, arguments), *SETTINGS])


def bits(path) -> dict:
    return load(path).bits


def test_train_writes_the_subnetwork_of_the_same_call_and_leaves_nothing_else(capsys, tmp_path, model):
    out = tmp_path / "new" / "b.safetensors"
    assert train("--target", "building", "--seed", 3, "--out", out) == 0
    printed, bar = capsys.readouterr()
    assert printed.startswith(f"{out}: suppress ") and printed.count("\n") == 1 and "2/2" in bar
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    kg = lens.data.knowledge("building")
    config = lens.mask.config_for(model, seed=3, steps=2, check=1, targets=4, controls=4, texts=1, tokens=12)
    found = load(out, model)
    assert found.config == config and found.about["target"] == "building"
    assert found.bits == lens.mask.train(model, kg.target, kg.control, kg.text, config, progress=False).bits


def test_what_is_done_is_skipped_unless_again_and_a_damaged_file_is_made_anew(capsys, tmp_path):
    out = tmp_path / "b.safetensors"
    train("--out", out)
    first, time = bits(out), os.stat(out).st_mtime_ns
    capsys.readouterr()
    assert train("--out", out) == 0 and os.stat(out).st_mtime_ns == time
    assert capsys.readouterr().out == f"{out} is there already: --again trains it anew.\n"
    assert train("--out", out, "--again") == 0 and os.stat(out).st_mtime_ns > time and bits(out) == first
    out.write_bytes(out.read_bytes()[:200])
    assert train("--out", out) == 0 and bits(out) == first
    capsys.readouterr()
    assert train("--out", out, "--set", "lr=0.1") == 1  # nothing is overwritten by other settings
    assert "other settings" in capsys.readouterr().err and bits(out) == first
    assert train("--out", out, "--target", "fruit") == 1
    assert "is of another target ('building', and now it is 'fruit')" in capsys.readouterr().err and bits(out) == first


def test_several_targets_seeds_and_neurons_go_to_the_data_folder_under_their_names(data):
    assert train("--target", "building", "sun", "--seed", 0, 2, "--granularity", "neuron") == 0
    names = [f"{target}-neuron-{seed}.safetensors" for target in ("building", "sun") for seed in (0, 2)]
    assert sorted(p.name for p in (data / "runs" / "mini").iterdir()) == sorted(names)
    assert lens.mask.shipped("sun", seed=2, granularity="neuron").config.seed == 2
    listed = json.loads((data / manifest.NAME).read_text())
    assert {f"runs/mini/{name}" for name in names} <= set(listed) and manifest.verify("runs") == 4


def test_all_is_every_built_in_target(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(lens.mask, "train", lambda *a, **k: done.append(k["checkpoint"].name) or really_train(*a, **k))
    assert train("--target", "all", "--out", tmp_path, "--set", "steps=1") == 0
    assert done == [f".{name}-weight-0.safetensors.checkpoint" for name in lens.data.target_kgs()]
    assert len(list(tmp_path.iterdir())) == 10


@pytest.mark.parametrize("own", [True, False])
def test_after_ctrl_c_the_same_command_goes_on_and_ends_in_the_same_bits(capsys, monkeypatch, tmp_path, own):
    out = tmp_path / "b.safetensors"
    checkpoint = tmp_path / "kept" / "c" if own else tmp_path / ".b.safetensors.checkpoint"
    arguments = ["--out", out, *(["--checkpoint", checkpoint] if own else [])]
    begun = []

    def stop(history):
        begun.append(len(history))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lens.mask, "train", lambda *a, **k: really_train(*a, **k, watch=stop))
        assert train(*arguments) == 130
    assert capsys.readouterr().err.endswith(f"lens: interrupted; the same command goes on with {out}.\n")
    assert begun == [1] and checkpoint.is_file() and not out.exists()
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(lens.mask, "train", lambda *a, **k: really_train(*a, **k, watch=lambda h: seen.append(len(h))))
        assert train(*arguments) == 0
    assert seen == [2] and not checkpoint.exists()  # only the second step was still to do
    assert train("--out", tmp_path / "whole.safetensors") == 0
    assert bits(out) == bits(tmp_path / "whole.safetensors")


def test_evaluate_prints_the_table_and_writes_every_number(capsys, tmp_path, model):
    files = [tmp_path / f"{target}.safetensors" for target in ("building", "sun")]
    for file in files:
        train("--target", file.stem, "--out", file)
    capsys.readouterr()
    for suffix in (".json", ".csv"):
        out = tmp_path / f"numbers{suffix}"
        assert main([*EVALUATE, *map(str, files), "--random", "1", "--alone", "--out", str(out)]) == 0
        printed = capsys.readouterr().out
        results = [
            lens.evaluate.knowledge(model, lens.data.knowledge(f.stem), load(f), random=1, alone=True, progress=False)
            for f in files
        ]
        assert printed == "".join(f"{file}\n\n{result}\n\n" for file, result in zip(files, results))
        wanted = [{"file": f.name} | row for f, result in zip(files, results) for row in result.rows()]
        text = out.read_text(encoding="utf-8")
        if suffix == ".json":
            assert json.loads(text)["rows"] == wanted and json.loads(text)["fingerprint"] == model.fingerprint
        else:
            head, body = text.split("\nfile,", 1)
            rows = list(csv.DictReader(io.StringIO("file," + body)))
            assert head.startswith("# ") and model.fingerprint in head
            assert [{k: str(v) for k, v in row.items()} for row in wanted] == rows


def test_a_model_that_only_the_file_names_is_not_opened(capsys, tmp_path):
    train("--out", tmp_path / "b.safetensors")
    capsys.readouterr()
    assert main(["mask", "evaluate", str(tmp_path / "b.safetensors")]) == 1
    assert "names the model 'tiny gpt2': say with --model" in capsys.readouterr().err


def test_evaluate_asks_for_the_target_where_the_file_does_not_say_it(capsys, tmp_path):
    file = tmp_path / "b.safetensors"
    train("--out", file)
    save(load(file).with_bits(load(file).bits, "without its origin"), file)
    capsys.readouterr()
    assert main([*EVALUATE, str(file)]) == 1
    assert "give --target" in capsys.readouterr().err
    assert main([*EVALUATE, str(file), "--target", "building", "--random", "0"]) == 0
    assert capsys.readouterr().out.startswith(f"{file}\n\n| building, tiny gpt2")


def test_a_file_of_facts_is_a_target(tmp_path, model):
    facts = [
        {"head": "hut", "tail": "building", "best_gpt2_input": "A hut is a kind of", "best_gpt2_label": "building"}
    ]
    facts += [{"head": "inn", "tail": "house", "best_gpt2_input": "An inn is a", "best_gpt2_label": "house"}]
    for entry in facts:
        entry["best_xl_input"], entry["best_xl_label"] = "Some " + entry["best_gpt2_input"], entry["best_gpt2_label"]
    file = tmp_path / "places.json"
    file.write_text(json.dumps(facts), encoding="utf-8")
    assert train("--target", file, "--wording", "xl", "--out", tmp_path) == 0
    found = load(tmp_path / "places-weight-0.safetensors", model)
    assert found.about["target"] == str(file) and found.about["wording"] == "xl"
    assert main([*EVALUATE, str(tmp_path / "places-weight-0.safetensors"), "--random", "0"]) == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--target", "castle"], "no TargetKG 'castle'"),
        (["train", "--set", "luck=1"], "no setting 'luck'"),
        (["train", "--set", "lr"], "KEY=VALUE"),
        (["train", "--set", "steps=many"], "steps"),
        (["train", "--set", "seed=3"], "say it with --seed"),
        (["train", "--target", "building", "cottage"], "no TargetKG 'cottage'"),
        (["train", "--granularity", "layer"], "'layer'"),
        (["train", "--model", "gpt2"], "Say with --out where the subnetwork for 'gpt2'"),
        (["train", "--seed", "0", "1", "--checkpoint", "c"], "these are 2 runs"),
        (["evaluate", "nothing.safetensors"], "no subnetwork file nothing.safetensors"),
        (["evaluate", "nothing.safetensors", "--out", "x.txt"], "ends in .csv or .json"),
        (["evaluate", "nothing.safetensors", "--random", "-1"], "give 0 or more"),
    ],
)
def test_what_cannot_be_done_exits_1_with_one_sentence(capsys, arguments, words):
    assert main(["mask", *arguments]) == 1
    out, err = capsys.readouterr()
    assert not out and err.startswith("lens: ") and words in err and err.count("\n") == 1 and err.endswith(".\n")


def test_a_subnetwork_of_another_model_is_neither_measured_nor_overwritten(capsys, monkeypatch, tmp_path, tiny):
    file = tmp_path / "b.safetensors"
    train("--out", file)
    before = file.read_bytes()
    monkeypatch.setattr("lens.model.loading.load", lambda name, device=None: tiny("gpt2", torch.float32))
    capsys.readouterr()
    for arguments in ([*EVALUATE, str(file)], ["mask", "train", "--out", str(file), *SETTINGS]):
        assert main(arguments) == 1
        assert "found in another model" in capsys.readouterr().err
    assert file.read_bytes() == before
