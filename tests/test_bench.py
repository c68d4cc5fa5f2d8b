"""The benchmark: it checks before it times, keeps quiet where a kernel is wrong, and its file says where it is from."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch

from lens import kernels
from lens.__main__ import main
from lens.data import paths
from lens.results.provenance import machine
from lens.scale.bench import kernels as bench
from lens.scale.bench.measure import slug
from lens.scale.bench.memory_cost import ALONE
from lens.scale.bench.report import from_gpus
from lens.scale.bench.work import Size

CPU = torch.device("cpu")
TINY = Size(layers=2, width=32, inner=64, vocabulary=500, tokens=3, vectors=7)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Compiled ways are timed as they are: compiling them all takes minutes and is torch's business."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(bench, "Size", lambda: TINY)


def read(path) -> tuple[list[str], list[dict]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    return head, list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.long
def test_every_operation_is_timed_beside_its_baselines_and_the_file_says_how(tmp_path, capsys):
    assert main(["bench", "kernels", "--device", "cpu", "--out", str(tmp_path / "cpu.csv")]) == 0
    head, rows = read(tmp_path / "cpu.csv")
    assert head[0] == "# python -m lens bench kernels"
    assert torch.__version__ in head[1] and machine(CPU) in head[1] and "seed" in head[1]
    ways: dict[str, set[str]] = {}
    for row in rows:
        ways.setdefault(row["operation"], set()).add(row["way"])
        assert float(row["milliseconds"]) > 0 and float(row["floor_milliseconds"]) > 0
        assert float(row["floor_ratio"]) == pytest.approx(
            float(row["milliseconds"]) / float(row["floor_milliseconds"]), rel=2e-3
        )
    assert len(ways) == 9 and all("lens" in way for way in ways.values())
    for operation in (
        "mask, forward and backward",
        "gradient norms",
        "projection",
        "KL(uniform ‖ p), forward and backward",
    ):
        assert {"naive", "torch.compile", "chunked torch"} <= ways[operation]
    assert str(tmp_path / "cpu.csv") in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("name, spoil", [
    ("norms", lambda original: lambda *a: original(*a) * 1.001),
    ("mask", lambda original: lambda w, s, key: original(w, s, key._replace(site=key.site + 1))),
    ("kl_uniform", lambda original: lambda h, e: original(h, e) * 1.01),
])  # fmt: skip
def test_a_wrong_kernel_is_not_timed(monkeypatch, tmp_path, capsys, name, spoil):
    honest = getattr(kernels, name)
    calls = []

    def wrong(*arguments):
        calls.append(1)  # the mask's check asks the torch path first, and that answer is right
        return (honest if name == "mask" and len(calls) == 1 else spoil(honest))(*arguments)

    monkeypatch.setattr(kernels, name, wrong)
    assert main(["bench", "kernels", "--device", "cpu", "--out", str(tmp_path / "cpu.csv")]) == 1
    assert "no times are reported" in capsys.readouterr().err and not (tmp_path / "cpu.csv").exists()


MOMENT = """
import torch
from lens.scale.bench.measure import peak_bytes

def task():
    torch.ones(10_000_000)
    torch.ones(5_000_000)

print(peak_bytes(task, torch.device("cpu")))
"""


def test_peak_memory_sees_what_was_held_for_a_moment():
    """In a process of its own, as the benches measure: an earlier test may have let the heap keep what is freed."""
    run = [sys.executable, "-c", MOMENT]
    peak = subprocess.run(run, env=os.environ | ALONE, capture_output=True, text=True, check=True).stdout.strip()
    if peak == "None":
        pytest.skip("this system does not say how much memory a process held at most")
    assert 36e6 < int(peak) < 56e6


def test_committed_results_are_whole_and_say_where_they_come_from():
    files = [path for path in sorted((paths.root() / "bench").glob("*.csv")) if path.stem != "cost"]
    assert files
    for path in files:
        head, rows = read(path)
        assert head[0] == "# python -m lens bench kernels" and "torch" in head[1] and "GB/s" in head[2]
        assert path.stem == slug(head[1][2:].split(";")[0])
        assert len({row["operation"] for row in rows}) == 9


def test_the_results_hold_the_bars_of_a_cpu():
    """Of the committed run, not of the machine that tests: twice the eager mask, 20 × the dense norms."""
    for path in (paths.root() / "bench").glob("*threads.csv"):
        _, rows = read(path)
        time = {(row["operation"], row["way"]): float(row["milliseconds"]) for row in rows}
        extra = {(row["operation"], row["way"]): float(row["extra_MB"]) for row in rows}
        mask = "mask, forward and backward"
        assert time[mask, "lens"] * 2 <= time[mask, "as published"]
        assert extra[mask, "lens"] * 3 <= extra[mask, "as published"]
        assert time["gradient norms", "lens"] * 20 <= time["gradient norms", "naive"]
        assert time["projection", "lens"] <= 1.3 * time["projection", "product alone"]


def test_the_gpu_script_says_in_a_sentence_where_it_cannot_run():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    import subprocess
    import sys

    script = paths.root().parent / "tests" / "gpu" / "run.sh"
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, env={"PYTHON": sys.executable})
    assert done.returncode == 1 and "no NVIDIA GPU" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_the_gpu_script_rehearses_everything_on_a_cpu():
    import subprocess
    import sys

    script = paths.root().parent / "tests" / "gpu" / "run.sh"
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(["sh", str(script), "--rehearse"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    summary = done.stdout[done.stdout.index("**") :]
    kernels, steps, profile = (
        [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("|")][2:]
        for part in summary.split("\n\n")[1::2]
    )
    assert "GB/s; a bare matrix product does" in summary and len(kernels) == 9
    assert [row[1].strip() for row in steps] == [
        "mask step",
        "its passes alone",
        "whole backward lens",
        "one bare pass",
    ]
    assert len(profile) == 10 and all(float(row[2]) > 0 for row in steps + profile)
    assert all(float(row[3]) > 0 for row in kernels)


def test_the_book_shows_a_gpus_summary_where_there_is_one(tmp_path):
    (tmp_path / "a-cpu-2-threads.md").write_text("no GPU", encoding="utf-8")
    assert from_gpus(tmp_path) == "On a GPU: not measured yet."
    (tmp_path / "a-gpu.md").write_text("**a GPU**", encoding="utf-8")
    assert from_gpus(tmp_path) == "**a GPU**"
