"""Is this a model that can be read and edited?  Three questions; where the answer is no, one sentence says why.

    plain       every site is a linear map with a float weight of its own: not packed (quantized), no LoRA beside it
    finite      no parameter holds NaN or infinity
    faithful    head(ln_f(h)) of the last layer's h are the model's own logits: no scale that lens does not know

The first looks at types alone and is asked again wherever a weight is looked up, since a model can be quantized or
given adapters in place.  The others are asked once, by ``lens.load``: they read each weight once and run three tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lens.model.families import FAMILIES
from lens.model.watching import as_a_function, watch

if TYPE_CHECKING:
    from lens.model.language_model import LanguageModel

LINEAR = ("torch.nn.modules.linear.Linear", "transformers.pytorch_utils.Conv1D")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MERGE = "merge it into the weights with peft's merge_and_unload(), and use the model that this returns"


def plain(module: nn.Module, what: str) -> nn.Module:
    """The module, if it is a linear map with a float weight of its own; ``ValueError`` says what it is instead.

    A subclass is refused: quantized and adapted layers are subclasses, and compute something else.
    """
    kind = _class(module)
    if kind in LINEAR:
        weight = module.weight
        if type(weight) in (Tensor, nn.Parameter) and weight.dtype in FLOATS:
            return module
        kind = f"{kind} with a {_class(weight)} of {weight.dtype}"
    if hasattr(module, "base_layer"):
        raise ValueError(f"{what} is a {kind}, which adds an adapter to a weight: {MERGE}.")
    raise ValueError(
        f"{what} is a {kind}, and lens reads and edits a torch.nn.Linear or Conv1D with weights of 16 bits or more: "
        "open the model without quantization."
    )


def check_parts(lm: LanguageModel) -> None:
    """``TypeError`` for what is no causal language model, ``ValueError`` where one of its parts is not ``plain``."""
    kind = _class(lm.model)
    if kind.startswith("peft."):
        raise ValueError(f"The model is a {kind}, which adds adapters to its weights: {MERGE}.")
    head = getattr(lm.model, "get_output_embeddings", lambda: None)()
    if head is None:
        raise TypeError(
            f"Expected a causal language model of transformers, and got a {kind}, which has no unembedding: open it "
            "with AutoModelForCausalLM, and give it without a wrapper."
        )
    plain(head, "The unembedding")
    if lm.model.config.model_type in FAMILIES:  # an unknown one is refused where it is asked for its parts
        for layer in range(len(lm.layers)):
            for site in lm.sites:
                lm.site(layer, site)


def check_as_loaded(lm: LanguageModel, what: str, instead: str = "") -> None:
    """``RuntimeError`` while an edit or a mask lies on the weights: ``what`` is done for a model as it was loaded."""
    if changed := lm.changed:
        raise RuntimeError(f"{what} as it was loaded, and it is changed now ({changed[-1]}): undo that first{instead}.")


def check_made_for(lm: LanguageModel, model: str, fingerprint: str, what: str, instead: str) -> None:
    """``ValueError`` where ``what`` was made for another model, the one of this name and fingerprint."""
    if lm.fingerprint != fingerprint:
        raise ValueError(
            f"{what} another model ({model!r}, fingerprint {fingerprint[:12]}) than this one ({lm.name!r}, "
            f"{lm.fingerprint[:12]}): {instead}."
        )


def check_numbers(lm: LanguageModel) -> None:
    """``ValueError`` where a parameter is not finite, or where lens would read other logits than the model's own."""
    if found := _flaw(lm.model):
        raise ValueError(f"The model says nothing, because its {found}: open another copy.")
    if lm.device.type == "meta" and not hasattr(lm.model.get_input_embeddings(), "_hf_hook"):  # accelerate's hook
        raise ValueError("The model has shapes and no weights, being on torch's meta device: open it from files.")
    size = len(lm.unembedding)
    ids = torch.tensor([[size // 4, size // 2, 3 * size // 4]], device=lm.device)
    with torch.no_grad(), as_a_function(lm.model), watch({"last": lm.layers[-1]}) as seen:
        own = lm.model(input_ids=ids, use_cache=False).logits
        hidden = seen["last"][1]
        read = lm.head(lm.norm(hidden[0] if isinstance(hidden, tuple) else hidden))
    read, own = (logits.cpu().double() for logits in (read, own))
    if not finite(own):
        raise not_finite(lm, "The model's logits hold NaN or infinity")
    if not (read - own).abs().max() <= max(1e-3, 4 * torch.finfo(lm.dtype).eps) * own.abs().max():
        config = lm.model.config
        known = [f"{k} = {v}" for k, v in config.to_dict().items() if "logit" in k and v is not None]
        raise ValueError(
            f"The words of this {config.model_type!r} model would be misread, because head(ln_f(h)) is "
            f"{float((read * own).sum() / (own * own).sum()):.3g} times its own logits (its config says "
            f"{', '.join(known) or 'nothing of logits'}): teach LanguageModel.head what its family does there."
        )


def finite(t: Tensor) -> bool:
    """Is every entry a number?  Its extremes say so (NaN is one), in one reading and without a mask of its size."""
    return not t.numel() or bool(torch.stack(torch.aminmax(t.detach())).isfinite().all())


def not_finite(lm: LanguageModel, what: str) -> ValueError:
    """The error for numbers that are not finite, as ``what`` says; it names the parameter they come from, if any."""
    found = _flaw(lm.model)
    if not found:
        return ValueError(f"{what}: all weights are finite, so look at what was run.")
    remedy = "undo what was applied to it" if lm.weights.changed else "load it anew"
    return ValueError(f"{what}: the model's {found}, so {remedy}.")


def _flaw(model: nn.Module) -> str | None:
    """The first parameter that holds NaN or infinity, and how many; None where there is none.

    Weights that accelerate keeps elsewhere are not seen.
    """
    for name, p in model.named_parameters():
        if not p.is_meta and not finite(p):
            return f"parameter {name} holds NaN or infinity at {int((~p.isfinite()).sum()):,} of {p.numel():,} places"
    return None


def _class(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
