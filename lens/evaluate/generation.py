"""How does a model with an edit go on writing?  Many prompts under many edits in one batch, each with its own luck.

Top-k sampling as the argmax of noisy logits: over the k tokens t of the largest z, with u uniform,

    next = argmax_t  z_t − log(−log u_t)          (Gumbel noise: the argmax is a sample of softmax over the k)

u has an address, as in ``lens.kernels.noise``: the seed, the case, the prompt's place in it, the position in the text,
the token.  What is drawn for one record depends neither on what else is in the batch nor on where a run was taken up
again, up to rounding: two tokens that tie to its last bits may change places.

Each row reads one token a step: its prompt's while that lasts, then what it drew.  So rows of unlike prompts stand at
one position, none of them is padded, and each reads no more than its own text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import inf

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from lens.edit.branch import branches
from lens.edit.edit import Change
from lens.kernels.noise import WORD, Key, odd, philox
from lens.model import LanguageModel
from lens.model.soundness import finite, not_finite
from lens.model.watching import as_a_function

LENGTH = 100
"""Tokens of a text, its prompt included."""

TOP = 5
"""How many of the most probable tokens are drawn from."""


@torch.no_grad()
def continuations(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    cases: Sequence[int],
    *,
    edits: Sequence[Sequence[Change]] | None = None,
    rows: Sequence[int] | None = None,
    length: int = LENGTH,
    top: int = TOP,
    seed: int = 0,
) -> list[str]:
    """Each prompt (token ids) with its sampled continuation, as text: ``length`` tokens in all, prompt included.

    ``cases`` (one per prompt, equal ones side by side) and the place of a prompt within its case address its noise.
    ``edits`` and ``rows`` as in ``lens.edit.branches``.  A model that reads fewer tokens than ``length`` writes as many
    as it reads; a prompt of ``length`` tokens or more is cut to them.  The end-of-text token does not end a text (what
    follows it is the model's next document) and is not shown: ROME's code does the same.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> continuations(lm, [lm.encode("The climate of Gabon is")], cases=[0], length=8)[0].startswith("The climate of")
    True
    """
    if not prompts:
        return []
    for case in cases:
        Key(seed, 0, case).check()
    length = min(length, getattr(lm.model.config, "max_position_embeddings", None) or inf)
    prompts = [list(p)[:length] for p in prompts]
    places = [i for _, group in groupby(cases) for i, _ in enumerate(group)]
    ids, given, case, place = (
        torch.tensor(x, device=lm.device)
        for x in ([p + [0] * (length - len(p)) for p in prompts], [len(p) for p in prompts], cases, places)
    )
    cache = Cache(layers=[InPlace(length) for _ in lm.layers])
    with as_a_function(lm.model), branches(lm, edits or [], rows if edits else None):
        for t in range(1, length):
            seen = lm.base_model(input_ids=ids[:, t - 1 : t], past_key_values=cache, use_cache=True)
            due = given <= t  # the rows whose prompt is over
            hidden = seen.last_hidden_state[:, -1]
            logits = lm.head(hidden[due.to(hidden.device)]).to(due.device)
            if not finite(logits.amax(1)):
                raise not_finite(lm, f"Logits of token {t} are NaN or infinite and no word can be drawn")
            ids[due, t] = _draw(logits, (place[due], t, case[due]), (seed & WORD, seed >> 32), top)
    return lm.tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _draw(logits: Tensor, address: tuple[Tensor, int, Tensor], seed: tuple[int, int], top: int) -> Tensor:
    """One token per row of ``logits`` [B, V]; ``address``: the rows' places [B], the position, their cases [B]."""
    best, tokens = logits.topk(top, dim=1)  # [B, k]
    place, position, case = address
    words = torch.stack(philox((tokens // 4, place[:, None], position, case[:, None]), seed), dim=-1)  # [B, k, 4]
    u = odd(words.gather(2, tokens[:, :, None] % 4)[:, :, 0]).double() / 2.0**24
    return tokens.gather(1, (best - torch.log(-torch.log(u))).argmax(1, keepdim=True))[:, 0]


class InPlace(DynamicLayer):
    """A layer's keys and values, [B, heads, length, d], made once: transformers' own are copied at each token."""

    def __init__(self, length: int):
        super().__init__()
        self._length, self._seen = length, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Takes the states [B, heads, 1, d] of one token, and gives those of all so far."""
        new = key_states, value_states
        if not self._seen:
            self.keys, self.values = (x.new_empty(*x.shape[:2], self._length, x.shape[3]) for x in new)
            self.is_initialized = True
        self._seen += 1
        for held, x in zip((self.keys, self.values), new):
            held[:, :, self._seen - 1] = x[:, :, 0]
        return self.keys[:, :, : self._seen], self.values[:, :, : self._seen]

    def get_seq_length(self, *_) -> int:
        return self._seen
