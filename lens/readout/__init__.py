"""Which words does a vector stand for?  Projection into the vocabulary, both lenses, and a prompt's segments."""

from lens.readout.lenses import Lens, backward_lens, logit_lens
from lens.readout.projection import Projection, project, token_rank
from lens.readout.segments import SEGMENTS, segments

__all__ = [
    "SEGMENTS", "Lens", "Projection", "backward_lens", "logit_lens", "project", "segments", "token_rank",
]  # fmt: skip
