"""The first cell of every chapter: one call that opens the model, fixes the seed and says what it runs on."""

from __future__ import annotations

import platform
import random

import torch

from lens.given import door
from lens.model import LanguageModel
from lens.model.loading import load
from lens.results.provenance import VERSION

__all__ = ["setup"]


@door
def setup(model: str = "mini", seed: int = 0, device: str | None = None) -> LanguageModel:
    """Load ``model``, seed Python and torch, set the book's figure style, and print versions in one line.

    >>> lm = setup("mini")  # doctest: +ELLIPSIS
    lens ... on cpu...
    """
    import transformers

    from lens.plot import style

    lm = load(model, device=device)
    random.seed(seed)
    torch.manual_seed(seed)
    style.use()
    where = torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else str(lm.device)
    print(
        f"lens {VERSION}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}, on {where}, seed {seed}\n{lm}"
    )
    return lm
