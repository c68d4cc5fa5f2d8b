"""What does a step work on?  Its text, its model's dtype, what learns in it, and on how many devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from lens.given import whole
from lens.mask.config import Config

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""A dtype's name → bytes of a number."""


@dataclass(frozen=True)
class Work:
    """What a step works on.  Raises ``ValueError`` for a dtype that is none of ``BYTES`` and for a count below 1.

    ``dtype`` of the model's weights.  ``batch`` rows of ``tokens`` tokens (of a mask: the longest prompt), ``scored``
    places in a row where a token is predicted.  ``config``: settings of a mask; ``rows``: how many rows of its three
    sets are kept.  ``layers`` and ``sites``: what learns in "finetune" (None: every parameter) and "lora" (None: every
    matrix); ``rank`` of "lora".  ``edited``: the layers whose FF2 an editor changes; ``contexts``: prompts in its
    search.  ``checkpointing``: layers are run again in the backward pass.  ``devices``: layers spread evenly; the
    fullest is told.
    """

    dtype: str | torch.dtype = "float32"
    batch: int = 1
    tokens: int = 16
    scored: int = 1
    config: Config = field(default_factory=Config)
    rows: tuple[int, int, int] = (64, 128, 16)
    layers: Sequence[int] | None = None
    sites: Sequence[str] | None = None
    rank: int = 8
    edited: Sequence[int] | None = None
    contexts: int | None = None
    checkpointing: bool = False
    devices: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", str(self.dtype).removeprefix("torch."))
        for name in ("rows", "layers", "sites", "edited"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else tuple(value))
        if self.dtype not in BYTES:
            raise ValueError(f"The dtype is {self.dtype!r}: give one of {', '.join(BYTES)}.")
        for name in ("batch", "tokens", "scored", "devices", "rank"):
            whole(name, getattr(self, name), 1)
