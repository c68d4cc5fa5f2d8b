"""How does an exercise get numbers at random that are the same at every call, and on every machine?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch


def seeded(draw: Callable = torch.randn, seed: int = 0, **options: Any) -> Callable[..., torch.Tensor]:
    """``draw`` with a generator of its own: call it again and again for one tensor after the other.

    >>> torch.equal(seeded()(2, 3), seeded()(2, 3))
    True
    """
    return partial(draw, generator=torch.Generator().manual_seed(seed), **options)
