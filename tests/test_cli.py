"""The command line and the public face: what each command answers, exits with, and costs to import."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lens
from lens.__main__ import main
from lens.data import manifest, paths
from lens.scale.bench import whole_lens
from lens.scale.bench import whole_lens as bench

ROOT = Path(lens.__file__).resolve().parents[1]


def python(*arguments: str) -> subprocess.CompletedProcess:
    """A fresh interpreter that sees this package."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    options = {"capture_output": True, "text": True, "errors": "replace", "timeout": 300, "env": environment}
    return subprocess.run([sys.executable, *arguments], **options)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A data folder that may be damaged."""
    root = tmp_path / "data"
    shutil.copytree(paths.world(), root / "world")
    monkeypatch.setattr(paths, "root", lambda: root)
    manifest.write()
    return root


def one_line_on_stderr(capsys) -> str:
    out, err = capsys.readouterr()
    assert not out and err.startswith("lens: ") and err.count("\n") == 1 and err.endswith(".\n"), (out, err)
    return err


def test_info_says_versions_device_and_data(capsys):
    import torch

    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in (f"lens {lens.__version__}", f"torch {torch.__version__}", "transformers", "GPU: ", str(paths.root())):
        assert word in out


def test_verify_of_whole_data_exits_0_and_says_how_many(copy, capsys):
    assert main(["data", "verify"]) == 0
    files = [p for p in copy.rglob("*") if p.is_file()]
    assert capsys.readouterr().out == f"All {len(files) - 1} data files are whole.\n"


NARROW = """
import argparse
from dataclasses import fields, replace
import lens
from lens.__main__ import main, parser

whole = lens.data.knowledge("fruit")
few = replace(whole, **{f.name: getattr(whole, f.name)[:2] for f in fields(whole) if f.name != "name"})
lens.data.knowledge = lambda *_, **__: few

def commands(parser, words=()):
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*words, name))

