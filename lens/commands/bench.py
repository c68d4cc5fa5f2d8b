"""``python -m lens bench``: how fast is it, and what does it need, on this machine?"""

from __future__ import annotations

from pathlib import Path

from lens.commands.arguments import actions, command
from lens.data import manifest, paths
from lens.results.whole import write_text
from lens.scale.bench import memory_cost
from lens.scale.bench.kernels import bench_kernels
from lens.scale.bench.mask_cost import bench_mask
from lens.scale.bench.measure import slug
from lens.scale.bench.report import bench_all
from lens.scale.bench.whole_lens import bench_edit, bench_lens

NUMBERS = {
    "lens": (bench_lens, "capture and backward lens against one bare pass"),
    "edit": (bench_edit, "a forward-pass shift against one forward pass, in GPT-2 XL's shape"),
    "mask": (bench_mask, "a step of mask training against its passes and the published formulation"),
}
"""What is measured → the function that does it, and what it says."""


def add(commands) -> None:
    """Add the command ``bench`` with what it measures to the parser's ``commands``."""
    bench = actions(commands, "bench", "measure speed", "WHAT")
    for name, (function, about) in NUMBERS.items():
        command(bench, name, _numbers, about, function=function)("--device")
    option = command(bench, "kernels", _kernels, "each kernel against its baselines and the machine's floor")
    option("--device")
    option("--out", type=Path, help="result file (default: data/bench/<device>.csv)")
    option = command(bench, "all", _everything, "kernels, steps in GPT-2's shapes and a profile: a table and a summary")
    option("--rehearsal", action="store_true", help="tiny shapes, to see that all of it runs")
    option("--out", type=Path, help="folder of the result files (default: data/bench)")
    option("--device")
    option = command(bench, "memory", _memory, "what lens.cost computes against measured peaks, on the CPU")
    option("--out", type=Path, help="result file (default: data/bench/cost.csv)")


def _numbers(args) -> None:
    for name, value in args.function(args.device).items():
        print(f"{name:50} {'unknown' if value is None else f'{value:12.3f}'}")


def _memory(args) -> None:
    _write(args.out, "cost", memory_cost.text(memory_cost.bench_memory()))


def _kernels(args) -> None:
    report = bench_kernels(args.device)
    _write(args.out, slug(report.machine), report.text())


def _everything(args) -> None:
    name, files = bench_all(args.device, args.rehearsal)
    for ending, text in files.items():
        _write((args.out or paths.root() / "bench") / f"{name}.{ending}", name, text)


def _write(out: Path | None, name: str, text: str) -> None:
    """Write a result file, by default among the shipped ones, whose manifest then follows."""
    out = out or paths.root() / "bench" / f"{name}.csv"
    write_text(out, text)
    manifest.written(out)
    print(f"The results are in {out}.")
