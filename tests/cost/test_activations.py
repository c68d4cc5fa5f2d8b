"""The table of kept tensors against autograd, which keeps them: every family, frozen, learning, and at the entry."""

from __future__ import annotations

import pytest
import torch
import transformers

from lens.model.families import FAMILIES
from lens.scale.bench.tensors import saved_bytes
from lens.scale.cost.activations import LAYERS, NORM, bytes_per_token
from lens.scale.cost.shapes import shape

ROWS, TOKENS = 3, 11

pytestmark = pytest.mark.skipif(
    transformers.__version__.startswith("4."), reason="the table is that of transformers 5: install transformers>=5"
)


def kept_by_autograd(lm, learning, entry: bool) -> int:
    """Bytes a token of the middle layer, without what a call brings along for all rows."""
    call = {}
    layer = lm.layers[1]
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: call.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    with torch.no_grad():
        lm.base_model(input_ids=torch.zeros(ROWS, TOKENS, dtype=torch.long), use_cache=False)
    hook.remove()
    for p in layer.parameters():
        p.requires_grad_(learning == "all" or (learning == "matrices" and p.ndim > 1))
    args, kwargs = call["args"], call["kwargs"]
    x = args[0] if args else kwargs.pop("hidden_states")
    x = x if entry else x.detach().requires_grad_() * 1
    shared = [t for t in [*args[1:], *kwargs.values()] for t in (t if isinstance(t, tuple) else (t,))]
    known = [*lm.model.parameters(), *(t for t in shared if isinstance(t, torch.Tensor)), *([x] if entry else [])]
    # Once for all rows: Gemma's norms keep 1 + w, the first only where its input needs a gradient; GPT-J its angles.
    config = lm.model.config
    norms = [p.numel() for p in layer.parameters() if p.ndim == 1] if "gemma" in config.model_type else []
    once = sum(norms) - lm.width * (entry and bool(norms))
    once += 4 * TOKENS * config.rotary_dim if config.model_type == "gptj" else 0
    total = saved_bytes(lambda: layer(x, *args[1:], **kwargs), known) - once * x.element_size()
    assert total % (ROWS * TOKENS) == 0
    return total // (ROWS * TOKENS)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize(
    "learning, entry", [("nothing", False), ("matrices", False), ("all", False), ("matrices", True)]
)
def test_every_byte_that_autograd_keeps_is_a_row_of_the_table(tiny, kind, learning, entry):
    lm = tiny(kind, torch.float32)
    sites = {"nothing": (), "matrices": lm.sites, "all": (*lm.sites, NORM)}[learning]
    told = bytes_per_token(shape(lm), 4, TOKENS, sites, entry)
    assert sum(told.values()) == kept_by_autograd(lm, learning, entry), told


def test_every_family_has_a_row():
    assert LAYERS.keys() == FAMILIES.keys()
