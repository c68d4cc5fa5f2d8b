"""Which implementation runs?  One table, consulted at every call.

Every operation of ``lens.kernels`` has a *torch* path that runs wherever torch does, and some have a faster one:
*triton* on an NVIDIA GPU, *numba* on a CPU.  ``choose`` looks at the operation, the device, its compute capability and
the dtypes, and answers with one of these names; ``python -m lens info`` prints its answers.  Nothing is imported,
compiled or set before a call needs it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

PATHS = ("torch", "numba", "triton")

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rule:
    """Where an operation has a faster path than torch's own.

    ``cpu``: the path on a CPU.  ``capability``: the oldest GPU the Triton kernel is for, as 10 × compute capability.
    Triton itself supports 80 and later; a kernel without a matrix product also compiles for 75 (T4) and runs there.
    """

    what: str
    cpu: str
    capability: int


TABLE = {
    "norms": Rule("norms and inner products of factored gradients", cpu="numba", capability=80),
    "update": Rule("low-rank update W += η xᵀδ", cpu="torch", capability=75),
    "project": Rule("reading vectors as words", cpu="torch", capability=75),
    "mask": Rule("Gumbel-sigmoid mask, forward and backward", cpu="numba", capability=75),
    "density": Rule("mean σ(l) and its gradient", cpu="torch", capability=75),
    "kl": Rule("KL divergences over the vocabulary", cpu="torch", capability=75),
}
"""The operations and their rules.  The choice for one call is ``choose(operation, *tensors)``."""

_forced: str | None = None
_log = logging.getLogger("lens.kernels")


class use:
    """Force one path, ``"torch"``, ``"numba"`` or ``"triton"``, for every call from now on; ``None`` chooses again.

    As a context manager it holds for the block.  Raises ``ValueError`` for another name, and ``RuntimeError`` with the
    reason where the path cannot run here at all; an operation that lacks the path says so when it is called.

    >>> with use("torch"):
    ...     choose("mask", torch.zeros(2))
    'torch'
    >>> choose("mask", torch.zeros(2))
    'numba'
    """

    def __init__(self, path: str | None):
        global _forced
        if path is not None and path not in PATHS:
            raise ValueError(f"There is no path {path!r}: choose one of {', '.join(PATHS)}, or None.")
        if path == "triton" and not torch.cuda.is_available() and not interpreting():
            raise RuntimeError(f"The path 'triton' cannot be used: {_no_triton() or _NO_GPU}.")
        self._before, _forced = _forced, path

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_) -> None:
        global _forced
        _forced = self._before


def choose(operation: str, *tensors: Tensor) -> str:
    """The path of one call: the forced one, or the fastest that this device and these dtypes allow."""
    device = tensors[0].device
    wanted = _forced or (TABLE[operation].cpu if device.type == "cpu" else "triton")
    dtypes = tuple(t.dtype for t in tensors)
    reason = obstacle(wanted, operation, device, dtypes)
    if reason is None:
        return wanted
    if _forced:
        raise RuntimeError(f"{operation!r} cannot take the path {wanted!r}: {reason}.")
    if not _dtypes(dtypes):  # float64 is asked for on purpose, and only torch has it
        _say_once(f"{TABLE[operation].what}: torch instead of {wanted}, because {reason}.")
    return "torch"


def obstacle(path: str, operation: str, device: torch.device, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """Why ``path`` cannot run this operation on this device and these dtypes; None where it can."""
    rule = TABLE[operation]
    if path == "torch":
        return None
    if path == "numba":
        if rule.cpu != "numba":
            return "it has no numba path"
        if device.type != "cpu":
            return f"numba's path is for the CPU and the tensors are on {device}"
        return _no_numba() or _dtypes(dtypes)
    if _no_triton():
        return _no_triton()
    if device.type == "cpu":
        return _dtypes(dtypes) if interpreting() else _NO_GPU
    if device.type != "cuda" or torch.version.hip:
        return f"the Triton kernels were written for NVIDIA GPUs and the tensors are on {device}"
    major, minor = torch.cuda.get_device_capability(device)
    capability = 10 * major + minor
    if capability < rule.capability:
        return f"this GPU has compute capability {major}.{minor} and the Triton kernel needs {rule.capability / 10:.1f}"
    if capability < 80 and torch.bfloat16 in dtypes:
        return f"a GPU of compute capability {major}.{minor} has no bfloat16"
    return _dtypes(dtypes)


def table(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> list[tuple[str, str, str]]:
    """(operation, path, why not the faster one) for one device, as ``python -m lens info`` shows it."""
    device = torch.device(device)
    rows = []
    for operation, rule in TABLE.items():
        wanted = _forced or (rule.cpu if device.type == "cpu" else "triton")
        reason = obstacle(wanted, operation, device, (dtype,))
        rows.append((operation, "torch" if reason else wanted, reason or ""))
    return rows


def interpreting() -> bool:
    """Was Python started with ``TRITON_INTERPRET=1``?  Then Triton kernels run on CPU tensors, one line at a time."""
    return os.environ.get("TRITON_INTERPRET") == "1" and not _no_triton()


def multiplies(device: torch.device) -> bool:
    """Does a Triton kernel with a matrix product run here?  A GPU has to have compute capability 8.0."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


_NO_GPU = (
    "Triton's kernels run on a GPU and there is none here "
    "(TRITON_INTERPRET=1, set before Python starts, interprets them)"
)


def _dtypes(dtypes: tuple[torch.dtype, ...]) -> str | None:
    strange = [d for d in dtypes if d not in (torch.float32, *HALF)]
    return f"it is for float32, float16 and bfloat16 and got {strange[0]}" if strange else None


@cache
def _no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        found = version("triton")
    except PackageNotFoundError:  # a build under another name says no version without being imported
        return None
    return f"Triton {found} is older than 3.2" if tuple(map(int, found.split(".")[:2])) < (3, 2) else None


@cache
def _no_numba() -> str | None:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return f"numba cannot be imported ({error})"
    return None


@cache
def _say_once(line: str) -> None:
    _log.warning(line)
