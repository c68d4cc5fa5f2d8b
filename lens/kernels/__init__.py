"""The compute core: outer products, projection into the vocabulary, masks, losses over the vocabulary.

One public function per operation; ``paths`` decides per call whether torch, numba or Triton computes it, and ``naive``
holds each formula as it reads.  Nothing here knows about models: tensors in, tensors out.
"""

from lens.kernels import naive, paths
from lens.kernels.paths import choose, use

__all__ = ["choose", "naive", "paths", "use"]
