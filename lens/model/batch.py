"""How do prompts of different lengths run as one batch, and where is each target's token predicted?

Causal attention never looks right, so padding on the right needs no mask: the pads are computed and left out.  A target
of m tokens is predicted from the prompt's last position and from its own first m − 1 tokens (teacher forcing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """B prompts, each followed by its target but for the last token, and the K places where a target's token is due.

    ``ids`` [B, T], ``real`` [B, T] (False on padding), ``lengths`` (B of them).  ``row``, ``position`` and ``label``
    [K]: position ``position[k]`` of prompt ``row[k]`` is where token ``label[k]`` is predicted.  ``share`` [K] is one
    over the number of tokens in that target, so that a weighted sum over k is the sum of the prompts' mean losses.
    """

    ids: Tensor
    real: Tensor
    lengths: tuple[int, ...]
    row: Tensor
    position: Tensor
    label: Tensor
    share: Tensor

    def due(self, hidden: Tensor) -> Tensor:
        """[K, d] of ``hidden`` [B, T, d]: what stands at the places where a target's token is due."""
        return hidden[self.row.to(hidden.device), self.position.to(hidden.device)]


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one tensor [B, T], padded on the right with 0, and which of its places are real [B, T].

    >>> pad([[5, 6, 7], [8]])[0]
    tensor([[5, 6, 7],
            [8, 0, 0]])
    """
    lengths = torch.tensor([len(row) for row in rows])
    ids = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


def teacher_forced(prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """The batch that scores ``targets[b]`` behind ``prompts[b]``, both as token ids.

    >>> batch = teacher_forced([[1, 2, 3]], [[7, 8]])
    >>> batch.ids.tolist(), batch.position.tolist(), batch.label.tolist()
    ([[1, 2, 3, 7]], [2, 3], [7, 8])
    """
    rows = [[*prompt, *target[:-1]] for prompt, target in zip(prompts, targets)]
    ids, real = pad(rows)
    where = [(b, len(p) - 1 + j) for b, (p, t) in enumerate(zip(prompts, targets)) for j in range(len(t))]
    row, position = torch.tensor(where).T
    label = torch.tensor([token for target in targets for token in target])
    share = torch.tensor([1 / len(t) for t in targets for _ in t], dtype=torch.float64)
    return Batch(ids, real, tuple(map(len, rows)), row, position, label, share)


def chunks(rows: Iterable[T], length: Callable[[T], int], tokens: int, padding: float = inf) -> Iterator[list[T]]:
    """Runs of rows, which come shortest first, of at most ``tokens`` places and ``padding`` empty ones, or one row."""
    chunk: list[T] = []
    real = 0
    for row in rows:
        places = (len(chunk) + 1) * length(row)
        if chunk and (places > tokens or places - real - length(row) > padding):
            yield chunk
            chunk, real = [], 0
        chunk.append(row)
        real += length(row)
    if chunk:
        yield chunk
