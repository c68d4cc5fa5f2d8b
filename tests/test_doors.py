"""Does every door, a public function or a command, say in a sentence what it wants, before any work?

A new public function is tried by itself: its arguments are known by their names (``GIVEN``), and so is what is malformed
(``MALFORMED``).  A trial expects one sentence that lens itself wrote, the model and the random state as they were.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import shutil
import signal
import traceback
from math import inf, nan
from pathlib import Path

import pytest
import torch

import lens
from lens.__main__ import main, parser
from lens.commands import arguments

ROOT = Path(lens.__file__).parent
ROOMS = ("", ".edit", ".mask", ".evaluate", ".relearn", ".data", ".overlap", ".scale.sweep")
SECONDS = 10  # a whole model is opened in less, on a machine that does other things too

WHOLE = ["3", 1.5, -1, nan, [1], 2**70]
NUMBER = ["x", [1], nan, inf]
FILE = ["", "a\0b", "a\nb", "/proc/none/x", "/etc", 3]
LIST = [3, [3], [None]]
MALFORMED = {
    "layer": ["x", "7", 1.5, 99, -99, nan],
    "position": ["x", "7", 1.5, 99, -99, nan],
    "layers": [["x"], [99], [1.5], "7", 1.5],
    **dict.fromkeys(
        ("k", "steps", "count", "together", "batch", "every", "seeds", "random", "phrasings", "rank"), WHOLE
    ),
    **dict.fromkeys(("eta", "lr", "kl", "decay", "clamp", "stop", "lam", "share", "floor", "least"), NUMBER),
    "seed": ["x", 1.5, -1, 2**70, None],
    "device": ["banana", "cuda:9", "", 1.5],
    "dtype": ["banana", 3, "int8"],
    **dict.fromkeys(("path", "out", "checkpoint", "weights"), FILE),
    "site": ["ff9", 3, ""],
    "sites": [["ff9"], "ff1", 3, [3]],
    "prompt": ["", 3.5, None, b"bytes", [1.5], [10**9], [], [-1]],
    "target": ["", 3.5, b"bytes", [1.5], [10**9], [-1]],
    "token": ["", 3.5, b"x", [10**9]],
    "subject": ["", 3, "absent words", None],
    **dict.fromkeys(("editor", "granularity", "method", "readout", "split"), ["nope", 3, [3]]),
    "name": ["no such thing", 3, ""],
    "records": [3, "text", [3], [None], [{}]],
    **dict.fromkeys(("texts", "prompts", "questions", "control_kg", "control_lm", "train"), LIST),
    "requests": [3, [3], [], None],
    "kept": ["", "a/b", "../x", "a\nb", 3],
    "folder": ["", "a\0b", "a\nb", "/proc/none/x", "/dev/null", 3],
    "jobs": LIST,
    "retries": ["3", 1.5, -1, nan, [1]],
    "scheduler": ["", "nowhere", "tcp://10.0.0.1:65536", 3],
    "resources": [3, {"GPU": nan}, {"GPU": "x"}, {"GPU": 0}],
    "editors": [3, ["nope"]],
    **dict.fromkeys(("shards", "limit"), WHOLE),
    "table": [3, "x", [3], []],
    "sizes": [3, ["x"], [nan], []],
    "neighbors": [1.5, "3", -1],
    "request": [3, "text", None, [3], []],
    "vectors": ["x", torch.zeros(3), torch.zeros(2, 7), 3],
    **dict.fromkeys(("kg", "trace", "fact", "config", "subnetwork", "removed", "overlap"), [3, "x"]),
    "subnetworks": [3, [3], []],
    "at": [["x"], [0], [1.5], 3, []],
    "shares": [["x"], [nan], 3],
    "triplets": [3, [3], ["ab"]],
}
MEANT = [  # what only looks malformed at this door
    ("lens.mask.Config", "texts", 3), ("lens.mask.Config", "layers", [99]), ("lens.mask.Config", "sites", ["ff9"]),
    ("lens.scale.sweep.mask_jobs", "seeds", [1]),
]  # fmt: skip
NOT_TRIED = {
    "lens.claim", "lens.edit.branches", "lens.edit.save", "lens.evaluate.best", "lens.overlap.energy",
    "lens.scale.sweep.local", "lens.scale.sweep.opened", "lens.scale.sweep.reports",
}  # fmt: skip
"""Doors for which no argument is ready here, or that answer only when they are entered."""


class Slow(Exception):
    pass


@pytest.fixture(scope="module")
def lm():
    return lens.load("mini")


@pytest.fixture(scope="module")
def given(lm, tmp_path_factory):
    request = lens.Request("The capital of France is", "France", "Rome", "Paris")
    kg = lens.data.knowledge("building")
    task = lens.relearn.questions(kg)
    shipped = [lens.mask.shipped("building", seed) for seed in (0, 1)]
    return {
        "lm": lm, "prompt": request.prompt, "target": request.target_new, "request": request, "subject": request.subject,
        "trace": lens.capture(lm, request.prompt, request.target_new), "vectors": lm.unembedding[:2], "token": "Paris",
        "records": lens.data.records("test")[:2], "editor": "shift", "kg": kg, "share": 0.5, "questions": task.test,
        "subnetwork": shipped[0], "subnetworks": shipped, "train": task.train, "test": task.test, "prompts": kg.target[:3],
        "targets": [prompt.target for prompt in kg.target[:3]], "path": tmp_path_factory.mktemp("doors") / "x.safetensors",
        "control_kg": kg.control[:8], "control_lm": kg.text[:4], "triplets": [("a", "hypernym", "b")], "head": "dog",
        "layers": [3], "fact": lens.data.facts()[0], "name": "building", "k": 1, "requests": request, "x": "x", "y": "y",
        "jobs": [lens.sweep.Job("a", "statistics:fmean", {"data": [1]})], "folder": tmp_path_factory.mktemp("sweep"),
        "table": [{"x": 1, "y": 2}], "overlap": lens.overlap.compare(shipped),
    }  # fmt: skip


def doors():
    """The public functions of the rooms, by the name that a reader types."""
    for room in ROOMS:
        module = importlib.import_module(f"lens{room}")
        for name in module.__all__:
            if inspect.isfunction(getattr(module, name)):
                yield f"{module.__name__}.{name}", getattr(module, name)
    yield "lens.mask.Config", lens.mask.Config
    for name in lens.widgets.__all__:
        if name.endswith("Explorer") and name != "Explorer":
            yield f"lens.widgets.{name}", getattr(lens.widgets, name)
    for name in ("venn", "upset", "iou_heatmap"):
        yield f"lens.plot.{name}", getattr(lens.plot, name)


DOORS = {name: function for name, function in doors() if name not in NOT_TRIED}


def said(call, kinds: tuple = ()) -> str | None:
    """None for a sentence that lens wrote, else what is wrong with what was said."""
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Slow()))
    signal.alarm(SECONDS)
    try:
        call()
        return "accepted"
    except Slow:
        return f"worked for {SECONDS} s"
    except Exception as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        words = str(error)
        if not isinstance(error, (ValueError, TypeError, IndexError, OSError, *kinds)) or not where.is_relative_to(
            ROOT
        ):
            return f"{type(error).__name__} at {where.name}: {words[:100]}"
        return None if len(words) > 20 and words.endswith((".", ")")) else f"no sentence: {words[:100]}"
    finally:
        signal.alarm(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS)
def test_a_door_says_what_it_wants(name, lm, given, monkeypatch, record_property):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parameters = inspect.signature(DOORS[name]).parameters
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    own = {"lens.mask.train": {"target": given["prompts"]}, "lens.widgets.LensExplorer": {"prompts": given["prompt"]}}
    own = own.get(name, {})
    usual = {n: (own | given)[n] for n in needed if n in given}
    assert usual.keys() == {*needed} - {"name"} or usual.keys() == {*needed}, "say in GIVEN what this door usually gets"
    state, before, wrong, tried = torch.get_rng_state(), lm.weights.current_fingerprint, {}, 0
    for argument in parameters:
        for value in MALFORMED.get(argument, []):
            if [name, argument, value] in map(list, MEANT):
                continue
            tried += 1
            what = said(lambda: DOORS[name](**usual | {argument: value}))
            if not torch.equal(torch.get_rng_state(), state):
                what = f"{what or 'refused'}, and the random state has changed"
                torch.set_rng_state(state)
            if what:
                wrong[f"{argument}={str(value)[:30]!r}"] = what
    record_property("tried", tried)
    record_property("refused", tried - len(wrong))
    assert not wrong
    assert lm.weights.current_fingerprint == before


def change(lm, layer, site, x, delta):
    parts = [None if shape is None else torch.ones(*shape) for shape in (x, delta)]
    return lens.edit.Edit("own", (), (lens.edit.edit.Change(layer, site, *parts),), {}, 0.0, lm)


def run_as_branch(lm, edit, rows=None):
    with lens.edit.branches(lm, [edit.changes], rows):
        lens.capture(lm, "The capital of France is", "Paris")


def shallow(folder):
    """mini's folder, whose configuration speaks of four layers where the weights have eight."""
    shutil.copytree(lens.data.paths.model("mini"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 4}))
    return lens.load(folder)


