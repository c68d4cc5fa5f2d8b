"""Does the model still read ordinary text as before?  Perplexity of a fixed sample, under one edit after another.

    perplexity = exp( −(1/K) Σ log p(token | the text before it) ),   K predicted tokens, all texts together

The layers below the lowest change compute what they always did: they run once for all edits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lens.data import paths
from lens.data.text import english, heldout
from lens.edit.branch import branches
from lens.edit.edit import Change
from lens.kernels.logits import chunk_bytes
from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.upper import UpperLayers
from lens.model.watching import as_a_function

TOKENS = 1000
"""The default sample has at least so many tokens."""

BATCH = 4096
"""How many tokens run through the model at a time, padding included."""


def sample(lm: LanguageModel, tokens: int = TOKENS) -> tuple[str, ...]:
    """The first held-out paragraphs, until there are ``tokens`` tokens: of the built-in world, or English prose.

    English is for the real models, those that ``python -m lens model get`` fetches.
    """
    texts, count = [], 0
    for text in english("held_out") if lm.name in paths.FETCHED else heldout():
        if count >= tokens:
            break
        texts.append(text)
        count += len(lm.encode(text))
    return tuple(texts)


class Perplexity:
    """The perplexity of ``texts`` under a model as it is at the moment, or with thin changes beside its weights.

    Make a new one when a weight below the changes has been written.  Raises ``ValueError`` for a text that is too long
    for the model, and where no text has two tokens.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> perplexity = Perplexity(lm, sample(lm))
    >>> edit = lens.edit.shift(lm, lens.Request("The capital of {} is", "France", "Rome"))
    >>> perplexity() <= perplexity(edit.changes)
    True
    """

    def __init__(self, lm: LanguageModel, texts: Sequence[str]):
        self._lm = lm
        rows = sorted((ids for ids in map(lm.encode, texts) if len(ids) > 1), key=len)
        if not rows:
            raise ValueError("Perplexity needs a text of at least two tokens: give texts=, a list of paragraphs.")
        size = max(1, BATCH // len(rows[-1]))
        self._batches = [pad(rows[i : i + size]) for i in range(0, len(rows), size)]
        self.tokens = sum(len(row) - 1 for row in rows)
        self._upper: dict[int, list[UpperLayers]] = {}

    def __call__(self, changes: Sequence[Change] = (), *, lowest: int | None = None) -> float:
        """The perplexity with ``changes`` as branches; of the weights alone where there are none.

        ``lowest``: the lowest layer that differs from the model this object saw first (default: that of ``changes``).
        """
        depth = len(self._lm.layers)
        if lowest is None:
            lowest = min((c.layer % depth for c in changes), default=depth - 1)
        if lowest not in self._upper:
            self._upper[lowest] = [UpperLayers(self._lm, ids, lowest) for ids, _ in self._batches]
        total = 0.0
        for (ids, real), upper in zip(self._batches, self._upper[lowest]):
            with torch.no_grad(), branches(self._lm, [changes] if changes else []):
                total += _nll(self._lm, upper(), ids, real)
        mean = total / self.tokens
        return inf if mean >= 700 else exp(mean)  # NaN of NaN


def _nll(lm: LanguageModel, normed: Tensor, ids: Tensor, real: Tensor) -> float:
    """Σ −log p of every real token but each row's first, from ln_f's output [B, T, d], a chunk of logits at a time."""
    kept = real[:, 1:].to(normed.device)
    hidden = normed[:, :-1][kept]  # [K, d]
    labels = ids[:, 1:].to(normed.device)[kept]
    # The cross-entropy makes as many numbers again, twice: a quarter leaves room for all of them.
    row = 4 * lm.vocabulary_size * max(4, hidden.element_size())
    step = max(1, chunk_bytes(hidden.device, row) // row)
    total = 0.0
    with as_a_function(lm.model):
        for some, wanted in zip(hidden.split(step), labels.split(step)):
            logits = lm.head(some)
            total += cross_entropy(logits, wanted.to(logits.device), reduction="none").double().sum()
    return float(total)
