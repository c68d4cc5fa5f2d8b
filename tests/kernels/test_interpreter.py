"""The Triton kernels, run line by line on the CPU: the tests of this folder once more, in a process of their own.

Triton reads TRITON_INTERPRET when a kernel is defined, so one process cannot both compile and interpret.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is the process that the test starts")
def test_the_kernels_pass_in_tritons_interpreter():
    pytest.importorskip("triton", reason="Triton has no build for this system; the kernels are for Linux")
    files = sorted(f for f in FOLDER.glob("test_*.py") if f.name not in (Path(__file__).name, "test_ahead_of_time.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", "triton", "-p", "no:cacheprovider", *map(str, files)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 40  # not an empty run
