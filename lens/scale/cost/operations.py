"""What does an operation make, and how much does it compute, where tensors have shapes and no numbers?"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

aten = torch.ops.aten


@cache
def formulas() -> dict:
    """An operation → how many additions and multiplications it is: torch's, and a CPU's attention as any other."""
    from torch.utils.flop_counter import flop_registry  # imports triton, which ``import lens`` does not

    attention = aten._scaled_dot_product_flash_attention
    backward = aten._scaled_dot_product_flash_attention_backward
    return flop_registry | {
        aten.addmm_: flop_registry[aten.addmm],
        aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[attention],
        aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[backward],
    }


_known: dict = {}
"""What is known of operations, since asking is slow: what each is given → (size, stride, dtype) of what it makes."""


def result(function, args, kwargs):
    """What an operation gives, and whether that is new memory."""
    schema = function._schema
    if schema.is_mutable and len(schema.returns) == 1 and tensors(written := kwargs.get("out", args[0])):
        return written, False
    key = function, _key(args), _key(tuple(kwargs.items()))
    if key in _known:
        made = [torch.empty_strided(size, stride, dtype=dtype, device="meta") for size, stride, dtype in _known[key]]
        return (made[0] if len(schema.returns) == 1 else tuple(made)), True
    own = {id(t.untyped_storage()) for a in (*args, *kwargs.values()) for t in tensors(a)}
    out = function(*args, **kwargs)
    fresh = all(id(t.untyped_storage()) not in own for t in tensors(out))
    if fresh and own and len(tensors(out)) == len(schema.returns):
        _known[key] = [(t.shape, t.stride(), t.dtype) for t in tensors(out)]
    return out, fresh


def _key(x):
    if isinstance(x, Tensor):
        return x.shape, x.stride(), x.dtype, x.device.type
    return tuple(map(_key, x)) if isinstance(x, (tuple, list)) else (x.__class__, x)


def tensors(x) -> list[Tensor]:
    return [t for t in (x if isinstance(x, (tuple, list)) else (x,)) if isinstance(t, Tensor) and t.is_meta]


def places(index: Tensor | None) -> list[Tensor | None]:
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_empty(index.numel(), dtype=torch.long)] * index.ndim


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Torch's own attention as a CPU computes it: of its probabilities one number a row is kept."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(q.dtype)
    flash = aten._scaled_dot_product_flash_attention_for_cpu
    return flash(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
