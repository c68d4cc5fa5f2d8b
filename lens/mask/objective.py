"""What should the remaining model say?  Nothing of the target knowledge, and everything else as before.

    suppress      KL(uniform ‖ p)     where a target's tail is due: no word is better known than another
    maintain_kg   KL(p₀ ‖ p)          where a control fact's tail is due
    maintain_lm   KL(p₀ ‖ p)          at every token of ordinary text
    express       −log p_subnet(t)    the subnetwork alone still says the tail (an ablation; off by default)

The passes of one step share one sample of the mask; each pass is taken back to the sampled weights before the next
one runs, so that only one is in memory at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from lens.kernels import kl_reference, kl_uniform
from lens.mask.config import Config
from lens.mask.examples import Examples
from lens.mask.scores import MaskedWeights, Scores
from lens.model import LanguageModel
from lens.model.upper import UpperLayers
from lens.model.watching import as_a_function


class Objective:
    """The losses of ``config`` on rows of the three sets, for weights given in place of the model's."""

    def __init__(self, lm: LanguageModel, config: Config, layer: int):
        self.lm, self.config, self._layer = lm, config, layer
        self._upper: dict[int, UpperLayers] = {}
        self._head = lm.head_terms

    def backward(self, scores: Scores, step: int, target: Examples, control: Examples, text: Examples) -> dict:
        """Add the gradient of a step's losses to the scores; their values, detached, by name."""
        c = self.config
        passes: list[list[tuple[str, Examples]]] = [[("suppress", target)], [("maintain_kg", control)]]
        if c.samples == "shared":  # prompts are of one kind, and short: they share a pass
            passes = [passes[0] + passes[1]]
        passes += [[("maintain_lm", text)], [("express", target)]]
        found: dict[str, Tensor] = {}
        sampled: dict[tuple[int, str], list[Tensor]] = {}
        for draw, some in enumerate([loss for loss in one if getattr(c, loss[0])] for one in passes):
            if not some:
                continue
            part = "subnetwork" if some[0][0] == "express" else "remaining"
            key = (0 if c.samples == "shared" else draw), part
            if key not in sampled:
                sampled[key] = [w.requires_grad_() for w in scores.sample(step, *key)]
            found |= self.one_pass(some, scores.named(sampled[key]))
        density, sparsity = scores.density(), c.weight_of_sparsity(step)
        if not sampled:  # sparsity alone
            scores.back_([torch.zeros_like(place.weight) for place in scores.places], step, sparsity=sparsity)
        for key, leaves in sampled.items():
            grads = [leaf.grad for leaf in leaves]
            leaves.clear()  # the sampled weights are gone before the scores' gradients are made
            scores.back_(grads, step, *key, sparsity=sparsity)
            sparsity = 0.0  # once a step
        return found | {"density": density}

    def one_pass(self, some: list[tuple[str, Examples]], weights: MaskedWeights) -> dict[str, Tensor]:
        """One pass, back to the weights; its losses, which hold on to nothing."""
        losses = self.losses(some, weights)
        sum(getattr(self.config, name) * loss for name, loss in losses.items()).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def losses(self, some: list[tuple[str, Examples]], weights: MaskedWeights) -> dict[str, Tensor]:
        """Each named loss on its rows, all rows in one pass."""
        longest = max(rows.hidden.shape[1] for _, rows in some)
        hidden = torch.cat([pad(rows.hidden, (0, 0, 0, longest - rows.hidden.shape[1])) for _, rows in some])
        normed = self.upper(longest)(hidden, weights, self.config.checkpointing)
        parts = normed.split([len(rows) for _, rows in some])
        return {name: self._loss(name, rows, part) for (name, rows), part in zip(some, parts)}

    def _loss(self, name: str, rows: Examples, normed: Tensor) -> Tensor:
        each = torch.arange(len(rows), device=normed.device)[:, None]
        counted = rows.share > 0  # [N, M]
        unembedding = self.lm.unembedding.detach()
        at = normed[each, rows.position][counted].to(unembedding.device)  # [K, d]
        if name == "suppress":
            losses = kl_uniform(at, unembedding, reduction="none", **self._head)
        elif name == "express":
            with as_a_function(self.lm.model):  # or E would collect a gradient
                logits = self.lm.head(at)
            losses = cross_entropy(logits, rows.label[counted].to(logits.device), reduction="none")
        else:
            reference = rows.reference[counted].to(unembedding.device)
            losses = kl_reference(at, unembedding, reference, reduction="none", **self._head)
        return (losses.to(normed.device) * rows.share[counted]).sum() / len(rows)

    @torch.no_grad()
    def hard(self, scores: Scores, target: Examples, control: Examples, text: Examples) -> dict[str, float]:
        """The losses under the hard mask 1[l > 0], and its density."""
        weights = scores.named(scores.hard())
        found = self.losses([("suppress", target)], weights) | self.losses([("maintain_kg", control)], weights)
        found |= self.losses([("maintain_lm", text)], weights)
        return {name: float(loss) for name, loss in found.items()} | {"density": scores.hard_density()}

    def upper(self, length: int) -> UpperLayers:
        """The masked layers and those above: what a layer is told besides h depends on the rows' length alone."""
        if length not in self._upper:
            self._upper[length] = UpperLayers(self.lm, torch.zeros(1, length, dtype=torch.long), self._layer)
        return self._upper[length]
