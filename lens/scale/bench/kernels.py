"""How far is each kernel from the floor?  ``python -m lens bench kernels`` → ``data/bench/<device>.csv``.

The floor of a case is what the machine cannot beat: its bytes at the rate of a plain copy, or its operations at the
rate of the bare matrix product, whichever takes longer, both rates measured in the same run.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version

import torch

from lens import kernels
from lens.results.csv_text import as_csv
from lens.results.provenance import machine
from lens.scale.bench.measure import four_digits, interleaved, peak_bytes
from lens.scale.bench.vocabulary_cases import kl_cases, project_case
from lens.scale.bench.weight_cases import density_case, mask_cases, norms_case, update_case
from lens.scale.bench.work import Size, Workload, Wrong

COMMAND = "python -m lens bench kernels"
SEED = 0


@dataclass(frozen=True)
class Timing:
    """One way of doing one operation; ``extra_MB`` is the peak beyond the inputs, results included."""

    operation: str
    work: str
    dtype: str
    way: str
    path: str
    milliseconds: float
    floor_milliseconds: float
    floor_ratio: float
    moved_MB: float
    gigaflop: float
    extra_MB: float | None


@dataclass(frozen=True)
class Timings:
    """The rows, and the rates that their floors rest on: bytes a second, and by dtype operations a second."""

    machine: str
    bandwidth: float
    rates: dict[str, float]
    rows: list[Timing]

    def text(self) -> str:
        """The result file: provenance in comment lines, then one line a row."""
        versions = f"Python {platform.python_version()}, torch {torch.__version__}, triton {_version('triton')}"
        head = [
            COMMAND,
            f"{self.machine}; {versions}; numba {_version('numba')}; seed {SEED}; {date.today().isoformat()}",
            f"copy {self.bandwidth / 1e9:.2f} GB/s, matrix product {self.rates['float32'] / 1e9:.1f} GFLOP/s",
        ]
        return as_csv([four_digits(row) for row in self.rows], *head)


def bench_kernels(device: str | None = None, repeats: int = 7, size: Size | None = None, show=print) -> Timings:
    """Check every kernel, then time it beside its baselines; ``show`` receives a line for each row.

    Raises ``RuntimeError`` where a kernel's result is wrong: then no time is reported.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size = size or (Size(vectors=4096) if place.type == "cuda" else Size())
    bandwidth, rate = copy_rate(size, place, repeats), {}
    rows = []
    for dtype in (torch.float32, torch.bfloat16) if place.type == "cuda" else (torch.float32,):
        rate[dtype] = product_rate(size, place, dtype, repeats)
        for case in cases(size, place, dtype):
            try:
                case.check()
            except Wrong as error:
                raise RuntimeError(f"On {machine(place)} {error}: no times are reported.") from None
            for row in timed(case, place, dtype, bandwidth, rate[dtype], repeats, show):
                show(line(row))
                rows.append(row)
    return Timings(machine(place), bandwidth, {str(d).split(".")[1]: r for d, r in rate.items()}, rows)


def cases(size: Size, device: torch.device, dtype: torch.dtype) -> list[Workload]:
    """Every kernel, on fresh random inputs."""
    torch.manual_seed(SEED)
    given, single = (size, device, dtype), (density_case, norms_case, update_case, project_case)
    return [*mask_cases(*given), *(case(*given) for case in single), *kl_cases(*given)]


def timed(case: Workload, device, dtype, bandwidth: float, rate: float, repeats: int, show) -> list[Timing]:
    """The rows of one case; a way that cannot run here is said and left out."""
    ways = {}
    for way, task in case.ways.items():
        try:
            task()
            ways[way] = task
        except Exception as error:  # torch.compile needs a compiler, naive methods memory: neither is ours to promise
            if way == "lens":
                raise
            show(f"{case.operation}: {way} cannot run here ({type(error).__name__})")
    often, once = [w for w in ways if w not in case.once], [w for w in ways if w in case.once]
    times = dict(zip(often, interleaved([ways[w] for w in often], device, repeats)))
    times |= dict(zip(once, interleaved([ways[w] for w in once], device, 1, warm_up=False)))
    floor = max(case.moved / bandwidth, case.flop / rate)
    path = kernels.choose(case.kernel, torch.empty(0, device=device, dtype=dtype))
    return [
        Timing(
            case.operation, case.work, str(dtype).split(".")[1], way, path if way == "lens" else "torch",
            1e3 * times[way], 1e3 * floor, times[way] / floor, case.moved / 1e6, case.flop / 1e9,
            None if (peak := peak_bytes(task, device)) is None else peak / 1e6,
        )
        for way, task in ways.items()
    ]  # fmt: skip


def copy_rate(size: Size, device, repeats: int) -> float:
    """Bytes a second of a plain copy, reading and writing, of as much as the masked weights."""
    source = torch.randn(sum(a * b for a, b in size.sites()[::2]), device=device)
    target = torch.empty_like(source)
    (seconds,) = interleaved([lambda: target.copy_(source)], device, repeats)
    return 2 * 4 * source.numel() / seconds


def product_rate(size: Size, device, dtype, repeats: int) -> float:
    """Operations a second of the bare matrix product of the projection, into memory that is there already."""
    a = torch.randn(size.vectors, size.width, device=device, dtype=dtype)
    b = torch.randn(size.vocabulary, size.width, device=device, dtype=dtype)
    out = torch.empty(size.vectors, size.vocabulary, device=device, dtype=dtype)
    (seconds,) = interleaved([lambda: torch.mm(a, b.T, out=out)], device, repeats)
    return 2 * size.vectors * size.vocabulary * size.width / seconds


def line(row: Timing) -> str:
    extra = "" if row.extra_MB is None else f"{row.extra_MB:9.1f} MB extra"
    times = f"{row.milliseconds:10.2f} ms {row.floor_ratio:9.2f} × floor"
    return f"{row.operation:34} {row.dtype:8} {row.way:14} {times} {extra}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
