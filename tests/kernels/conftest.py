"""Where a kernel test runs, and the rule it has to meet.

``place`` runs a test once for each (path, device) this process can reach: torch and numba on the CPU; Triton's
interpreter where Python was started with TRITON_INTERPRET=1 (``test_interpreter.py`` starts such a process); torch and
Triton on a GPU (marker ``gpu``).  ``accurate`` is the correctness rule: no more than twice the error that plain torch
makes in the same dtype, measured against float64, plus four roundings of float32.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch

from lens import kernels


@dataclass(frozen=True)
class Place:
    path: str
    device: str

    def __str__(self) -> str:
        return f"{self.path}-{self.device}"

    @contextmanager
    def __call__(self):
        """The block runs on this path; memory that torch hands out uninitialised is full of NaN."""
        fill = torch.utils.deterministic.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            with kernels.use(self.path):
                yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = fill
            torch.use_deterministic_algorithms(False)


INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRET:
    PLACES = [Place("triton", "cpu")]
else:
    PLACES = [Place("torch", "cpu"), Place("numba", "cpu")]
    if torch.cuda.is_available():
        PLACES += [Place("torch", "cuda"), Place("triton", "cuda")]


def pytest_generate_tests(metafunc):
    """``@pytest.mark.operation("mask")`` names the rule: a place whose path has no such kernel is left out."""
    if "place" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("operation")
        rule = kernels.paths.TABLE[marker.args[0]]
        places = [p for p in PLACES if p.path != "numba" or rule.cpu == "numba"]
        marks = {"cuda": [pytest.mark.gpu], "cpu": []}
        metafunc.parametrize("place", [pytest.param(p, id=str(p), marks=marks[p.device]) for p in places])


DTYPES = [torch.float32, torch.float16] if INTERPRET else [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(params=DTYPES, ids=lambda d: str(d).split(".")[1])
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture
def random():
    """``random(3, 4, dtype=…, device=…)``: fresh normal numbers, another draw at each call, the same in each run.

    With FRESH set in the environment, other numbers in each run.
    """
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big") if os.environ.get("FRESH") else 7)

    def draw(*shape, dtype=torch.float32, device="cpu", scale=1.0):
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).to(device)

    return draw


@pytest.fixture
def accurate():
    """``accurate(got, plain, exact)``: error of ``got`` ≤ 2 × error of ``plain`` torch in that dtype + tiny."""

    def check(got, plain, exact):
        got, plain, exact = (t.detach().double().cpu() for t in (got, plain, exact))
        assert got.shape == exact.shape, f"shape {tuple(got.shape)}, wanted {tuple(exact.shape)}"
        if not exact.numel():
            return
        assert bool(torch.isfinite(got).all()), "the result holds NaN or infinity"
        scale = float(exact.abs().max()) or 1.0
        mine, theirs = float((got - exact).abs().max()), float((plain - exact).abs().max())
        assert mine <= 2 * theirs + 4 * torch.finfo(torch.float32).eps * scale, (
            f"error {mine:.3g}, plain torch {theirs:.3g}, scale {scale:.3g}"
        )

    return check
