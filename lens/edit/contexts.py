"""In which company does a subject appear?  A request's prompt on its own, and behind words the model makes up.

What a subject's last token holds depends on what stands before it.  An edit that is meant for the subject, and not for
one sentence, is made for the mean over several beginnings:

    {prompt}          {prefix}. {prompt}          prefix ~ the model itself, top-5 sampling

The prefixes are sampled once for each model as it was loaded and each seed, and are tokens, never read back as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lens.edit.request import Request
from lens.model import LanguageModel
from lens.model.soundness import finite, not_finite
from lens.model.tokens import bare, start, subject_tokens
from lens.model.watching import as_a_function

TOP = 5
"""Each token of a prefix is drawn from so many: the most probable ones."""

Prefixes = tuple[tuple[int, ...], ...]

_sampled: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


def prefixes(lm: LanguageModel, shapes: Sequence[Sequence[int]], seed: int = 0) -> Prefixes:
    """The empty prefix, then for each (number, length) of ``shapes`` so many of so many tokens, sampled by the model.

    The same for one model as it was loaded, ``shapes`` and ``seed``.  Asked for the first time while a change lies on
    the model, they are what the changed model says, and are not kept.  Torch's own random state is left alone.  No
    special token is among them.

    >>> import lens
    >>> [len(p) for p in prefixes(lens.load("mini"), [(2, 5), (1, 10)])]
    [0, 5, 5, 10]
    """
    known = _sampled.setdefault(lm.model, {})
    key = lm.fingerprint, tuple(map(tuple, shapes)), seed
    if key in known:
        return known[key]
    lengths = [length for number, length in shapes for _ in range(number)]
    rows = _sample(lm, len(lengths), max(lengths, default=0), seed)
    sampled = ((), *(row[:length] for row, length in zip(rows, lengths)))
    if not lm.changed:  # what an edited model says is not kept as this model's
        known[key] = sampled
    return sampled


@torch.no_grad()
def _sample(lm: LanguageModel, number: int, length: int, seed: int) -> Prefixes:
    """``number`` continuations, of ``length`` tokens each, of the token that begins a text."""
    tokenizer, generator, size = lm.tokenizer, torch.Generator().manual_seed(seed), lm.unembedding.shape[0]
    # A token that was added to the tokenizer alone, such as one for padding, has no row in E.
    first = next(i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if i is not None and i < size)
    special = [i for i in tokenizer.all_special_ids if i < size]
    ids = torch.full((number, 1), first)
    with as_a_function(lm.model):
        for _ in range(length if number else 0):
            hidden = lm.base_model(input_ids=ids.to(lm.device), use_cache=False).last_hidden_state
            logits = lm.head(hidden[:, -1]).float().cpu()
            logits[:, special] = -torch.inf
            logits[:, len(tokenizer) :] = -torch.inf  # rows of E that only fill it up
            best = logits.topk(TOP)
            if not finite(best.values):
                raise not_finite(lm, "Logits are NaN or infinite and no word can be drawn")
            drawn = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
            ids = torch.cat([ids, best.indices.gather(1, drawn)], 1)
    return tuple(map(tuple, ids[:, 1:].tolist()))


def in_contexts(lm: LanguageModel, request: Request, before: Prefixes) -> tuple[list[list[int]], list[int]]:
    """The request's prompt behind each prefix, as token ids, and where in each the subject's last token is.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> rows, places = in_contexts(lm, lens.Request("The capital of {} is", "France", "Rome"), [(), (5, 6)])
    >>> lm.words(rows[1][places[1] - 1 :])
    ['·of', '·France', '·is']
    """
    ids, text = lm.encode(request.text), request.text
    # What comes before the subject may name it too: the subject that counts is the one in place of {}.
    at = request.prompt.index("{}")
    after = len(ids) - subject_tokens(lm.tokenizer, text, at, at + len(request.subject))[1][-1]
    first = start(lm.tokenizer)
    behind = bare(lm.tokenizer, f". {text.removeprefix(lm.tokenizer.decode(first))}")
    rows = [[*first, *prefix, *behind] if prefix else ids for prefix in before]
    # Counted from the end: a leading space may cut the words before the subject into other tokens.
    return rows, [len(row) - after for row in rows]
