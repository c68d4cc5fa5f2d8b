"""The examples in the docstrings come true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lens

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(lens.__path__, "lens.")
    if not m.name.startswith("lens.kernels.gpu") and not m.name.endswith("__main__")  # Triton's need a GPU's compiler
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0
