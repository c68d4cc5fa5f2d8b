"""What can a GPU do at best, and how long does it take then?

Makers' peaks, dense, and the bandwidth of its memory; nobody reaches them.  Sources: NVIDIA's data sheets of T4 (2019),
V100 (SXM2, 2020), A100 (80 GB SXM, 2021), H100 (SXM, 2023) and H200 (SXM, 2024), with the rates "with sparsity" halved;
float32 is TF32 on the matrix units where a GPU has them and torch is allowed to use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import process_time

import torch

HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Machine:
    """``memory`` in bytes, ``bandwidth`` in bytes a second; peaks in operations a second: ``single`` is float32 proper,
    ``matrix`` float32 through TF32, ``half`` bfloat16 (float16 where there is none)."""

    name: str
    memory: float
    bandwidth: float
    single: float
    matrix: float
    half: float

    def peak(self, dtype: str = "float32", tf32: bool = False) -> float:
        """Operations a second in this dtype."""
        return self.half if dtype in HALF else self.matrix if tf32 else self.single


@dataclass(frozen=True)
class Operations:
    """Of one step, computed: ``flops``, and ``moved`` bytes of element-wise work."""

    flops: int
    moved: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.flops + other.flops, self.moved + other.moved)

    def __mul__(self, times: int) -> Operations:
        return Operations(self.flops * times, self.moved * times)

    __rmul__ = __mul__

    def hours(self, machine: Machine, dtype: str = "float32", utilization: float = 0.3) -> float:
        """GPU-hours on ``machine`` if this share of its peak and of its bandwidth is reached: an assumption."""
        seconds = self.flops / (machine.peak(dtype) * utilization) + self.moved / (machine.bandwidth * utilization)
        return seconds / 3600


MACHINES = {
    m.name: m
    for m in (
        Machine("T4", 16e9, 320e9, 8.1e12, 8.1e12, 65e12),
        Machine("V100", 32e9, 900e9, 15.7e12, 15.7e12, 125e12),
        Machine("A100", 80e9, 2039e9, 19.5e12, 156e12, 312e12),
        Machine("H100", 80e9, 3350e9, 67e12, 494.5e12, 989.5e12),
        Machine("H200", 141e9, 4800e9, 67e12, 494.5e12, 989.5e12),
    )
}
"""Name → machine."""


def fitting(size: float, spare: float = 0.1) -> list[str]:
    """The machines whose memory holds ``size`` bytes and this share of them more, the smallest first.

    >>> fitting(30e9)
    ['A100', 'H100', 'H200']
    """
    return [m.name for m in sorted(MACHINES.values(), key=lambda m: m.memory) if (1 + spare) * size <= m.memory]


def this_cpu(side: int = 1024, repeats: int = 3) -> Machine:
    """This computer's processor, calibrated in about a second: a bare matrix product, and a plain copy.

    In processor seconds over torch's threads, so that other programs do not make it slower: time a step in the same.
    """
    a, b, out = (torch.randn(side, side) for _ in range(3))
    source = torch.randn(1 << 24)
    target = torch.empty_like(source)

    def seconds(task) -> float:
        task()
        start = process_time()
        for _ in range(repeats):
            task()
        return max(process_time() - start, 1e-9) / repeats / torch.get_num_threads()

    rate = 2 * side**3 / seconds(lambda: torch.mm(a, b, out=out))
    bandwidth = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    return Machine("this CPU, measured", float("nan"), bandwidth, rate, rate, rate)
