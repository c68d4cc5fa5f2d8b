"""What is computed fast, and on what?  Outer products, projection into the vocabulary, masks, losses over it.

One public function per operation; ``paths`` decides per call whether torch, numba or Triton computes it, and ``naive``
holds each formula as it reads.  Nothing here knows about models: tensors in, tensors out.

    outer products   norms, token_norms, inner, singular, singular_values, update_
    projection       project, unembed
    masks            mask, sample, density, AllMasks, Key, uniform; Bits, pack, iou
    losses           kl_uniform, kl_reference
    choice of path   use, choose
"""

from lens.kernels import naive, paths
from lens.kernels.bits import Bits, iou, pack
from lens.kernels.divergence import kl_reference, kl_uniform
from lens.kernels.expected_density import density
from lens.kernels.factors import inner, norms, singular, singular_values, token_norms
from lens.kernels.logits import CHUNK_BYTES, unembed
from lens.kernels.masking import mask, sample
from lens.kernels.masks import AllMasks
from lens.kernels.noise import Key, uniform
from lens.kernels.paths import choose, use
from lens.kernels.update import Undo, update_
from lens.kernels.vocabulary import project

__all__ = [
    "CHUNK_BYTES", "Bits", "Key", "AllMasks", "Undo", "choose", "density", "inner", "iou", "kl_reference", "kl_uniform",
    "mask", "naive", "norms", "pack", "paths", "project", "sample", "singular", "singular_values", "token_norms",
    "unembed", "uniform", "update_", "use",
]  # fmt: skip
