"""What the tests of the engine may ask for: the engine in a browser, or in node where there is no browser."""

from __future__ import annotations

import shutil

import pytest
from in_page import Engine

import lens
from lens.course.widgets import EditExplorer, LensExplorer, MaskExplorer, OverlapExplorer, standing
from lens.course.widgets.beside import announcement, page_script
from lens.course.widgets.first_page import FACTS, FirstExplorer
from lens.data import paths


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    """The engine in Chromium, from a file and without a network; without Chromium in node, and without node not."""
    page = None
    try:
        page = request.getfixturevalue("chromium").new_context(offline=True).new_page()
    except pytest.skip.Exception:
        if not shutil.which("node"):
            pytest.skip("neither Chromium nor node: python -m playwright install chromium")
    engine = Engine(tmp_path_factory.mktemp("engine"), page)
    yield engine
    engine.close()
    if page:
        page.context.close()


@pytest.fixture(scope="module")
def with_mini(engine):
    """The engine with the built-in model opened."""
    engine.open("mini", paths.model())
    return engine


@pytest.fixture(scope="session")
def explorers(mini):
    """One of every kind, small."""
    return {
        "lens": LensExplorer(mini, [("The capital of France is", "Rome")], ("ff1", "ff2")),
        "edit": EditExplorer(mini, FACTS[:2], layers=[7], sizes=[0.5, 1], neighbors=1),
        "mask": MaskExplorer(mini, lens.mask.shipped("building", granularity="neuron")),
        "overlap": OverlapExplorer([lens.mask.shipped("building", seed) for seed in range(3)], mini),
        "first": FirstExplorer(mini),
    }


@pytest.fixture(scope="session")
def folder(explorers, tmp_path_factory):
    """Pages as the book has them: the model beside them."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "mini.js").write_text(page_script(), encoding="utf-8")
    (folder / "beside.js").write_text(announcement(), encoding="utf-8")
    for name, explorer in explorers.items():
        page = standing.page(name, explorer.html(), '<script src="beside.js"></script>')
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder
