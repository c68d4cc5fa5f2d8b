"""``python -m lens sweep masks`` and ``counterfact``, as one calls them."""

from __future__ import annotations

import ast
import csv
import inspect
import json
import re
import shlex
import sys
from contextlib import nullcontext

import pytest

import lens
from lens.__main__ import main, parser
from lens.data import paths
from lens.scale.sweep import Results, run

FAST = ["steps=2", "check=1", "targets=4", "controls=4", "texts=1", "tokens=12"]
SETTINGS = [word for setting in FAST for word in ("--set", setting)]
QUICK = ["--records", "validation", "--no-entropy", "--no-perplexity"]

pytestmark = pytest.mark.slow


def sweep(*arguments) -> int:
    return main(["sweep", *map(str, arguments)])


def test_masks_writes_a_table_of_every_target_and_seed_and_does_nothing_twice(capsys, masks, model, tmp_path):
    command = ["masks", "--model", model, "--target", "building", "sun", "--seed", 0, 1, "--random", 0, *SETTINGS]
    assert sweep(*command, "--out", tmp_path) == 0
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert capsys.readouterr().out == f"4 jobs, {len(rows)} rows: {tmp_path / 'table.csv'}.\n"
    assert {(row["target_kg"], row["seed"]) for row in rows} == {(t, s) for t in ("building", "sun") for s in "01"}
    assert {row["variant"] for row in rows} == {"original", "remaining"}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert sweep(*command, "--out", tmp_path) == 0
    assert len(made) == 4 and all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert sweep(*command[:-1], "tokens=13", "--out", tmp_path) == 0  # other settings have other names
    assert len(list(tmp_path.glob("*.json"))) == 8


@pytest.mark.parametrize("where", ["--scheduler", "--workers"])
def test_counterfact_on_a_cluster_prints_the_table_of_one_run(
    capsys, model, cluster, client, tmp_path, monkeypatch, where
):
    monkeypatch.setattr("lens.scale.sweep.connecting.local", lambda workers: nullcontext(cluster))
    command = ["--model", model, "--limit", 4, "--together", 2, *QUICK]
    on = cluster.scheduler_address if where == "--scheduler" else 2
    assert sweep("counterfact", "--editor", "none", "--shards", 2, *command, "--out", tmp_path, where, on) == 0
    printed = capsys.readouterr().out
    assert len(list(tmp_path.glob("none-*.json"))) == 2
    assert main(["counterfact", "--editor", "none", *map(str, command)]) == 0
    assert lines(printed) == lines(capsys.readouterr().out)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "seconds per edit" not in line and "|--" not in line]


def test_failed_jobs_are_one_line_each_and_exit_status_1(capsys, model, monkeypatch, tmp_path):
    def fails(*arguments, **options):
        raise RuntimeError("the disk\nwas full")

    with monkeypatch.context() as patch:
        patch.setattr("lens.evaluate.counterfact", fails)
        command = ["counterfact", "--model", model, "--editor", "none", "--limit", 2, "--shards", 2, *QUICK]
        assert sweep(*command, "--retries", 0, "--out", tmp_path) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lens: ")]
    assert said == [f"lens: none-{n} failed in 1 attempt: RuntimeError: the disk was full" for n in range(2)]


def test_ctrl_c_says_that_the_same_command_goes_on(capsys, model, monkeypatch, tmp_path):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("lens.evaluate.counterfact", stop)
    assert sweep("counterfact", "--model", model, "--limit", 2, *QUICK, "--out", tmp_path) == 130
    assert capsys.readouterr().err.endswith("lens: interrupted; the same command goes on with what is missing.\n")


