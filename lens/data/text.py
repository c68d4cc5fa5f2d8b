"""Ordinary text of the built-in world: what the model read besides facts, and what it never read."""

from __future__ import annotations

from lens.data import paths
from lens.data.opening import paragraphs


def passages() -> tuple[str, ...]:
    """The hand-written passages, one string each; every seventh is kept out of training.

    >>> passages()[0][:25]
    'A candle looks simple, bu'
    """
    return _paragraphs("passages.txt")


def heldout() -> tuple[str, ...]:
    """Paragraphs that no training saw, generated and hand-written: the ControlLM text, and the perplexity's.

    >>> len(heldout()) > 100
    True
    """
    return _paragraphs("heldout.txt")


def _paragraphs(name: str) -> tuple[str, ...]:
    return paragraphs((paths.world() / name).read_text(encoding="utf-8"))
