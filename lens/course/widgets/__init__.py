"""Explorers: the book's figures that answer back, in a notebook and in the printed page alike."""

from importlib import import_module

_HOMES = {
    "LensExplorer": "lens_explorer",
    "EditExplorer": "edit_explorer",
    "MaskExplorer": "mask_explorer",
    "OverlapExplorer": "overlap_explorer",
    "ChartExplorer": "chart_explorer",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    """An explorer on first use, with its page's script and style."""
    if name in _HOMES:
        return getattr(import_module(f"lens.course.widgets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lens.widgets' has no attribute {name!r}")