def test_an_editors_setting_is_its_own(model, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(lens.sweep, "run", lambda jobs, *a, **k: seen.extend(jobs) or Results(()))
    command = ["counterfact", "--model", model, "--editor", "shift", "none", "--limit", 2, "--shards", 1]
    assert sweep(*command, "--set", "shift.eta=0.5", "--out", tmp_path) == 0
    assert [job.arguments["options"]["settings"] for job in seen] == [{"eta": 0.5}, {}]
    assert run is not lens.sweep.run


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["masks", "--target", "castle"], "no TargetKG 'castle'"),
        (["masks", "--set", "luck=1"], "no setting 'luck'"),
        (["masks", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "two clusters"),
        (["masks", "--workers", "0"], "--workers is 0"),
        (["masks", "--resource", "GPU=many"], "--resource GPU is 'many'"),
        (["masks", "--resource", "GPU=NaN"], "--resource GPU is nan"),
        (["masks", "--scheduler", ""], "--scheduler is ''"),
        (["masks", "--scheduler", "tcp://127.0.0.1:65536"], "a port from 1 to 65535"),
        (["counterfact", "--set", "eta=1"], "shift.eta"),
        (["counterfact", "--editor", "magic"], "no editor 'magic'"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_status_1(capsys, model, tmp_path, arguments, words):
    assert sweep(*arguments, "--model", model, "--out", tmp_path / "new") == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("lens: ") and words in said[0] and said[0].endswith(".")
    assert not (tmp_path / "new").exists()


def test_without_distributed_a_cluster_is_one_sentence_and_exit_status_1(capsys, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["masks", "--model", model, "--target", "building", *SETTINGS, "--workers", 2, "--out", tmp_path / "new"]
    assert sweep(*command) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("lens: ") and "pip install lens-book[sweep]" in said[0]


@pytest.mark.parametrize("died", ["worker", "scheduler"])
def test_a_death_while_jobs_are_made_is_a_sentence(died, refuses, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from types import SimpleNamespace

    from distributed.comm import CommClosedError

    from lens.scale.sweep.cluster import made
    from lens.scale.sweep.connecting import GONE

    class Dead:
        asynchronous = False

        def submit(self, *_, **__):
            return self

        def result(self):
            if died == "scheduler":
                raise CommClosedError("gone")
            raise distributed.KilledWorker("mask_jobs", SimpleNamespace(address="tcp://10.0.0.1:1"), 0)

    monkeypatch.setattr(distributed, "Client", Dead)
    sentence = GONE if died == "scheduler" else "could not be made: 1 worker died with it, the last tcp://10.0.0.1:1"
    with refuses(RuntimeError, sentence):
        made(Dead(), len, [], resources=None)


def test_the_commands_of_the_chapter_are_commands():
    """Of lens and of Dask; and the calls of lens in the recipe for SLURM, which asks for one GPU a worker."""
    worker = pytest.importorskip("distributed.cli.dask_worker").main
    scheduler = pytest.importorskip("distributed.cli.dask_scheduler").main
    cells = json.loads((paths.root().parent / "book" / "scaling_up.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()]
    known = {"scheduler": scheduler, "worker": worker}
    for words in map(shlex.split, lines):
        if words[:3] == ["python", "-m", "lens"]:
            parser().parse_args(words[3:])
            continue
        words = words["=" in words[0] :]  # behind a variable
        assert words[0] == "dask"
        known[words[1]].make_context(words[1], words[2:])
    assert len(lines) == 6 and sum(" dask worker " in line and "GPU=1" in line for line in lines) == 2
    (recipe,) = (ast.parse(block) for block in re.findall(r"```python\n(.*?)```", text, re.S))
    calls = {ast.unparse(node.func): node for node in ast.walk(recipe) if isinstance(node, ast.Call)}
    for name in ("lens.sweep.run", "lens.sweep.mask_jobs"):
        given = {word.arg: word.value for word in calls[name].keywords}
        inspect.signature(getattr(lens.sweep, name.split(".")[-1])).bind(*calls[name].args, **given)
    asked = {word.arg: ast.literal_eval(word.value) for word in calls["SLURMCluster"].keywords}
    assert asked["job_extra_directives"] == ["--gres=gpu:1"] and asked["processes"] == asked["cores"] == 1
    worker.make_context("worker", ["tcp://10.0.0.1:8786", *asked["worker_extra_args"]])
