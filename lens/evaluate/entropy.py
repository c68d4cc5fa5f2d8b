"""Is the text still alive, or does it repeat itself?  The n-gram entropy of Meng et al. (2022).

    H_n = −Σ_g f(g) log₂ f(g),   f the relative frequency of each n-gram g of words in one text
    entropy = 100 · (⅔·H₂ + 4/3·H₃) / 2,   the mean over the texts

A text of m different bigrams and m different trigrams has 100·log₂ m; one that repeats a single word has 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log2

WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
"""A word with its inner apostrophes and hyphens, or one mark of punctuation; nltk, which ROME's code uses, also cuts
"don't" in two."""


def ngram_entropy(texts: Sequence[str]) -> float | None:
    """The n-gram entropy of some texts, in hundredths of a bit; None where there is no text.

    >>> ngram_entropy(["ha ha ha ha ha"]), ngram_entropy(["one two three four five six"])  # 0, 100·(⅔·log₂5 + 4/3·2)/2
    (0.0, 210.730936...)
    """
    each = [2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3) for words in map(WORD.findall, texts)]
    return 50 * sum(each) / len(each) if each else None


def _entropy(words: list[str], n: int) -> float:
    """H_n in bits; 0 where there are fewer than n words."""
    counts = Counter(zip(*(words[i:] for i in range(n)))).values()
    total = sum(counts)
    return -sum(c / total * log2(c / total) for c in counts) + 0.0
