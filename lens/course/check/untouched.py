"""Did an answer leave the model as it was, and how large were the tensors that it made?  And a check itself?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lens.data import Prompt
from lens.evaluate.readings import Readings
from lens.mask import Subnetwork
from lens.mask.places import Place
from lens.model.batch import pad
from lens.model.language_model import LanguageModel
from lens.model.upper import UpperLayers


class Untouched:
    """The modules, the weights and the hooks of the models among some arguments, noted before an answer is called.

    The answer finds gradients of ones in the parameters, as an earlier step may have left them: who calls
    ``backward()`` and does not clear them is seen.
    """

    def __init__(self, arguments: Sequence[Any]):
        models = [a.model for a in arguments if isinstance(a, LanguageModel)]
        self.weights = [(p, p.detach().clone(), p.grad) for model in models for p in model.parameters()]
        modules = [module for model in models for module in model.modules()]
        hooks = [h for module in modules for name, h in vars(module).items() if name.endswith("_hooks")]
        self.hooks = [(held, dict(held)) for held in hooks if isinstance(held, dict)]
        self.parts = [(held, dict(held)) for module in modules for held in (module._parameters, module._modules)]
        for p, *_ in self.weights:
            p.grad = torch.ones_like(p)

    @torch.no_grad()
    def put_back(self) -> str:
        """Everything is as it was again; returned is what was not, in words."""
        said = ""
        for held, kept in self.parts:  # another parameter or module in the place of one
            if [*held] != [*kept] or any(held[name] is not kept[name] for name in kept):
                said = CHANGED
                held.clear(), held.update(kept)
        for p, kept, p.grad in self.weights:
            if not torch.equal(p, kept):
                large = float((p - kept).abs().max()) > 1e-5 * float(kept.abs().max())
                said = CHANGED if large or said == CHANGED else ROUNDED
                p.copy_(kept)
        for hooks, kept in self.hooks:
            for key in [*(hooks.keys() - kept.keys())]:
                if "transformers" not in getattr(hooks[key], "__module__", ""):  # which leaves hooks of its own
                    said, _ = said or HOOKED, hooks.pop(key)
        return said


CHANGED = "the model is not: what was added stayed in the weights. Put them back, also after an error."
ROUNDED = "the weights came back by arithmetic, which rounds: keep a copy, and put that back."
HOOKED = "a hook of yours is still on the model: remove it, also after an error."


class Room(TorchDispatchMode):
    """``with Room() as made``: ``made.largest`` is the number of entries of the largest tensor made meanwhile.

    Arrays of NumPy are not seen.
    """

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for t in tree_leaves(out):  # a view is not made
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in old:
                self.largest = max(self.largest, t.numel())
        return out


def said(lm: LanguageModel, texts: Sequence[str], matrices: Sequence[tuple[Place, torch.Tensor]]) -> torch.Tensor:
    """The logits behind each text, [texts, V], with other matrices in some places: the model's own are not touched."""
    ids, real = pad([lm.encode(text) for text in texts])
    weights = {(place.layer, place.path): place.upright(matrix) for place, matrix in matrices}
    upper = UpperLayers(lm, ids, min(layer for layer, _ in weights))
    return lm.head(upper(weights=weights)[torch.arange(len(ids)), real.sum(1) - 1]).float()


def changes(removed: Sequence[Subnetwork], lm: LanguageModel, prompts: Sequence[Prompt]) -> list[float]:
    """Δ log p of the prompts' tails, their mean, with each of these subnetworks of the same layers removed."""
    readings, found = Readings(lm, {"asked": prompts}, min(layer for layer, _ in removed[0].bits)), []
    for one in removed:
        with one.removed(lm):
            found.append(readings()["asked"].delta_log_prob)
    return found
