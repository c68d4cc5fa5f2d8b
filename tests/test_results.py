"""Is a result whole, alone, and its failure a sentence?  Locks, what a killed run leaves, a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import lens
from lens.data import manifest
from lens.results import checkpoint
from lens.results.lock import alone
from lens.results.whole import HALF, whole, write_text

ROOT = str(Path(lens.__file__).parents[1])
HOLDS = """
import sys
from lens.results.lock import alone
from lens.results.whole import whole
with alone(sys.argv[1]), whole(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
FULL = """
import resource, signal, sys
import torch
from pathlib import Path
from lens.results import checkpoint, sealed
from lens.results.whole import write_text
from lens.evaluate.run_file import RunFile
from lens.evaluate.rows import Row
header = {"format": "lens-counterfact-1", "seed": 0, "settings": {}, "options": {}}
run = RunFile("run", header | dict.fromkeys(("editor", "model", "fingerprint"), "x"))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
many = torch.ones(10_000)
for name, write in {
    "text": lambda path: write_text(path, "x" * 10_000),
    "tensors": lambda path: sealed.write(path, {"x": many}, {"format": "1"}),
    "checkpoint": lambda path: checkpoint.store(path, {"x": many}),
    "run": lambda path: run.append([Row(0, "x" * 10_000, "y")]),
}.items():
    try:
        write(name)
    except OSError as error:
        print(error)
"""


def python(code: str, *arguments, **how) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=os.environ | {"PYTHONPATH": ROOT}, **pipes, **how
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_second_run_is_refused_and_a_dead_one_s_lock_and_half_file_are_taken_over(tmp_path, refuses):
    out = tmp_path / "rows.csv"
    out.write_text("before")
    (tmp_path / ".rows.csv.keep").write_text("somebody else's")
    first = python(HOLDS, out)
    assert first.stdout.readline() == "held\n"
    with refuses(
        OSError, r"rows\.csv and holds the lock .*/\.rows\.csv\.lock: wait for its end, or give another place"
    ):
        with alone(out):
            pass
    first.kill()
    first.wait()
    (half,) = (p.name for p in tmp_path.glob(f".rows.csv.{first.pid}.*{HALF}"))
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(HALF)] == [half]
    with alone(out):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".rows.csv.keep", ".rows.csv.lock", "rows.csv"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".rows.csv.keep", "rows.csv"] and out.read_text() == "before"


def test_whoever_writes_a_result_for_long_holds_its_lock(tmp_path, tiny, refuses, monkeypatch):
    from lens.__main__ import main
    from lens.world.recipe import Recipe
    from lens.world.train import train

    lm, out = tiny("gpt2"), tmp_path / "out"
    out.mkdir()
    with alone(tmp_path / "file"), alone(out, inside=True), alone(tmp_path / "mini"), alone(tmp_path / "x.csv"):
        for call in (
            lambda: lens.evaluate.counterfact(lm, lens.data.records()[:1], "none", out=tmp_path / "file"),
            lambda: lens.mask.train(lm, [], [], [], checkpoint=tmp_path / "file"),
            lambda: lens.sweep.run([lens.sweep.Job("a", "statistics:fmean", {"data": [1]})], out),
            lambda: train(tmp_path / "mini", tmp_path / "work", Recipe()),
            lambda: train(tmp_path / "other", out, Recipe()),
        ):
            with refuses(OSError, "Another run is writing"):
                call()
        for command in ("relearn", "sequential --limit 1", "tune --limit 1"):
            assert main([*command.split(), "--out", str(tmp_path / "x.csv")]) == 1
    assert not (tmp_path / "file").exists() and not (tmp_path / "x.csv").exists()


def test_a_job_waits_for_the_earlier_attempt_at_it(tmp_path):
    first = python(HOLDS.replace("alone(sys.argv[1]), whole(sys.argv[1])", "alone(sys.argv[1], inside=True)"), tmp_path)
    assert first.stdout.readline() == "held\n"
    second = python(
        HOLDS.replace("alone(sys.argv[1]), whole(sys.argv[1])", "alone(sys.argv[1], inside=True, wait=True)"), tmp_path
    )
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.3)
    first.stdin.close()
    assert second.stdout.readline() == "held\n"
    second.stdin.close()
    assert first.wait() == second.wait() == 0


def test_a_full_disk_is_a_sentence_and_leaves_no_half_file(tmp_path):
    pytest.importorskip("resource")
    said = python(FULL, cwd=tmp_path).communicate()[0].splitlines()
    assert len(said) == 4
    assert all(line.startswith("The file ") and line.endswith("what was there is kept.") for line in said), said
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_somebody_s_own_sentence_is_not_told_for_a_full_disk(tmp_path):
    for error in (ValueError("mine"), OSError("mine"), RuntimeError("mine")):
        with pytest.raises(type(error), match="^mine$"), whole(tmp_path / "x"):
            raise error
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path):
    checkpoint.store(tmp_path / "c", {"step": 3, "x": torch.ones(2)})
    assert checkpoint.resume(tmp_path / "c", lambda state: (state["step"], state["x"].tolist()), None) == (3, [1, 1])
    assert checkpoint.resume(tmp_path / "none", lambda state: state, "nothing") == checkpoint.resume(
        None, None, "nothing"
    )


def test_shipped_files_are_asked_about_once_and_told_when_damaged(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(lens.data.paths, "root", lambda: tmp_path)
    (tmp_path / "world").mkdir()
    path, asked, entry = tmp_path / "world" / "records.json", [], manifest.entry
    write_text(path, "[1]")
    manifest.write()
    monkeypatch.setattr(manifest, "entry", lambda p: asked.append(p) or entry(p))
    assert manifest.whole(path) == manifest.whole(path) == path and asked == [path]
    write_text(path, "[2]")
    with refuses(OSError, "records.json is damaged .*restore it"):
        lens.data.records()


def test_the_home_folder_is_the_same_to_who_locks_writes_and_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with alone("~/c"):
        checkpoint.store("~/c", {"step": 3})
        assert sorted(p.name for p in tmp_path.iterdir()) == [".c.lock", "c"]
    assert checkpoint.resume("~/c", lambda state: state["step"], None) == 3


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: you tried to allocate 9 bytes")])
def test_a_file_is_not_called_damaged_where_memory_is_full(tmp_path, error):
    def take(state):
        raise error

    checkpoint.store(tmp_path / "c", {"step": 3})
    with pytest.raises(type(error)) as caught:
        checkpoint.resume(tmp_path / "c", take, None)
    assert caught.value is error


def test_two_threads_that_write_one_file_do_not_meet(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: write_text(tmp_path / "x", str(i) * 1000), range(100)))
    assert len(set((tmp_path / "x").read_text())) <= 2 and [p.name for p in tmp_path.iterdir()] == ["x"]
