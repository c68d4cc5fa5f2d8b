"""How probable is each target behind its prompt, and would the model say it?  Many pairs in few passes.

For a target t of m tokens, teacher-forced,

    nll = −(1/m) Σ_j log p(t_j | prompt, t_1 … t_{j−1}),        correct = every t_j is the argmax.

Pairs that run over the same tokens (two one-token targets behind one prompt) share a row of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lens.edit.branch import branches
from lens.edit.edit import Change
from lens.given import door, refuse
from lens.model import LanguageModel, Tokens
from lens.model.batch import chunks, pad
from lens.model.tokens import plain
from lens.model.watching import as_a_function

TOKENS = 4096
"""How many tokens run through the model at a time, padding included."""

PADDING = 512
"""How much padding a batch may have: where more is due, another batch costs less."""


@dataclass(frozen=True)
class TargetScores:
    """``nll`` [N] float32: the mean −log p of each target's tokens; ``correct`` [N] bool: all are the argmax."""

    nll: Tensor
    correct: Tensor


@door(prompts=None)
@torch.no_grad()
def score(
    lm: LanguageModel,
    prompts: Sequence[Tokens],
    targets: Sequence[Tokens],
    *,
    edits: Sequence[Sequence[Change]] | None = None,
    rows: Sequence[int] | None = None,
    tokens: int = TOKENS,
) -> TargetScores:
    """Score ``targets[i]`` behind ``prompts[i]``, N pairs.

    ``edits`` and ``rows`` [N] run pair i as if ``edits[rows[i]]`` were applied (see ``lens.edit.branches``).
    One edit alone needs no ``rows``.  ``tokens`` bounds the size of a batch.  Raises ``ValueError`` where the lists
    differ in length or a prompt or target does not fit the model.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> score(lm, ["The capital of France is"] * 2, ["Paris", "Rome"]).correct.tolist()
    [True, False]
    """
    prompts, targets = plain(prompts), plain(targets)
    for name, given in (("prompts", prompts), ("targets", targets)):
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
            raise refuse(name, given, "a list, such as [text]")
    if len(prompts) != len(targets):
        raise ValueError(f"Got {len(prompts)} prompts and {len(targets)} targets: give one target per prompt.")
    if rows is not None and len(rows) != len(prompts):
        raise ValueError(
            f"Got {len(prompts)} prompts and {len(rows)} rows: give the number of an edit for each prompt."
        )
    if edits is None if rows is not None else len(edits or ()) > 1:
        raise ValueError("Give edits and rows together: which edits there are, and which of them each pair carries.")
    pairs = [(tuple(lm.encode(p)), tuple(lm.target_ids(t))) for p, t in zip(prompts, targets)]
    carried = [0] * len(pairs) if rows is None else list(rows)
    # One row per distinct (edit, tokens that run); a prompt too long with its target is refused by encode.
    places: dict[tuple, list[int]] = {}
    for i, ((prompt, target), edit) in enumerate(zip(pairs, carried)):
        lm.encode([*prompt, *target[:-1]])
        places.setdefault((edit, prompt + target[:-1]), []).append(i)
    order = sorted(places, key=lambda key: len(key[1]))

    nll = torch.zeros(len(pairs), dtype=torch.float32, device=lm.unembedding.device)
    correct = torch.ones(len(pairs), dtype=torch.bool, device=lm.unembedding.device)
    for chunk in chunks(order, lambda key: len(key[1]), tokens, PADDING):
        # A row's pairs may cut it differently into prompt and target: each place is a position and a label of its own.
        ids, _ = pad([key[1] for key in chunk])
        where = [
            (r, len(pairs[i][0]) - 1 + j, token, i)
            for r, key in enumerate(chunk)
            for i in places[key]
            for j, token in enumerate(pairs[i][1])
        ]
        row, position, label, pair = torch.tensor(where).T.to(nll.device)
        inside = [key[0] for key in chunk]
        with as_a_function(lm.model), branches(lm, edits or [], inside if edits else None):
            hidden = lm.base_model(input_ids=ids.to(lm.device), use_cache=False).last_hidden_state
            logits = lm.head(hidden[row.to(hidden.device), position.to(hidden.device)]).float()  # [K, V]
        logits = logits.to(nll.device)
        at = logits.gather(1, label[:, None])[:, 0]
        share = torch.tensor([1 / len(pairs[i][1]) for *_, i in where]).to(nll)
        nll.index_add_(0, pair, (logits.logsumexp(1) - at) * share)
        wrong = torch.zeros_like(nll).index_add_(0, pair, (logits.argmax(1) != label).float())
        correct &= wrong == 0
    return TargetScores(nll, correct)
