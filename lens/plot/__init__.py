"""How does a result look?  Each function takes results, draws on matplotlib axes, and returns them."""

from lens.plot.curves import by_layer, by_segment, outer_product, similarity, spectrum
from lens.plot.grid import grid
from lens.plot.masks import LiveHistory, density_heatmap, energy_ratios, head_heatmap, mask_history, sensitivity
from lens.plot.mechanism import imprint_and_shift, mlp_pass
from lens.plot.overlap import iou_heatmap, upset, venn
from lens.plot.relearn import learning_curves
from lens.plot.roofline import roofline

__all__ = [
    "LiveHistory", "by_layer", "by_segment", "density_heatmap", "energy_ratios", "grid", "head_heatmap",
    "imprint_and_shift", "learning_curves", "iou_heatmap", "mask_history", "mlp_pass", "outer_product", "roofline",
    "sensitivity", "similarity", "spectrum", "upset", "venn",
]  # fmt: skip
