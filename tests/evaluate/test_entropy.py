"""N-gram entropy: its formula, on texts that can be counted by hand."""

from __future__ import annotations

from collections import Counter
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens.evaluate.entropy import ngram_entropy


@pytest.mark.parametrize(
    "text, h2, h3",
    [
        ("a b c d", log2(3), log2(2)),  # 3 bigrams, 2 trigrams, all different
        ("a a a a a a", 0.0, 0.0),
        ("a b a b a", 1.0, -(2 / 3) * log2(2 / 3) - (1 / 3) * log2(1 / 3)),  # ab ba ab ba; aba bab aba
        ("a b", 0.0, 0.0),
        ("a", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("Don't go, go!", log2(4), log2(3)),  # five words: Don't / go / , / go / !
    ],
)
def test_entropy_of_a_text_is_its_formula(text, h2, h3):
    assert ngram_entropy([text]) == pytest.approx(100 * (2 / 3 * h2 + 4 / 3 * h3) / 2, abs=1e-9)


def test_entropy_of_texts_is_the_mean_of_theirs():
    texts = ["a b c d", "a a a a", "one two one two three"]
    assert ngram_entropy(texts) == pytest.approx(sum(ngram_entropy([t]) for t in texts) / 3)


def test_no_text_has_no_entropy():
    assert ngram_entropy([]) is None


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=60))
def test_entropy_is_numpys(words):
    """As in ROME's evaluation: frequencies, −Σ f log₂ f, weights ⅔ and 4/3, the mean of the two."""
    hs = []
    for n in (2, 3):
        counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        f = np.array(list(counts.values())) / sum(counts.values())
        hs.append(np.sum(-f * np.log(f) / np.log(2)))
    want = 100 * np.mean(np.array(hs) * np.array([2 / 3, 4 / 3]))
    assert ngram_entropy([" ".join(words)]) == pytest.approx(want, abs=1e-9)
