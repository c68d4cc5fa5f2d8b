"""How does a model with an edit go on writing?  Many prompts under many edits in one batch, each with its own luck.

Top-k sampling as the argmax of noisy logits: over the k tokens t of the largest z, with u uniform,

    next = argmax_t  z_t − log(−log u_t)          (Gumbel noise: the argmax is a sample of softmax over the k)

u has an address, as in ``lens.kernels.noise``: the seed, the case, the prompt's place in it, the position in the text,
the token.  What is drawn for one record depends neither on what else is in the batch nor on where a run was taken up
again, up to rounding: two tokens that tie to its last bits may change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import inf

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import Cache, DynamicLayer

from lens.capture import as_a_function
from lens.edit.branch import branches
from lens.edit.edit import Change
from lens.kernels.noise import WORD, Key, odd, philox
from lens.model import LanguageModel

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
    limit = getattr(lm.model.config, "max_position_embeddings", None) or inf
    length = min(length, limit)
    prompts = [list(p)[:length] for p in prompts]
    places = [i for _, group in groupby(cases) for i, _ in enumerate(group)]
    sizes = sorted({len(p) for p in prompts})
    # A batch goes on until its shortest row is whole; its longest may by then be past the model's last position.
    together = [sizes] if sizes[-1] - sizes[0] + length <= limit else [[size] for size in sizes]
    texts = [""] * len(prompts)
    for some in together:
        chosen = [b for b, p in enumerate(prompts) if len(p) in some]
        batch = [prompts[b] for b in chosen]
        draw = Draw(seed, [cases[b] for b in chosen], [places[b] for b in chosen], batch, top, lm.device)
        with as_a_function(lm.model), branches(lm, edits or [], [rows[b] for b in chosen] if edits else None):
            for b, text in zip(chosen, _write(lm, batch, length, draw)):
                texts[b] = text
    return texts


def _write(lm: LanguageModel, prompts: list[list[int]], length: int, draw: Draw) -> list[str]:
    longest, shortest = max(map(len, prompts)), min(map(len, prompts))
    # Padded on the left, so that every row's next token is due in the last column.
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=lm.device)
    real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=lm.device)
    if shortest < length:
        ids = lm.model.generate(
            ids,
            attention_mask=real,
            max_new_tokens=length - shortest,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([draw]),
            past_key_values=Cache(layer_class_to_replicate=Grown),
            # Said outright, because what is not said is taken from the model's own generation config.
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )
    texts = [row[longest - len(p) :][:length] for row, p in zip(ids.tolist(), prompts)]
    return lm.tokenizer.batch_decode(texts, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Draw(LogitsProcessor):
    """Leaves one token of each row possible: the winner among its ``top`` most probable, with their noise added.

    ``cases`` and ``places`` are each row's case and its place in the case.
    """

    def __init__(self, seed: int, cases, places, prompts, top: int, device):
        for case in cases:
            Key(seed, 0, case).check()
        self._key, self._top = (seed & WORD, seed >> 32), top
        longest = max(map(len, prompts))
        # The width of the padded batch, and this, is the position of a row's next token.
        offsets = [len(p) - longest for p in prompts]
        columns = torch.tensor([cases, places, offsets], device=device)
        self._case, self._place, self._offset = columns[:, :, None]  # [B, 1] each

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best, tokens = scores.topk(self._top, dim=1)  # [B, k]
        position = self._offset + input_ids.shape[1]
        words = torch.stack(philox((tokens // 4, self._place, position, self._case), self._key), dim=-1)  # [B, k, 4]
        u = odd(words.gather(2, tokens[:, :, None] % 4)[:, :, 0]).double() / 2.0**24
        winner = tokens.gather(1, (best - torch.log(-torch.log(u))).argmax(1, keepdim=True))
        return torch.full_like(scores, -torch.inf).scatter_(1, winner, 0.0)


class Grown(DynamicLayer):
    """A layer's keys and values in buffers with room to grow: ``torch.cat`` at every token takes most of the time."""

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        have = self.get_seq_length()
        need = have + key_states.shape[-2]
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._room = [_room(key_states, 2 * need), _room(value_states, 2 * need)]
        elif need > self._room[0].shape[-2]:
            larger = [_room(states, 2 * need) for states in (key_states, value_states)]
            for new, old in zip(larger, self._room):
                new[:, :, :have] = old[:, :, :have]
            self._room = larger
        for room, states in zip(self._room, (key_states, value_states)):
            room[:, :, have:need] = states
        self.keys, self.values = (room[:, :, :need] for room in self._room)
        return self.keys, self.values


def _room(states: Tensor, length: int) -> Tensor:
    """An empty buffer for ``length`` positions of ``states`` [B, heads, T, d]."""
    return states.new_empty(*states.shape[:2], length, states.shape[3])
