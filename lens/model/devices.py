"""Where is a weight, and where does its module compute?  Not the same where accelerate keeps a large model.

With ``device="auto"`` the layers may lie on several devices, and what fits on none of them on the CPU or a disk: there
``module.weight`` is a stand-in without values (of device ``meta``) that is filled while the module runs.  Such a weight
can be read, and gradients pass through its module; what is written into it would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def weight(module: nn.Module, name: str = "weight") -> Tensor:
    """The module's weight with its values, where the module computes; read it, never write it."""
    own = getattr(module, name)
    if not own.is_meta:
        return own
    from accelerate.utils import align_module_device

    with align_module_device(module):
        return getattr(module, name)


def device(module: nn.Module) -> torch.device:
    """Where the module computes, and so where its inputs are due and its output is; ``ValueError`` without weights."""
    first, hook = next(module.parameters(), None), getattr(module, "_hf_hook", None)
    if first is None:
        raise ValueError(f"A {type(module).__name__} of this model has no weights of its own: open one whose norms do.")
    return torch.device(hook.execution_device) if first.is_meta and hook else first.device


def parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter's name and values, each once; offloaded ones are fetched one at a time."""
    named = list(model.named_parameters())
    apart = any(p.is_meta for _, p in named) and model.config.tie_word_embeddings  # stand-ins are not tied
    tied = model._tied_weights_keys if apart else ()
    for name, _ in named:
        if name not in tied:
            path, _, own = name.rpartition(".")
            yield name, weight(model.get_submodule(path), own)


def resident(parameter: Tensor, what: str) -> None:
    """``ValueError`` where ``parameter`` has no values of its own that ``what`` (an edit, a mask) could change."""
    if parameter.is_meta:
        raise ValueError(
            f"{what} would write into a weight that device='auto' has offloaded, where it is lost: open the model on "
            "devices that hold all of it, or in a smaller dtype."
        )
