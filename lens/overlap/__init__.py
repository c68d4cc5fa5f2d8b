"""What do subnetworks share, with each other and with what is written into a model?"""

from lens.overlap.comparison import Measured, Overlap, compare
from lens.overlap.energy import Energy, energy
from lens.overlap.sets import at_least, intersection, union

__all__ = ["Energy", "Measured", "Overlap", "at_least", "compare", "energy", "intersection", "union"]
