"""What does one prompt's loss do to every weight?  x and δ of each site, and the algebra of ``∂ℓ/∂W = xᵀδ``."""

from lens.gradient.capture import Trace, capture
from lens.gradient.factored import FactoredGradient

__all__ = ["FactoredGradient", "Trace", "capture"]
