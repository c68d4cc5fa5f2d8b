"""How is only the upper part of a model run again?  One full pass that remembers how each layer was called.

An edit or a mask in layer l leaves every layer below as it was, so a search that tries many versions of one edit pays
for the lower layers once: ``h_l`` is computed, kept, and the layers from l on are called again as often as needed,

    logits = head(ln_f(f_{L−1}(… f_l(h_l)))).

Each family hands its layers other things besides h (masks, rotary angles); they are kept from the first pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from lens.model.language_model import LanguageModel
from lens.model.watching import as_a_function


class UpperLayers:
    """The layers of ``lm`` from ``layer`` on, as a function of what enters them, for the prompts ``ids`` [B, T].

    ``hidden`` [B, T, d] is what entered ``layer`` in the first pass, ``normed`` [B, T, d] ln_f's output in that pass.
    Calling the object runs the layers from there on (hooks and all) and gives ln_f's output [B, T, d], ready for
    ``lm.head``; autograd follows, the weights do not collect gradients.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> ids = torch.tensor([lm.encode("The capital of France is")])
    >>> lm.word(lm.head(UpperLayers(lm, ids, layer=5)()[0, -1]).argmax())
    '·Paris'
    """

    def __init__(self, lm: LanguageModel, ids: Tensor, layer: int):
        lm.check(layer, "ff2")
        self._lm = lm
        self._first = layer % len(lm.layers)
        self._layers = lm.layers[self._first :]
        self._calls: list[tuple[tuple, dict]] = []
        with ExitStack() as hooks, torch.no_grad(), as_a_function(lm.model):
            for module in self._layers:
                hook = module.register_forward_pre_hook(lambda _, *call: self._calls.append(call), with_kwargs=True)
                hooks.callback(hook.remove)
            self.normed: Tensor = lm.base_model(input_ids=ids.to(lm.device), use_cache=False).last_hidden_state
        self._below = frozenset(id(p) for layer in lm.layers[: self._first] for p in layer.parameters())
        self._changes = lm.weights.on(self._below)
        args, kwargs = self._calls[0]
        self.hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        # What a layer is given besides h; the h's of the layers above are dropped.
        self._calls = [(a[1:], {k: v for k, v in kw.items() if k != "hidden_states"}) for a, kw in self._calls]

    def __call__(
        self,
        hidden: Tensor | None = None,
        weights: Mapping[tuple[int, str], Tensor] | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """ln_f's output [B, T, d] when ``hidden`` [B, T, d] (default: what did) enters the first of these layers.

        ``weights`` are used in place of the model's own: (layer, path of a module below the layer) → its weight, as
        the module stores it.  They receive gradients where they require them.  ``checkpointing``: of each layer only
        its input is kept, and the backward pass runs the layer again.

        Raises ``RuntimeError`` where an edit or a mask below these layers has come or gone since the first pass: what
        entered then is not what would enter now.
        """
        if hidden is None and self._lm.weights.on(self._below) != self._changes:
            raise RuntimeError(
                f"The layers below layer {self._first} have been changed since they were run: make a new "
                "UpperLayers (or Perplexity, or Readings), which runs them again."
            )
        hidden = self.hidden if hidden is None else hidden
        own: list[dict[str, Tensor]] = [{} for _ in self._layers]
        for (layer, path), weight in (weights or {}).items():
            own[layer - self._first][f"{path}.weight"] = weight
        with as_a_function(self._lm.model):
            for call in zip(self._layers, own, self._calls):
                if checkpointing:
                    hidden = checkpoint(self._again, *call, hidden, use_reentrant=False, preserve_rng_state=False)
                else:
                    hidden = _run(*call, hidden)
            return self._lm.norm(hidden)

    def _again(self, *call) -> Tensor:
        """A layer's run that is repeated in the backward pass, when the flags of the model are back."""
        with as_a_function(self._lm.model):
            return _run(*call)


def _run(module, weights: dict[str, Tensor], call: tuple[tuple, dict], hidden: Tensor) -> Tensor:
    args, kwargs = call
    out = functional_call(module, weights, (hidden, *args), kwargs)
    return out[0] if isinstance(out, tuple) else out
