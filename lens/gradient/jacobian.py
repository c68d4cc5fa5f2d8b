"""How does a small move of the stream in layer ℓ move the stream at the top?  The Jacobian, averaged over texts.

    J_ℓ = E[∂h_top / ∂h_ℓ]      [d, d]: row i is what a move along coordinate i of h_ℓ becomes at the top

h_ℓ [1, d] is the residual stream after layer ℓ at a text's last token, h_top the one after the last layer, before ln_f.
The *Jacobian lens* (Gurnee et al., 2026) reads h_ℓ J_ℓ where the logit lens reads h_ℓ itself.  Theirs sums over later
tokens too, and averages over tokens within long texts; here both ends are at the last token of a text.

Column r of J_ℓ is a vector-Jacobian product: what comes back to layer ℓ of a one at coordinate r of the top.  So for a
single text, δ_ℓ = δ_top J_ℓᵀ: the VJPs of a loss are those of J.  The tokens before the last are run once, and kept as
keys and values: the d products need the last token alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lens.model import LanguageModel, Tokens
from lens.model.tokens import is_one
from lens.model.watching import as_a_function, watch

ROWS = 192
"""How many products are made at a time: each holds a copy of the text's keys and values."""


def mean_jacobian(lm: LanguageModel, texts: Sequence[Tokens]) -> Tensor:
    """J_ℓ of every layer, [layers, d, d], averaged over the last tokens of ``texts``; the top layer's is the identity.

    Raises ``ValueError`` where there are no texts, or one is too long for the model.  The model is left as it was.

    >>> import lens
    >>> mean_jacobian(lens.load("mini"), ["The capital of France is"]).shape
    torch.Size([8, 192, 192])
    """
    if is_one(texts) or not len(texts):
        raise ValueError(f"The Jacobian is averaged over several texts, and got {texts!r}: give a list of some.")
    total = 0
    for text in tqdm(texts, desc="Jacobian", unit="text", leave=False, disable=len(texts) < 10):
        total = total + _jacobian(lm, lm.encode(text))
    return total / len(texts)


@torch.inference_mode(False)
def _jacobian(lm: LanguageModel, ids: list[int]) -> Tensor:
    """∂h_top/∂h_ℓ of one text at its last token: [layers, d, d], what moves by row, what is moved by column."""
    *before, last = (torch.tensor([[i]], device=lm.device) for i in ids)
    identity, columns = torch.eye(lm.width, dtype=lm.dtype), []
    with as_a_function(lm.model):
        for first in range(0, lm.width, ROWS):
            ones = identity[first : first + ROWS]  # [rows, d]
            past = None
            if before:
                with torch.no_grad():
                    past = lm.base_model(input_ids=torch.cat(before, 1), use_cache=True).past_key_values
                past.batch_repeat_interleave(len(ones))
            with torch.enable_grad(), watch(dict(enumerate(lm.layers))) as seen:
                rows = lm.model.get_input_embeddings()(last.expand(len(ones), 1)).detach().requires_grad_()
                lm.base_model(inputs_embeds=rows, past_key_values=past, use_cache=past is not None)
                streams = [out[0] if isinstance(out, tuple) else out for _, out in seen.values()]
                top = streams[-1]
                back = torch.autograd.grad(top, streams, ones.to(top).reshape(top.shape))
            columns.append(torch.stack([g.reshape(len(ones), -1).to(top.device) for g in back]))  # [layers, rows, d]
    return torch.cat(columns, 1).mT.to(torch.promote_types(lm.dtype, torch.float32))
