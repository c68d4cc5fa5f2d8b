"""With what was a result made?  Command, machine, threads and versions, as a result file states them."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import torch

VERSION = "0.1.0"
"""The version of lens."""


def provenance(device: torch.device) -> dict:
    """``command`` (None outside the command line), ``machine`` and ``versions``: plain text, fit for JSON.

    >>> provenance(torch.device("cpu"))["versions"]["torch"] == version("torch")
    True
    """
    called = Path(sys.argv[0]).parts[-2:] == ("lens", "__main__.py")
    return {
        "command": shlex.join(["python", "-m", "lens", *sys.argv[1:]]) if called else None,
        "machine": machine(device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("torch", "transformers")},
    }


def comments(device: torch.device, about: str) -> tuple[str, str, str]:
    """The lines of a result file that say the same: command, what it is ``about``, machine and versions."""
    made = provenance(device)
    return str(made["command"]), about, "; ".join((made["machine"], *map(" ".join, made["versions"].items())))


def machine(device: torch.device) -> str:
    """The processor or GPU in words, such as ``NVIDIA H200`` or ``AMD EPYC, 2 threads``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        name = platform.processor() or platform.machine()
    return f"{re.sub(r'[(]R[)]|[(]TM[)]|@.*| CPU', '', name).strip()}, {torch.get_num_threads()} threads"
