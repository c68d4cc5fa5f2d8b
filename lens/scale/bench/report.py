"""How fast is all of it on this machine?  ``python -m lens bench all`` → ``data/bench/<machine>.csv`` and ``.md``.

    kernels    every kernel, checked, then timed (``lens.scale.bench.kernels``): GB/s and TFLOP/s, and the machine's
    steps      a step of mask training and the whole backward lens, in the shapes of ``SHAPES``, random weights
    profile    the ten operations that a mask step's time goes to

A step of a mask cannot be replayed as a CUDA graph, which keeps every argument of a launch: the noise's key is one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lens.data import paths
from lens.mask import config_for
from lens.model import LanguageModel
from lens.results import markdown
from lens.scale.bench.kernels import Timings, bench_kernels
from lens.scale.bench.mask_cost import Ours, begun
from lens.scale.bench.measure import interleaved, peak_bytes, random_gpt2, slug
from lens.scale.bench.whole_lens import XL, bare_pass, whole_lens
from lens.scale.bench.work import Size

SHAPES = {
    "GPT-2 small": {},
    "GPT-2 medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "GPT-2 XL": XL,
}
"""What steps are timed on: a name → what is not as in GPT-2 small."""

REHEARSAL = {
    "a rehearsal": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 6144, "bos_token_id": 0, "eos_token_id": 0}
}
TINY = Size(layers=2, width=32, inner=64, vocabulary=500, tokens=3, vectors=7)


def bench_all(device: str | None = None, rehearsal: bool = False, show=print) -> tuple[str, dict[str, str]]:
    """The machine's file name, and the files by their endings: ``csv`` of the kernels, ``md`` of everything.

    ``rehearsal``: shapes of a few kilobytes, to see that all of it runs.
    """
    timings = bench_kernels(device, **({"repeats": 1, "size": TINY} if rehearsal else {}), show=show)
    steps, profile = [], []
    for name, shape in (REHEARSAL if rehearsal else SHAPES).items():
        lm = random_gpt2(device, name, **shape)
        for row in timed(lm, 1 if rehearsal else 7):
            show(f"{name:14} {row[0]:26} {row[1]:10.2f} ms")
            steps.append((name, *row))
        profile = profile or busiest(lm)  # of the smallest, where what is not arithmetic shows
    return slug(timings.machine), {"csv": timings.text(), "md": summary(timings, steps, profile)}


def timed(lm: LanguageModel, repeats: int) -> Iterator[tuple[str, float, float | None]]:
    """(what, milliseconds, megabytes beyond the model) of one mask step, one whole backward lens, and their floors."""
    training, prompt = Ours(lm, config_for(lm, steps=10**6)), list(range(1, 9))
    turn = iter(range(4 * repeats + 9))
    ways: dict[str, Callable[[], object]] = {
        "mask step": lambda: training.step(next(turn)),
        "its passes alone": lambda: training.passes(0),
        "whole backward lens": lambda: whole_lens(lm, [prompt], [[7]]),
        "one bare pass": lambda: bare_pass(lm, prompt, 7),
    }
    for (name, task), seconds in zip(ways.items(), interleaved(list(ways.values()), lm.device, repeats)):
        held = peak_bytes(task, lm.device)
        yield name, 1e3 * seconds, None if held is None else held / 1e6


def busiest(lm: LanguageModel, most: int = 10) -> list[tuple[str, int, float, float]]:
    """(operation, calls, milliseconds, share) of those that a mask step spends the most time in, itself."""
    training = begun(Ours(lm, config_for(lm, steps=10**6)))
    gpu = lm.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as seen:
        training.step(2)
        if gpu:
            torch.cuda.synchronize()
    kind, spent = (DeviceType.CUDA, "self_device_time_total") if gpu else (DeviceType.CPU, "self_cpu_time_total")
    events = [(e.key, e.count, getattr(e, spent) / 1e3) for e in seen.key_averages() if e.device_type == kind]
    total = sum(time for *_, time in events)
    return [(*event, event[2] / total) for event in sorted(events, key=lambda e: -e[2])[:most]]


def summary(timings: Timings, steps: list[tuple], profile: list[tuple]) -> str:
    """Everything in three tables."""
    peaks = ", ".join(f"{rate / 1e12:.3g} TFLOP/s in {dtype}" for dtype, rate in timings.rates.items())
    kernels = [["operation", "dtype", "path", "ms", "GB/s", "TFLOP/s", "ms of the next best", "time / floor"]]
    for row in timings.rows:
        if row.way == "lens":
            key = row.operation, row.dtype
            others = [r for r in timings.rows if (r.operation, r.dtype) == key and r.way != "lens"]
            best = min(others, key=lambda r: r.milliseconds, default=None)
            rates = f"{row.moved_MB / row.milliseconds:.4g}", f"{row.gigaflop / row.milliseconds:.3g}"
            other = f"{best.milliseconds:.4g} ({best.way})" if best else ""
            kernels.append([*key, row.path, f"{row.milliseconds:.4g}", *rates, other, f"{row.floor_ratio:.2f}"])
    head = [["shape", "what", "ms", "MB beyond the model"]]
    of_steps = [[name, what, f"{ms:.4g}", "unknown" if mb is None else f"{mb:.4g}"] for name, what, ms, mb in steps]
    spent = [[name, str(calls), f"{ms:.4g}", f"{share:.1%}"] for name, calls, ms, share in profile]
    made = f"Python {platform.python_version()}, torch {torch.__version__}, {date.today().isoformat()}"
    rates = f"A copy moves {timings.bandwidth / 1e9:.4g} GB/s; a bare matrix product does {peaks}."
    parts = [
        f"**{timings.machine}**, {made}: `python -m lens bench all`. {rates}",
        markdown.table(kernels),
        "Medians of steps, float32, random weights:",
        markdown.table(head + of_steps),
        f"Where a mask step of {steps[0][0]} spends its time:",
        markdown.table([["operation", "calls", "ms", "share"], *spent]),
    ]
    return "\n\n".join(parts) + "\n"


def from_gpus(folder: Path | None = None) -> str:
    """The summaries in ``data/bench`` that come from a GPU, or that there is none.

    >>> from_gpus(paths.root() / "no-such-folder")
    'On a GPU: not measured yet.'
    """
    files = sorted(f for f in (folder or paths.root() / "bench").glob("*.md") if not f.stem.endswith("threads"))
    return "\n".join(f.read_text(encoding="utf-8") for f in files) or "On a GPU: not measured yet."
