"""Do chapters run side by side, does a failure stop what has not begun, and does a signal keep what is finished?"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
WAIT = "import pathlib, time\nwhile not pathlib.Path({!r}).exists():\n    time.sleep(0.02)"
# What the build does with the book in the first argument, and the chapters in the others.
CHILD = """
import pathlib, signal, sys
sys.path.insert(0, {book!r})
import execute
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have left it ignored
execute.ROOT, execute.BOOK = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1])
execute.BUILD = execute.ROOT / "build"
execute.KERNEL_LOGS, execute.processors = execute.BUILD / "kernels", lambda: 2
try:
    execute.execute_all(sys.argv[2:])
except execute.BuildError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def begin(tmp_path):
    """Write chapters, each a list of cells, and begin to run them in order: the process."""

    def begin(**chapters: list[str]) -> subprocess.Popen:
        for name, cells in chapters.items():
            made = [nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)]
            nbformat.write(nbformat.v4.new_notebook(cells=made), tmp_path / f"{name}.ipynb")
        command = [sys.executable, "-c", CHILD.format(book=str(BOOK)), str(tmp_path), *chapters]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)

    return begin


def executed(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "build" / "executed").glob("*")}


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return True
    except ProcessLookupError:
        return False


def test_chapters_run_two_at_a_time_and_one_that_takes_times_alone(begin, tmp_path):
    clock = "import os, time\nbegun = time.time()\ntime.sleep(0.3)\nopen({!r}, 'w').write(f'{{begun}} {{time.time()}}')"
    threads = "open('threads', 'w').write(os.environ['OMP_NUM_THREADS'])"
    done = begin(
        first=["open('1', 'w')", WAIT.format("2"), f"import os\n{threads}"],
        timed=[clock.format("timed") + "  # perf_counter"],
        second=["open('2', 'w')", WAIT.format("1"), clock.format("second")],
    )
    said, errors = done.communicate(timeout=100)
    assert done.returncode == 0, errors
    assert executed(tmp_path) == {"first", "second", "timed"} and said.count(" cells ") == 3
    assert (tmp_path / "threads").read_text() == os.environ.get("OMP_NUM_THREADS", "1")
    ended, begun = (tmp_path / "second").read_text().split()[1], (tmp_path / "timed").read_text().split()[0]
    assert float(ended) < float(begun)


def test_chapters_that_write_shipped_data_anew_run_one_after_the_other(begin, tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_AGAIN", "1")
    busy = "pathlib.Path('busy')"
    alone = f"import pathlib, time\n{busy}.touch(exist_ok=False)\ntime.sleep(1)\n{busy}.unlink()"
    done = begin(first=[alone], second=[alone])
    assert done.communicate(timeout=100) and done.returncode == 0 and executed(tmp_path) == {"first", "second"}


def test_a_failure_names_its_cell_lets_the_other_finish_and_nothing_more_begins(begin, tmp_path):
    done = begin(bad=["1", "raise ValueError('no')"], good=["import time; time.sleep(1)"], later=["1"])
    _, errors = done.communicate(timeout=100)
    assert done.returncode == 1 and "chapter bad stopped in cell 2" in errors and "ValueError: no" in errors
    assert executed(tmp_path) == {"good"}


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_keeps_what_is_finished_and_leaves_no_kernel(begin, tmp_path, number, status):
    done = begin(good=["1"], long=["import os, time; open('pid', 'w').write(str(os.getpid()))\ntime.sleep(300)"])
    deadline = time.monotonic() + 60
    while executed(tmp_path) != {"good"} or not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline and done.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)  # the process number is written
    done.send_signal(number)
    assert done.wait(60) == status
    deadline = time.monotonic() + 20
    while alive(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline, "the kernel outlives the build"
        time.sleep(0.05)
    assert executed(tmp_path) == {"good"}
    finished, _ = begin(good=["1"], long=["1"]).communicate(timeout=100)
    assert re.search("good +unchanged", finished) and executed(tmp_path) == {"good", "long"}


def test_a_chapter_that_changes_while_it_runs_is_not_kept(begin, tmp_path):
    process = begin(draft=["from pathlib import Path", WAIT.format(str(tmp_path / "go"))])
    deadline = time.monotonic() + 60
    while not (tmp_path / "build" / "kernels" / "draft.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    path = tmp_path / "draft.ipynb"
    path.write_text(path.read_text().replace("from pathlib", "import os\\nfrom pathlib"))
    (tmp_path / "go").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "changed while it ran: build once more" in said and not executed(tmp_path)
