"""May the page answer an explorer's questions by itself, and what must it know for that?

The state of an explorer says it under ``kernel``: what ``page/kernel/respond.js`` is told beside each request.  None
says that only Python can answer: the model is none of those a page can hold, or is no longer as it was shipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from lens.data import paths
from lens.mask import Subnetwork
from lens.model import LanguageModel, load

KIND = "gpt2"
"""The architecture that ``page/engine`` computes."""


def in_page(explorer: str, lm: LanguageModel, **settings) -> dict | None:
    """What an explorer (``"lens"``, ``"edit"``, ``"mask"``, ``"overlap"``) needs in a page; None for another model.

    >>> import lens
    >>> in_page("lens", lens.load("mini"), k=3)
    {'explorer': 'lens', 'model': 'mini', 'k': 3}
    """
    if lm.name not in paths.BUILT_IN or lm.model.config.model_type != KIND:
        return None
    if lm.changed or lm.weights.current_fingerprint != _shipped(lm.name):
        return None
    return {"explorer": explorer, "model": lm.name, **settings}


def digests(subnetworks: Iterable[Subnetwork]) -> list[str]:
    """The names of subnetworks in ``lensMasks``: the beginnings of their digests."""
    return [one.digest()[:16] for one in subnetworks]


@cache
def _shipped(name: str) -> str:
    return load(name).fingerprint
