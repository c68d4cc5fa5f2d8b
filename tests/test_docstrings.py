"""The examples in the docstrings come true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import lens

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(lens.__path__, "lens.")
    if not m.name.startswith("lens.kernels.gpu") and not m.name.endswith("__main__")  # Triton's need a GPU's compiler
)


def module(name: str):
    """A module; one with an example that opens a trained model, or counts a published one's work, is slow."""
    slow = re.search(r">>>.*(lens\.load|setup|_table_1)\(", Path(find_spec(name).origin).read_text(encoding="utf-8"))
    return pytest.param(name, marks=pytest.mark.slow) if slow else name


@pytest.mark.parametrize("name", map(module, MODULES))
def test_examples(name):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0
