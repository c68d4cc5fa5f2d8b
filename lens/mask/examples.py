"""What do the losses look at?  Prompts and texts, run once through the model as it is, before any mask.

Layers below the first masked one never change, so what enters it is computed once for a whole training,
h [N, T, d]; and so is what the model itself predicts where a control loss is taken, as ln_f's output (a row of d
numbers, from which kernels make the V logits again when they are needed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.tokens import text_ids
from lens.model.upper import UpperLayers

TOKENS = 4096
"""How many tokens run through the model at a time, padding included."""


@dataclass(frozen=True)
class Examples:
    """N rows of at most T tokens, and the K places in them where a prediction counts.

    ``hidden`` [N, T, d] is what enters the first masked layer; ``lengths`` [N].  A row's places are ``position`` [N, M]
    (0 where it has fewer), ``label`` [N, M] the tokens due there, ``share`` [N, M] their weights, which sum to 1 in a
    row (0 where there is no place), and ``reference`` [N, M, d] the original model's ln_f output there.
    """

    hidden: Tensor
    lengths: Tensor
    position: Tensor
    label: Tensor
    share: Tensor
    reference: Tensor

    def __len__(self) -> int:
        return len(self.hidden)

    def rows(self, chosen: Tensor) -> Examples:
        """Some of the rows, cut to the longest of them."""
        longest = int(self.lengths[chosen].max())
        there = chosen.to(self.hidden.device)
        rest = (t[chosen.to(t.device)] for t in (self.position, self.label, self.share, self.reference))
        return Examples(self.hidden[there, :longest], self.lengths[chosen], *rest)


def examples(lm: LanguageModel, rows: Sequence[Sequence[int]], places, layer: int) -> Examples:
    """Run ``rows`` of token ids once; ``places[n]`` lists (position, token due there) of row n."""
    most = max(map(len, places))
    position, label = torch.zeros(2, len(rows), most, dtype=torch.long)
    share = torch.zeros(len(rows), most)
    for n, row in enumerate(places):
        position[n, : len(row)], label[n, : len(row)] = torch.tensor(row).T
        share[n, : len(row)] = 1 / len(row)
    ids, _ = pad(rows)
    lengths = torch.tensor([len(row) for row in rows])
    hidden, reference = [], []
    step = max(1, TOKENS // ids.shape[1])
    for start in range(0, len(ids), step):
        upper = UpperLayers(lm, ids[start : start + step], layer)
        where = position[start : start + step].to(upper.normed.device)
        hidden.append(upper.hidden)
        reference.append(upper.normed[torch.arange(len(where), device=where.device)[:, None], where])
    hidden, reference = torch.cat(hidden), torch.cat(reference)
    position, label, share = (t.to(reference.device) for t in (position, label, share))
    return Examples(hidden, lengths, position, label, share, reference)


def of_prompts(lm: LanguageModel, prompts: Sequence, layer: int, after: bool = False) -> Examples:
    """The places that predict each prompt's tail; ``after``: those one token later, as an ablation."""
    rows, places = [], []
    for prompt in prompts:
        ids, target = lm.encode(prompt.text), lm.target_ids(prompt.target)
        lm.encode([*ids, *target])
        rows.append([*ids, *target] if after else [*ids, *target[:-1]])
        places.append([(len(ids) - 1 + j + after, token) for j, token in enumerate(target)])
    return examples(lm, rows, places, layer)


def of_texts(lm: LanguageModel, texts: Sequence[str], layer: int, tokens: int) -> Examples:
    """Every place of each text but the last of its first ``tokens`` tokens; texts of one token are left out.

    Raises ``ValueError`` where no text is left.
    """
    rows = [lm.encode(text_ids(lm.tokenizer, text)[:tokens]) for text in texts if text.strip()]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise ValueError("No text of the control set has two tokens: give ordinary text, a paragraph an entry.")
    return examples(lm, rows, [list(enumerate(row[1:])) for row in rows], layer)


class Order:
    """Which rows are due at a step: ``size`` of ``count`` rows, all of them once before any comes again.

    It has no state that a resumed run would miss: pass p over the rows is a permutation that follows from (seed, p).
    """

    def __init__(self, count: int, size: int, seed: int, stream: int):
        self.count, self.size, self._seed, self._stream = count, min(count, size), seed, stream
        self._pass = lru_cache(2)(self._permutation)

    def __getitem__(self, step: int) -> Tensor:
        first = step * self.size
        return torch.stack([self._pass(i // self.count)[i % self.count] for i in range(first, first + self.size)])

    def _permutation(self, which: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed * 3 + self._stream) * 1_000_003 + which)
        return torch.randperm(self.count, generator=generator)
