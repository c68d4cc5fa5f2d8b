"""What does an edit with one forward pass cost?  Against that forward pass, in a model of GPT-2 XL's shape.

``python -m lens bench edit`` prints the ratios.  The floor is the pass that says what the model would answer: every
layer, and the head at the last token.
"""

from __future__ import annotations

import torch

from lens.edit import Request, shift
from lens.model.watching import as_a_function
from lens.scale.bench.measure import interleaved, peak_bytes, random_gpt2

XL = {"n_embd": 1600, "n_layer": 48, "n_head": 25}


def bench_edit(device: str | None = None, repeats: int = 9, shape: dict = XL) -> dict[str, float]:
    """Milliseconds of a bare forward pass, of making a shift, of applying and undoing it; ratios; bytes."""
    lm = random_gpt2(device, "GPT-2 XL", **shape)
    request = Request("The capital of {} is", "France", "Rome")
    ids = torch.tensor([lm.encode(request.text)], device=lm.device)
    edit = shift(lm, request)

    @torch.no_grad()
    def bare():
        with as_a_function(lm.model):
            hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return lm.head(hidden[:, -1]).argmax(-1)

    def in_and_out():
        with edit:
            pass

    passed, made, applied = interleaved([bare, lambda: shift(lm, request), in_and_out], lm.device, repeats)
    return {
        "forward pass, ms": 1e3 * passed,
        "shift made, ms": 1e3 * made,
        "applied and undone, ms": 1e3 * applied,
        "shift / forward pass": made / passed,
        "shift, applied and undone / forward pass": (made + applied) / passed,
        "kept with the edit, bytes": edit.nbytes,
        "extra memory while made, bytes": peak_bytes(lambda: shift(lm, request), lm.device),
    }
