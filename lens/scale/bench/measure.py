"""How long does a call take, how much memory beyond its inputs, and on which machine?"""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lens.model import LanguageModel
from lens.model.loading import load

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def interleaved(
    tasks: Sequence[Callable[[], object]], device: torch.device, repeats: int, warm_up: bool = True
) -> list[float]:
    """Median seconds of each task, run in turn so that a machine that slows down slows them all."""
    times: list[list[float]] = [[] for _ in tasks]
    for turn in range(0 if warm_up else 1, repeats + 1):
        for task, kept in zip(tasks, times):
            start = time.perf_counter()
            task()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                kept.append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]


def peak_bytes(task: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that one run of ``task`` holds at a time beyond what is there before; None where nobody can say.

    On a GPU torch's allocator knows; on Linux the kernel remembers the largest resident size and can be told to forget.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        task()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text("5")
        before = _resident("VmRSS")
        task()
        return max(_resident("VmHWM") - before, 0)
    except (OSError, AttributeError, TypeError):
        return None


def _resident(field: str) -> int:
    return 1024 * int(re.search(rf"{field}:\s*(\d+)", STATUS.read_text())[1])


def random_gpt2(device: str | None = None, name: str = "GPT-2 small", **shape) -> LanguageModel:
    """A GPT-2 of the given shape (small's by default) with random weights; mini's tokenizer spells its token ids.

    Times mean what they would mean on the real model, and nothing has to be downloaded.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = GPT2LMHeadModel(GPT2Config(**shape)).eval().to(device)
    return LanguageModel(model, load("mini", device="cpu").tokenizer, f"{name}'s shape, random weights")


def four_digits(row) -> dict:
    """A measurement, a dataclass, as a result file writes it: numbers have four digits."""
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in vars(row).items()}


def slug(text: str) -> str:
    """A file name: ``AMD EPYC, 2 threads`` becomes ``amd-epyc-2-threads``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