helps = [(*words, "--help") for words in commands(parser())]
quick = [
    ("info",),
    ("cost", "--model", "mini"),
    ("mask", "evaluate", str(lens.data.paths.root() / "runs/mini/fruit-weight-0.safetensors"), "--random", "0"),
    ("counterfact", "--records", "Qu\u00e9bec \u03bb"),
]
for words in helps + quick:
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    print(*map(ascii, words), "->", code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_code_page_costs_no_command_its_output(encoding, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = python("-c", NARROW)
    ends = [line.split(" -> ") for line in done.stdout.splitlines() if " -> " in line]
    assert done.returncode == 0 and len(ends) > 25 and ends[-1][1] == "1", done.stderr
    assert {code for _, code in ends[:-1]} == {"0"} and "Qu" in done.stderr and "lens: " in done.stderr
    assert "\\u0394PPL" in done.stdout  # what the code page lacks is spelled out


@pytest.mark.parametrize("damage", ["flip", "remove", "manifest"])
def test_verify_of_damaged_data_exits_1_with_one_line_that_names_the_file(copy, capsys, damage):
    name = manifest.NAME if damage == "manifest" else "world/facts.csv"
    file = copy / name
    if damage == "remove":
        file.unlink()
    else:
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2 if damage == "flip" else 0] ^= 4
        file.write_bytes(whole)
    assert main(["data", "verify"]) == 1
    line = one_line_on_stderr(capsys)
    assert str(file) in line and f"git checkout -- data/{name}" in line


def test_build_writes_what_is_shipped_byte_for_byte(copy, capsys):
    want = {name: (copy / "world" / name).read_bytes() for name in ("records.json", "heldout.txt")}
    for name in want:
        (copy / "world" / name).write_text("old\n")
    # heldout.txt is read anew while the records are made from it
    assert main(["data", "build"]) == 0
    assert {name: (copy / "world" / name).read_bytes() for name in want} == want
    assert "records" in capsys.readouterr().out and manifest.verify() > 0


@pytest.mark.parametrize("arguments", [[], ["fly"], ["data"], ["data", "burn"], ["mini", "train", "--steps", "many"]])
def test_an_unknown_command_exits_2_with_usage(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: python -m lens" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and all(word in out for word in ("info", "data", "mini", "bench"))


def test_evaluate_of_no_model_exits_1_with_one_line(capsys, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert main(["mini", "evaluate", "--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in one_line_on_stderr(capsys)


def test_ctrl_c_exits_130_with_one_line(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "verify", interrupted)
    assert main(["data", "verify"]) == 130
    assert "run the same command again" in one_line_on_stderr(capsys)


def test_train_hands_its_arguments_to_the_recipe(capsys, monkeypatch, tmp_path):
    from lens.world import train as training

    seen = []
    monkeypatch.setattr(training, "train", lambda out, work, recipe, device: seen.append((work, recipe, device)) or out)
    arguments = ["mini", "train", "--steps", "6", "--out", str(tmp_path / "m"), "--work", str(tmp_path / "w")]
    assert main([*arguments, "--device", "cpu"]) == 0
    ((work, recipe, device),) = seen
    assert (work, recipe.steps, device) == (tmp_path / "w", 6, "cpu") and recipe.layers == training.Recipe().layers
    assert str(tmp_path / "m") in capsys.readouterr().out


def test_bench_prints_the_ratios(capsys, monkeypatch, tiny):
    import torch

    lm = tiny("gpt2", torch.float32, vocab_size=6000)
    monkeypatch.setattr(bench, "random_gpt2", lambda device=None: lm)
    monkeypatch.setattr(bench, "PROMPTS", 4)
    assert main(["bench", "lens"]) == 0
    lines = [line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines()]
    rows = {name.strip(): float(value) for name, value in lines}
    assert {"capture / bare pass", "whole lens / bare pass"} <= set(rows)
    assert any(name.endswith("one by one / batched") for name in rows) and all(value > 0 for value in rows.values())


def test_bench_edit_prints_what_a_shift_costs_beside_a_forward_pass(capsys, monkeypatch):
    monkeypatch.setattr(whole_lens.bench_edit, "__defaults__", (2, {"n_embd": 50, "n_layer": 2, "n_head": 2}))
    assert main(["bench", "edit", "--device", "cpu"]) == 0
    rows = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines())
    rows = {name.strip(): float(value) for name, value in rows.items()}
    assert rows["kept with the edit, bytes"] == 4 * (4 * 50 + 50)
    assert all(value > 0 for name, value in rows.items() if not name.startswith("extra memory"))


def test_the_benchs_bare_pass_leaves_the_model_alone(tiny, state):
    lm = tiny("gpt2")
    lm.model.train()
    before = state(lm.model)
    bench.bare_pass(lm, [5, 6, 7], 9)
    assert state(lm.model) == before


# --- the public face --------------------------------------------------------------------------------------------------


def test_python_dash_m_lens_verifies_the_shipped_data():
    done = python("-m", "lens", "data", "verify")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.endswith("data files are whole.\n")


@pytest.mark.slow
def test_importing_lens_imports_neither_matplotlib_nor_transformers():
    code = "import sys, lens; print([m for m in ('matplotlib', 'seaborn', 'transformers') if m in sys.modules])"
    done = python("-c", code + "; lens.plot; print('matplotlib' in sys.modules)")
    assert done.stdout == "[]\nTrue\n", done.stderr


def test_there_are_at_most_thirty_public_names_and_all_exist():
    assert len(lens.__all__) <= 30 and len(set(lens.__all__)) == len(lens.__all__)
    assert all(hasattr(lens, name) for name in lens.__all__)
    with pytest.raises(AttributeError, match="'lens' has no attribute 'fly'"):
        lens.fly


def public():
    """Every public function and class, and every public method of those classes."""
    modules = {"lens": lens, "lens.data": lens.data, "lens.plot": lens.plot}
    for where, module in modules.items():
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing) or inspect.isclass(thing):
                yield f"{where}.{name}", thing
            if inspect.isclass(thing):
                for method, value in vars(thing).items():
                    value = getattr(value, "func", getattr(value, "fget", value))
                    if not method.startswith("_") and inspect.isfunction(value):
                        yield f"{where}.{name}.{method}", value


def test_everything_public_says_what_it_does_with_shapes_or_an_example():
    bare = [name for name, thing in public() if not (inspect.getdoc(thing) or "").strip()]
    assert not bare, f"no docstring: {bare}"
    core = {n: thing for n, thing in public() if n.count(".") == 1 + n.startswith(("lens.data", "lens.plot"))}
    assert len(core) > 20
    assert not [name for name, thing in core.items() if ">>>" not in thing.__doc__ and "[" not in thing.__doc__]
