"""Figures of the book.  Each function takes results, draws on matplotlib axes, and returns them."""

from lens.plot.curves import by_layer, by_segment, similarity, spectrum
from lens.plot.grid import grid
from lens.plot.mechanism import imprint_and_shift, mlp_pass
from lens.plot.outer import outer_product
from lens.plot.roofline import roofline

__all__ = [
    "by_layer",
    "by_segment",
    "grid",
    "imprint_and_shift",
    "mlp_pass",
    "outer_product",
    "roofline",
    "similarity",
    "spectrum",
]
