"""Is it "a" or "an"?  A rule for the sound at the beginning of an English word, read off its spelling.

A vowel's letter takes "an" unless it is said like *you* or *won* (university, use, Europe, one); a silent h takes it
(hour, honest, heir, and in American English herb), and so do 8…, 11, 18 and an abbreviation whose first letter's name
begins with a vowel (X-ray, FBI agent).  Its limits: an abbreviation said as a word (NASA) is taken for one that is
spelled out, and rarer exceptions (ouija, yttrium, hors d'oeuvre) are not known.
"""

from __future__ import annotations

import re
from unicodedata import normalize

_YOU = r"eu|ew|unanim|unary|uni(?!d(?!ir)|m(?!od)|n)|u[bcfhjkqrst][aeiou]|ugand"
_WON = r"(?:one|once)(?![a-z])"
_SILENT = r"hour|hono|honest|heir|herb(?!i)"
_AN = re.compile(rf"(?!{_YOU}|{_WON})[aeiouæøœ]|{_SILENT}|8|1[18](?!\d)", re.IGNORECASE)
_SPELLED = re.compile(r"[A-Z](?!\w*[a-z])")


def indefinite(word: str) -> str:
    """The indefinite article, ``"a"`` or ``"an"``, before a word or phrase.

    >>> [indefinite(word) for word in ("hour", "university", "8-bit computer", "unimportant fact", "honey bee")]
    ['an', 'a', 'an', 'an', 'a']
    """
    if _SPELLED.match(word):
        return "an" if word[0] in "AEFHILMNORSX" else "a"
    return "an" if _AN.match(normalize("NFD", word)) else "a"
