"""How well does a model know several sets of facts and texts, under one change of its upper layers after another?

The layers below the lowest change compute what they always did: they run once for all variants, and so does the whole
model as it is, whose readings are the ones that others are compared with.  A *place* is where a token of a set is due,

    facts    the places that predict the tail's tokens, behind the prompt and the tail's tokens before;
    texts    every place but the last.

Of the [K, V] logits at K places, one number of each is kept: −log p of the token due, and its rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from math import exp, inf
from statistics import fmean

import torch
from torch import Tensor

from lens import kernels
from lens.data.world import Prompt
from lens.model import LanguageModel
from lens.model.batch import Batch, chunks, teacher_forced
from lens.model.tokens import first_token
from lens.model.upper import UpperLayers

TOKENS = 2048
"""How many tokens run through the model at a time, padding included."""


@dataclass(frozen=True)
class Measures:
    """What one variant of a model knows of one set of ``count`` facts, or tokens of text.

    ``ppl``: exp of the mean −log p of the tokens due, all of a tail's.  ``rank``: the mean rank (0 is the best) of the
    right token, a tail's first; ``top1``, ``top5``, ``top10``: the shares, 0 to 1, whose rank is below 1, 5, 10.
    ``delta_ppl`` and ``delta_log_prob``: the variant's less the original's perplexity, and mean log-probability of a
    whole tail (of a token, where the set is text).
    """

    ppl: float
    delta_ppl: float
    rank: float
    top1: float
    top5: float
    top10: float
    delta_log_prob: float
    count: int

    @classmethod
    def mean(cls, some: Sequence[Measures]) -> Measures:
        """The mean of each number, over variants measured on one set."""
        means = {f.name: fmean(getattr(m, f.name) for m in some) for f in fields(cls)}
        return cls(**means | {"count": some[0].count})


class Readings:
    """The named ``sets`` of prompts or texts, ready to be read by variants of ``lm`` that differ from ``layer`` on.

    Texts of one token are left out, and so are sets of nothing.  Raises ``ValueError`` for a prompt or text that does
    not fit the model, and where nothing is left.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> readings = Readings(lm, {"target": lens.data.knowledge("building").target}, layer=7)
    >>> readings()["target"].top1
    1.0
    """

    def __init__(self, lm: LanguageModel, sets: Mapping[str, Sequence[Prompt | str]], layer: int):
        self._lm = lm
        every = dict.fromkeys(chain.from_iterable(sets.values()))  # a prompt of two sets runs once
        runs = {one: run for one in every if (run := _run(lm, one))}
        if not runs:
            raise ValueError("There is nothing to read: give at least one prompt, or one text of two tokens.")

        def length(one: Prompt | str) -> int:
            first, due = runs[one]
            return len(first) + len(due) - 1

        self._batches: list[tuple[UpperLayers, Batch]] = []
        original, ordered = [], sorted(runs, key=length)
        for chunk in chunks(ordered, length, TOKENS):
            batch = teacher_forced(*zip(*(runs[one] for one in chunk)))
            with torch.no_grad():
                upper = UpperLayers(lm, batch.ids, layer)
                self._batches.append((upper, batch))
                original.append(self._read(upper.normed, batch))
            del upper.normed  # as large as the hidden states that must stay
        self._original = [torch.cat(part) for part in zip(*original)]
        due = torch.tensor([len(runs[one][1]) for one in ordered])
        begins = torch.tensor([isinstance(one, str) for one in ordered]).repeat_interleave(due)
        begins[due.cumsum(0) - due] = True
        self._places = {}  # name → which places, and which of those begin a tail
        for name, some in sets.items():
            members = set(some)
            chosen = torch.tensor([one in members for one in ordered]).repeat_interleave(due)
            if chosen.any():
                self._places[name] = chosen, chosen & begins

    @property
    def original(self) -> dict[str, Measures]:
        """Each set under the model as it was when this object was made."""
        return self._measures(*self._original)

    @torch.no_grad()
    def __call__(self) -> dict[str, Measures]:
        """Each set under the model as it is at the moment; below ``layer`` it must be what it was."""
        found = [self._read(upper(), batch) for upper, batch in self._batches]
        return self._measures(*(torch.cat(part) for part in zip(*found)))

    def _read(self, normed: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """−log p of each token due, and its rank, both [K] on the CPU."""
        unembedding = self._lm.unembedding.detach()
        at, due = (t.to(unembedding.device) for t in (batch.due(normed), batch.label))
        out = kernels.project(at, unembedding, tokens=due, log_normalizer=True, **self._lm.head_terms)
        return (out["log_normalizer"].double() - out["token_logits"].double()).cpu(), out["ranks"].cpu()

    def _measures(self, nll: Tensor, rank: Tensor) -> dict[str, Measures]:
        found = {}
        for name, (chosen, first) in self._places.items():
            ranks, before, after = rank[first], self._original[0][chosen], nll[chosen]
            ppl, change = _exp(after.mean()), float((before - after).sum()) / len(ranks)
            tops = (float((ranks < k).double().mean()) for k in (1, 5, 10))
            mean_rank = float(ranks.double().mean())
            found[name] = Measures(ppl, ppl - _exp(before.mean()), mean_rank, *tops, change, len(ranks))
        return found


def _run(lm: LanguageModel, one: Prompt | str) -> tuple[list[int], list[int]] | None:
    """The first tokens, and those due behind them; None for a text of one token."""
    if isinstance(one, str):
        ids = lm.encode(one) if one.strip() else []
        return (ids[:1], ids[1:]) if len(ids) > 1 else None
    prompt, due = lm.encode(one.text), lm.target_ids(one.target)
    first_token(lm.tokenizer, due)  # whose rank is taken
    lm.encode([*prompt, *due[:-1]])  # may be too long
    return prompt, due


def _exp(mean: Tensor) -> float:
    return inf if mean > 700 else exp(mean)
