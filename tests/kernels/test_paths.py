"""The choice of path: one table, told why, and never a surprise at import."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lens import kernels
from lens.kernels import paths

INTERPRETING = paths.interpreting()
F32 = (torch.float32,)


def gpu(monkeypatch, capability: tuple[int, int]):
    """As if there were an NVIDIA GPU of that compute capability; tensors are described, not made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    return torch.device("cuda")


def test_importing_lens_imports_neither_triton_nor_numba_and_sets_nothing():
    code = (
        "import os, sys; before = dict(os.environ); import lens, lens.kernels;"
        "print(sorted({'triton', 'numba'} & set(sys.modules)), before == dict(os.environ))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] True"


@pytest.mark.parametrize("operation", paths.TABLE)
def test_a_t4_uses_triton_only_where_there_is_no_matrix_product(monkeypatch, operation):
    device = gpu(monkeypatch, (7, 5))
    rule = paths.TABLE[operation]
    reason = paths.obstacle("triton", operation, device, F32)
    assert (reason is None) == (rule.capability <= 75)
    assert reason is None or "7.5" in reason
    if rule.capability <= 75:
        assert "bfloat16" in paths.obstacle("triton", operation, device, (torch.bfloat16,))


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0)])
@pytest.mark.parametrize("operation", paths.TABLE)
def test_newer_gpus_use_triton_for_everything_but_float64(monkeypatch, operation, capability):
    device = gpu(monkeypatch, capability)
    assert paths.obstacle("triton", operation, device, (torch.bfloat16, torch.float32)) is None
    assert "float64" in paths.obstacle("triton", operation, device, (torch.float64,))


def test_a_fallback_is_said_once_and_never_fatal(monkeypatch, caplog):
    device = gpu(monkeypatch, (7, 5))
    x = SimpleNamespace(device=device, dtype=torch.float32)
    paths._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="lens.kernels"):
        assert kernels.choose("norms", x) == kernels.choose("norms", x) == "torch"
    assert len(caplog.records) == 1 and "compute capability 7.5" in caplog.text
    paths._say_once.cache_clear()


@pytest.mark.skipif(INTERPRETING, reason="here triton runs on the CPU")
def test_without_a_gpu_forcing_triton_says_why_it_cannot(refuses):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with refuses(RuntimeError, "triton"):
        kernels.use("triton")
    assert kernels.choose("density", torch.zeros(1)) == "torch"


def test_forcing_a_path_that_an_operation_lacks_says_so(refuses):
    with kernels.use("numba"):
        with refuses(RuntimeError, "no numba path"):
            kernels.choose("kl", torch.zeros(1))
        assert kernels.choose("mask", torch.zeros(1)) == "numba"
    with refuses(ValueError, "choose one of"):
        kernels.use("cuda")


def test_use_holds_until_changed_and_a_block_puts_back_what_was():
    kernels.use("torch")
    try:
        assert kernels.choose("mask", torch.zeros(1)) == "torch"
        with kernels.use("numba"):
            assert kernels.choose("mask", torch.zeros(1)) == "numba"
        assert kernels.choose("mask", torch.zeros(1)) == "torch"
        with pytest.raises(ZeroDivisionError), kernels.use(None):
            1 / 0
        assert kernels.choose("mask", torch.zeros(1)) == "torch"
    finally:
        kernels.use(None)
    assert kernels.choose("mask", torch.zeros(1, dtype=torch.float64)) == "torch"  # numba's path has no float64


def test_the_table_of_this_machine_names_a_path_for_every_operation():
    rows = paths.table("cpu")
    assert [row[0] for row in rows] == list(paths.TABLE)
    assert all(path in paths.PATHS for _, path, _ in rows)


def test_the_torch_path_is_there_without_numba(monkeypatch):
    monkeypatch.setattr(paths, "_no_numba", lambda: "numba cannot be imported (too old)")
    paths._say_once.cache_clear()
    assert kernels.choose("mask", torch.zeros(1)) == "torch"


@pytest.mark.parametrize("found, refused", [("3.0.0", True), ("3.1.0", True), ("3.2.0", False), ("4.0.0+git1", False)])
def test_a_triton_too_old_for_these_kernels_is_left_alone(monkeypatch, found, refused):
    monkeypatch.setattr(paths, "version", lambda name: found)
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: object())
    reason = paths._no_triton.__wrapped__()
    assert (reason is not None) == refused and (not refused or found in reason)
