"""Is the running Python older than what is installed?

After an installation in a running notebook, packages that were imported before it are still the old ones in memory,
beside new files on disk.  That ends in errors far from their cause, so it is asked first, before anything heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

PACKAGES = ("numpy", "torch", "transformers", "tokenizers", "safetensors", "pandas", "matplotlib", "numba")


def refuse(loaded: Mapping[str, ModuleType] = sys.modules) -> None:
    """Raise ``ImportError`` in one sentence where a package in ``loaded`` has another version than the installed one.

    >>> refuse({})
    """
    for name in PACKAGES:
        running = getattr(loaded.get(name), "__version__", None)
        if running is None:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if _public(running) != _public(installed):
            raise ImportError(
                f"{name} {running} is loaded, but {installed} has been installed since: restart the kernel (on Colab: "
                "Runtime, Restart session), then run all cells again."
            )


def _public(version: str) -> str:
    """A version without its build, such as +cu128."""
    return version.partition("+")[0]


refuse()
