"""What is trained, and how does the model stay as it was?  A head, low-rank adapters (LoRA), or every weight.

    head    A of h + h A before the unembedding (likelihood), or w of w · h (classifier); nothing below changes
    lora    W + (α/r) B A beside every linear map of every layer, by peft; W itself does not change
    full    a copy of every parameter; the model computes with the copies while it is asked

Where a subnetwork is removed, ``full`` by default keeps its zeros: the question is whether the *rest* of the model can
say again what it was kept from saying.  ``frozen=False`` trains those weights anew, from zero.  LoRA adds to
W ∘ (1 − m) a matrix that is not masked, as in the paper: it may refill what was removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.func import functional_call

from lens.mask import Subnetwork
from lens.model import LanguageModel
from lens.model.devices import resident
from lens.model.watching import as_a_function
from lens.relearn.choosing import Asked, Encoded, Scorer

METHODS = ("head", "lora", "full")


@dataclass(frozen=True)
class Learner:
    """``score(asked)`` → scores [B, C], which depend on ``parameters``; ``kept(encoded)`` gives a batch of questions by
    their indices, with what can be kept of it."""

    score: Callable[..., Tensor]
    parameters: list[Tensor]
    kept: Callable[[Encoded], Callable[[list[int]], tuple]]


@contextmanager
def learner(
    lm: LanguageModel, method: str, readout: str, removed: Subnetwork | None, frozen: bool, rank: int
) -> Iterator[Learner]:
    """A model that can be trained inside the block, and is as it was behind it, whatever happens inside.

    Raises ``ValueError`` for an unknown method and where weights are offloaded that would be trained, and
    ``ImportError`` for LoRA without peft.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}: choose one of {', '.join(METHODS)}.")
    wide = torch.promote_types(lm.dtype, torch.float32)
    if method != "head":
        for p in lm.model.parameters():
            resident(p, f"Training by {method!r}")
    d, device = lm.unembedding.shape[1], lm.unembedding.device
    probe = None
    if readout == "classifier":
        probe = 0.02 * torch.randn(d, 1, dtype=wide).to(device)
    elif method == "head":
        probe = torch.zeros(d, d, dtype=wide, device=device)
    own = [] if probe is None else [probe.requires_grad_()]

    with as_a_function(lm.model):
        scorer = Scorer(lm, readout, probe)
        if method == "head":
            yield Learner(scorer, own, lambda encoded: _states(scorer, encoded))
        elif method == "lora":
            with _adapted(lm, rank) as adapters:
                yield Learner(scorer, [*adapters, *own], _nothing)
        else:
            names = [f"model.{name}" for name, _ in lm.model.named_parameters()]
            copies = {p: p.detach().to(wide, copy=True).requires_grad_() for p in lm.model.parameters()}
            if removed is not None and frozen:
                for place, gone in removed.in_places(lm):
                    without = partial(torch.masked_fill, mask=place.upright(gone), value=0)
                    copies[place.weight].register_hook(without)  # no gradient there

            def score(asked: Asked) -> Tensor:
                return functional_call(scorer, {n: c.to(lm.dtype) for n, c in zip(names, copies.values())}, (asked,))

            yield Learner(score, [*copies.values(), *own], _nothing)


def _nothing(encoded: Encoded) -> Callable:
    return lambda chosen: (encoded.batch(chosen),)


@torch.no_grad()
def _states(scorer: Scorer, encoded: Encoded) -> Callable:
    """Under a head that is trained the states stay as they are: they are computed once."""
    states: list[Tensor] = [torch.empty(0)] * len(encoded)
    for chosen in encoded.chunks():
        asked = encoded.batch(chosen)
        owner = asked.owner // asked.shape[1]
        found = scorer.states(asked)
        for j, i in enumerate(chosen):
            states[i] = found[(owner == j).to(found.device)]
    return lambda chosen: (encoded.batch(chosen), torch.cat([states[i] for i in chosen]))


@contextmanager
def _adapted(lm: LanguageModel, rank: int) -> Iterator[list[Tensor]]:
    """The model with adapters of peft beside each linear map; the modules come back as they were, and nothing stays."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ImportError("LoRA needs the package peft: install it with 'pip install lens-book[relearn]'.") from None
    paths = {site.module for site in lm.family.sites.values()}
    targets = [f"{lm.family.layers}.{i}.{path}" for i in range(len(lm.layers)) for path in sorted(paths)]
    # fan_in_fan_out says that weights are stored [d_in, d_out], as in GPT-2's Conv1D.
    turned = type(lm.site(0, "ff1")).__name__ == "Conv1D"
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, fan_in_fan_out=turned)
    with lm.weights.block("LoRA adapters") as written:
        for layer, site in product(range(len(lm.layers)), lm.sites):
            lm.weights.claim(written, lm.site(layer, site).weight)  # not written, but no longer all that is computed
        before = [(module, dict(module._modules), set(vars(module))) for module in lm.model.modules()]
        try:
            inject_adapter_in_model(config, lm.model)
            adapters = [p for p in lm.model.parameters() if p.requires_grad]
            for p in adapters:  # AdamW's ε is nothing in float16
                p.data = p.data.to(torch.promote_types(p.dtype, torch.float32))
            yield adapters
        finally:
            for module, children, names in before:
                module._modules.clear()
                module._modules.update(children)
                for name in set(vars(module)) - names:
                    delattr(module, name)
