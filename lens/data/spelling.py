"""How is a word set in a text?  The space before it, where a name stands, and which spellings are one name."""

from __future__ import annotations

import re
from unicodedata import combining, normalize

JOINED = "##"
"""In front of a target it says that no space comes before it, as in WordPiece: ``##ing``."""

_UNSPACED = re.compile(
    r"[,.;:!?%…)\]}”»](?!\w)"  # marks that close or separate
    r"|['’](?:[stmd]|re|ve|ll)\b"  # 's, 't, …
    # Thai and Lao, Burmese, Khmer; Han, kana and their marks, without Hangul, which is spaced
    r"|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]",
    re.IGNORECASE,
)


def continuation(target: str) -> str:
    """The text that a target adds to its prompt, as running text has it.

    A word gets the space that stands before it.  There is none before a comma and its like, before ``'s``, and before
    Han, kana, Thai, Lao, Burmese and Khmer, nor where ``target`` begins with white space or with ``##``, which is cut.

    >>> [continuation(target) for target in ("Paris", " Paris", ",", "'s", "北京", "##ing", " 北京")]
    [' Paris', ' Paris', ',', "'s", '北京', 'ing', ' 北京']
    """
    if target.startswith(JOINED):
        return target[len(JOINED) :]
    return target if target[:1].isspace() or _UNSPACED.match(target) else f" {target}"


def find(text: str, name: str) -> tuple[int, int] | None:
    """Where ``name`` first stands in ``text`` as a whole word, else as a part of one: [start, end), or None.

    It is found in either spelling of its letters, composed (NFC) or not (NFD).

    >>> find("Unlike the Indian capital, the capital of India is", "India")
    (42, 47)
    """
    seen, sought = normalize("NFD", text), normalize("NFD", name)
    origin = [i for i, c in enumerate(text) for _ in normalize("NFD", c)] + [len(text)]
    part = None
    for match in re.finditer(f"(?={re.escape(sought)})", seen) if name.strip() else ():
        a, b = match.start(), match.start() + len(sought)
        before, after = seen[a - 1 : a] if a else "", seen[b : b + 1]
        if (a and origin[a] == origin[a - 1]) or origin[b] == origin[b - 1] or (after and combining(after)):
            continue  # it would cut a letter in two
        if not (_in_word(before) and _in_word(sought[0]) or _in_word(sought[-1]) and _in_word(after)):
            return origin[a], origin[b]
        part = part or (origin[a], origin[b])
    return part


def _in_word(c: str) -> bool:
    return bool(c) and (c.isalnum() or combining(c) > 0)


def one_name(name: str) -> str:
    """The same for every spelling of a name: in either case, composed or not.

    >>> one_name("É") == one_name("e\\u0301")
    True
    """
    return normalize("NFC", name).casefold()
