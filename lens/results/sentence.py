"""How does a result hold an error?  As one line, which travels to any machine whatever the error held."""

from __future__ import annotations

from textwrap import shorten


def sentence(error: BaseException) -> str:
    """An error in one line; its kind is named where its words are not written for people.

    >>> sentence(OSError("the disk\\nwas full")), sentence(KeyError())
    ('the disk was full', 'KeyError: no message')
    """
    text = shorten(str(error), 500, placeholder="…") or "no message"
    return text if isinstance(error, (ValueError, IndexError, OSError)) else f"{type(error).__name__}: {text}"
