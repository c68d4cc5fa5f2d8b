"""What the tests of the engine may ask for: the engine in a browser, or in node where there is no browser."""

from __future__ import annotations

import shutil

import pytest
from in_page import Engine

from lens.data import paths


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    """The engine in Chromium, from a file and without a network; without Chromium in node, and without node not."""
    try:
        chromium = request.getfixturevalue("chromium")
    except pytest.skip.Exception:
        chromium = None
        if not shutil.which("node"):
            pytest.skip("neither Chromium nor node: python -m playwright install chromium")
    engine = Engine(tmp_path_factory.mktemp("engine"), chromium)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def with_mini(engine):
    """The engine with the built-in model opened."""
    engine.open("mini", paths.model())
    return engine