WRONG = {  # what was once accepted, and gave something else than was meant
    "bytes for ids": lambda lm, g: lens.capture(lm, b"abc", "Paris"),
    "prompts in three dimensions": lambda lm, g: lens.capture(lm, torch.zeros(2, 2, 2, dtype=torch.long), ["a", "b"]),
    "a text for prompts": lambda lm, g: lens.evaluate.score(lm, "abc", "def"),
    "another model's trace": lambda lm, g: lens.backward_lens(lm, g["other trace"]),
    "a branch at layer 99": lambda lm, g: run_as_branch(lm, change(lm, 99, "ff2", (1, 768), (1, 192))),
    "a branch at site ff9": lambda lm, g: run_as_branch(lm, change(lm, 3, "ff9", (1, 768), (1, 192))),
    "a branch that is too narrow": lambda lm, g: run_as_branch(lm, change(lm, 3, "ff2", (1, 5), (1, 192))),
    "a row of no edit": lambda lm, g: run_as_branch(lm, change(lm, 3, "ff2", (1, 768), (1, 192)), [7]),
    "a dense change that would be broadcast": lambda lm, g: change(lm, 3, "ff2", None, (1, 192)).apply(),
    "factors of two ranks": lambda lm, g: change(lm, 3, "ff2", (2, 768), (1, 192)).apply(),
    "a configuration of four layers": lambda lm, g: shallow(g["folder"] / "shallow"),
    "vectors that are NaN": lambda lm, g: lens.project(lm, torch.full((2, 192), nan)),
    "no layers to explore": lambda lm, g: lens.widgets.EditExplorer(lm, g["request"], layers=[]),
    "half a character in a name": lambda lm, g: lens.check.student("\ud800"),
    "half a character in a prompt": lambda lm, g: lens.capture(lm, "a \ud800 b", "Paris"),
    "half a character in a text to keep": lambda lm, g: lens.mask.train(
        lm, g["prompts"], g["control_kg"], [*g["control_lm"], "a \ud800"]
    ),
    "half a character in a triplet": lambda lm, g: lens.data.verbalize([("a\ud800", "hypernym", "b")]),
    "half a character in a file's name": lambda lm, g: lens.mask.save(g["subnetwork"], "a\ud800"),
    "half a character in a record": lambda lm, g: lens.evaluate.counterfact(lm, g["half"], "none"),
    "a device file for a result": lambda lm, g: lens.mask.save(g["subnetwork"], "/dev/null"),
    "an edited model to be masked": lambda lm, g: trained_while_edited(lm, g),
}


