"""Explorers: the book's figures that answer back, in a notebook and in the printed page alike."""

from lens.course.widgets.chart_explorer import ChartExplorer
from lens.course.widgets.edit_explorer import EditExplorer
from lens.course.widgets.lens_explorer import LensExplorer
from lens.course.widgets.mask_explorer import MaskExplorer
from lens.course.widgets.overlap_explorer import OverlapExplorer

__all__ = ["LensExplorer", "EditExplorer", "MaskExplorer", "OverlapExplorer", "ChartExplorer"]
