"""Which ordinary text is there?  The built-in world's own, read and never read, and English prose for other models."""

from __future__ import annotations

from lens.data import manifest, paths
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


def english(split: str = "train") -> tuple[str, ...]:
    """English prose written by people, under free licences: 400 paragraphs to ``"train"`` on, 100 ``"held_out"``.

    Three of four are from a handbook, in the held-out part from other sections; every fourth is five example sentences
    of a dictionary.  ``data/english/README.md`` names the sources.

    >>> len(english("train")), len(english("held_out"))
    (400, 100)
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"The split {split!r} is unknown: choose 'train' or 'held_out'.")
    return paragraphs(manifest.whole(paths.root() / "english" / f"{split}.txt").read_text(encoding="utf-8"))


def first_sentence(paragraph: str) -> str:
    """What stands before a paragraph's first full stop, with one.

    >>> first_sentence("It rained. We stayed at home.")
    'It rained.'
    """
    return paragraph.split(". ")[0].rstrip(".") + "."


def _paragraphs(name: str) -> tuple[str, ...]:
    return paragraphs(manifest.whole(paths.world() / name).read_text(encoding="utf-8"))