def trained_while_edited(lm, given):
    with lens.edit.shift(lm, given["request"]):
        lens.mask.train(lm, given["prompts"], given["control_kg"], given["control_lm"])


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_what_would_give_something_else_is_refused(what, lm, given, tmp_path):
    half = copy.deepcopy(given["records"])
    half[0]["requested_rewrite"]["subject"] += "\ud800"
    more = {"folder": tmp_path, "half": half}
    if "trace" in what:
        more["other trace"] = lens.capture(lens.load("mini-s"), "The capital of France is", "Paris")
    before = lm.weights.current_fingerprint
    found = said(lambda: WRONG[what](lm, given | more), kinds=(RuntimeError,) if "edited" in what else ())
    assert found is None
    assert lm.weights.current_fingerprint == before


def test_an_edit_of_no_steps_does_not_say_that_the_model_knows_better(lm, given):
    assert lens.edit.rome(lm, given["request"], steps=0).note == "The search has no steps, so nothing is changed."


def test_a_file_does_not_choose_which_foreign_model_is_opened(tmp_path, capsys):
    from dataclasses import replace

    path = lens.mask.save(replace(lens.mask.shipped("building"), model="somebody/model"), tmp_path / "m.safetensors")
    assert main(["mask", "evaluate", str(path)]) == 1
    assert "say with --model which one to open" in capsys.readouterr().err


