"""What a trace sees of a layer against autograd, which keeps it: every family, frozen, learning, and at the entry."""

from __future__ import annotations

import pytest
import torch

from lens import cost
from lens.course.check.scaling_up import llama_numbers
from lens.model.families import FAMILIES
from lens.scale.bench.tensors import saved_bytes
from lens.scale.cost.shapes import on_meta
from lens.scale.cost.trace import Tracer

ROWS, TOKENS = 3, 11


def called(lm, learning, entry: bool):
    """The middle layer's call, ready to be made; the tensors that are there before it."""
    call = {}
    layer = lm.layers[1]
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: call.update(args=args, kwargs=kwargs), with_kwargs=True
    )
    with torch.no_grad():
        ids = torch.zeros(ROWS, TOKENS, dtype=torch.long, device=lm.device)
        lm.base_model(input_ids=ids, use_cache=False)
    hook.remove()
    for p in layer.parameters():
        p.requires_grad_(learning == "all" or (learning == "matrices" and p.ndim > 1))
    args, kwargs = call["args"], call["kwargs"]
    x = args[0] if args else kwargs.pop("hidden_states")
    x = x if entry else x.detach().requires_grad_() * 1
    shared = [t for t in [*args[1:], *kwargs.values()] for t in (t if isinstance(t, tuple) else (t,))]
    known = [*lm.model.parameters(), *lm.model.buffers(), x, *(t for t in shared if isinstance(t, torch.Tensor))]
    return lambda: layer(x, *args[1:], **kwargs), known


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize(
    "learning, entry", [("nothing", False), ("matrices", False), ("all", False), ("matrices", True)]
)
def test_every_byte_that_autograd_keeps_is_seen_in_a_trace(tiny, kind, learning, entry):
    lm = tiny(kind, torch.float32)
    real = saved_bytes(*called(lm, learning, entry))
    s = cost.shape(lm)
    twin = on_meta(s.config, s.layers)
    with Tracer(s.vocabulary) as trace:
        layer, known = called(twin, learning, entry)
        before = trace.now
        out = layer()
        out = out[0] if isinstance(out, tuple) else out
        assert trace.now - before - out.nbytes == real
    assert known


def test_a_layer_of_gpt_2_keeps_what_the_formula_says():
    s = cost.shape("gpt2-xl")
    frozen = 2 * s.width + 4 * s.width + 4 * s.inner  # both norms' streams; q, k, v and the result; four of gelu_new
    statistics = 4 + s.heads  # mean and 1/σ of both norms, a sum a head
    assert cost.kept(s) == 4 * (frozen + statistics)
    assert cost.kept(s, ("attn_q", "attn_out", "ff1", "ff2")) == 4 * (frozen + 2 * s.width + s.inner + statistics)


def test_the_exercise_counts_a_llama_as_a_trace_does():
    width, inner, query, keys, heads = 24, 52, 32, 8, 4
    s = cost.shape({
        "model_type": "llama", "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 9,
        "vocab_size": 99, "num_attention_heads": heads, "num_key_value_heads": 1, "head_dim": keys,
    })  # fmt: skip
    sites = "attn_q", "attn_k", "attn_v", "attn_out", "ff1", "ff1_gate", "ff2"
    for learns in (False, True):
        numbers = llama_numbers.reference(width, inner, query, keys, learns)
        assert cost.kept(s, sites if learns else ()) == 4 * (numbers + 2 + heads)  # 1/rms of two norms, a sum a head
