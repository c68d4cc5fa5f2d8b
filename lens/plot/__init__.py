"""Figures of the book.  Each function takes results, draws on matplotlib axes, and returns them."""

from lens.plot.curves import by_layer, by_segment, similarity
from lens.plot.grid import grid
from lens.plot.outer import outer_product

__all__ = ["by_layer", "by_segment", "grid", "outer_product", "similarity"]