COMMANDS = [
    "mask train --device banana", "mask train --device cuda:9", "mask train --device=", "counterfact --device banana",
    "sequential --device cuda:9", "tune --device banana", "relearn --out x.csv --device banana",
    "bench lens --device x", "edit statistics --device banana", "mend train --device banana",
    "mini train --device banana", "sweep masks --out f --device x", "counterfact --out /proc/none/x.jsonl",
    "counterfact --out /etc", "counterfact --out=", "counterfact --out /dev/null", "tune --out /proc/x.csv",
    "sequential --out /etc", "mask evaluate x --out /etc", "mask train --out /proc/none/x",
    "mask train --checkpoint /etc", "mask train --checkpoint /dev/null", "relearn --out /proc/none/x.csv",
    "bench kernels --out /etc", "bench memory --out /proc/x.csv", "mini train --out /proc/x --steps 1",
    "mend train --out /etc", "counterfact --limit -1", "counterfact --limit 0", "counterfact --together 0",
    "counterfact --seed -1", "counterfact --set layer=x", 'counterfact --set layer="7"', "counterfact --set eta=NaN",
    "counterfact --set eta=x", "counterfact --set nope=1", "counterfact --set eta", "counterfact --layer 99",
    "counterfact --editor nope", "counterfact --records nope", "counterfact --editor rome --set lr=1e400",
    "sequential --at 0", "sequential --at -3", "tune --floor -1", "tune --floor 2", "tune --layer 99", "tune --editor nope",
    "mask train --seed -1", "mask train --set lr=x", "mask train --set steps=0", "mask train --set nope=1",
    "mask train --granularity nope", "mask train --target nope", "mask evaluate nope.safetensors",
    "mask evaluate x --random -1", "mask evaluate x --out x.txt", "relearn --out x.txt", "relearn --out x.csv --lr NaN",
    "relearn --out x.csv --lr -1", "relearn --out x.csv --steps 0", "relearn --out x.csv --every -1",
    "relearn --out x.csv --batch 0", "relearn --out x.csv --seed -1", "relearn --out x.csv --method nope",
    "cost --gpu nope", "cost --utilization NaN", "cost --batch 0", "cost --tokens -1", "cost --devices 0",
    "cost --dtype nope", "cost --step nope", "cost --model nope", "sweep masks --out f --retries -1",
    "sweep masks --out f --workers 0", "sweep masks --out f --random -1", "sweep counterfact --out f --shards 0",
    "sweep counterfact --out f --limit -1", "model get nope", "model get smollm2-135m --file /etc",
    "edit statistics --count 0", "edit statistics --layers 99", "edit statistics --texts nope.txt",
    "mend train --steps -1", "mend train --seed -1", "mini train --steps -1", "counterfact --device xpu",
    "mini train --device mps", "mini train --steps 0", "counterfact --editor memit --set lam=NaN",
    "counterfact --editor memit --set lam=0", "counterfact --editor rome --set seed=x",
    "counterfact --editor rome --set statistics=nope", "counterfact --editor mend --set weights=nope --limit 2", "counterfact --editor alphaedit --set layers=[]",
    "sweep masks --out f --resource GPU=NaN", "sweep masks --out f --resource GPU=1e400",
    "sweep masks --out f --resource GPU=true", "sweep masks --out f --scheduler=",
    "sweep masks --out f --scheduler tcp://localhost:65536", "sweep masks --out f --scheduler tcp://localhost:-1",
    "sweep masks --out f --workers 100000000", "relearn --out x.csv --masks nope", "mask train --out x --checkpoint x",
    "bench all --out some.txt", "mini train --out some.txt", "mini train --out m --work some.txt",
    "edit statistics --out some.txt", "sweep masks --out some.txt", "mask train --out x --checkpoint some.txt",
    "relearn --out some.txt", "relearn --out some.txt/x.csv", "counterfact --out some.txt",
]  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_says_what_it_wants_before_any_work(line, capsys, monkeypatch, tmp_path, record_property):
    record_property("tried", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "some.txt").write_text("of the reader")
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Slow()))
    signal.alarm(SECONDS)
    try:
        status = main(line.split())
    except SystemExit as refused:  # argparse: no such option, or none of its choices
        status = refused.code
    finally:
        signal.alarm(0)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert status in (1, 2) and len(last) > 20 and "required" not in last
    assert status == 2 or (last.startswith("lens: ") and last.endswith((".", ")"))), last
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("some.txt", "of the reader")]
    record_property("refused", 1)


def test_the_device_of_workers_elsewhere_need_not_be_here():
    line = "sweep masks --out f --device cuda:9 --scheduler tcp://10.0.0.1:8786"
    assert arguments.read(parser().parse_args(line.split())) is None


def test_the_doors_are_tried_with_at_least_300_malformed_inputs():
    tried = len(COMMANDS) + len(WRONG)
    for function in DOORS.values():
        tried += sum(len(MALFORMED.get(argument, [])) for argument in inspect.signature(function).parameters)
    print(f"{tried} malformed inputs at {len(DOORS)} functions and {len(COMMANDS)} command lines")
    assert tried >= 300


def test_a_place_is_refused_by_its_folder_and_a_number_by_its_size(monkeypatch, tmp_path, refuses):
    from lens.given import number, result_file

    with refuses(ValueError, "cannot be a file's name here: there is no such user"):
        result_file("out", "~nosuchuser_x/f")
    with refuses(ValueError, "eta is 1000.*give a finite number"):
        number("eta", 10**400)
    monkeypatch.setattr(Path, "resolve", lambda self: Path("/devices_of_mine"))
    assert result_file("out", tmp_path / "x.json") == tmp_path / "x.json"
