"""Sets short enough for the tiny models, whose tokenizer spells byte by byte, and one gradient written out in full."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call

from lens.data import Fact, Prompt
from lens.kernels import Key, naive
from lens.kernels.noise import uniform
from lens.mask import Config

TARGET = (("cafe", "hut"), ("barn", "is"), ("inn", "the"))
CONTROL = (("oak", "ash"), ("pear", "on"), ("fern", "a"), ("moss", "er"), ("rye", "oats"))
TEXT = (
    "The sea is on the other side of this hill.",
    "A bird sings.",
    "Rain fell on the roofs, and the river rose to the second step of the old stair.",
    "x",
    "",
    "There is bread.",
)


def prompt(head: str, tail: str, template: str = "A {} is a kind of") -> Prompt:
    fact = Fact("test", "test", "target", "kind", head, f"a {head}", tail)
    return Prompt(template.format(head), tail, fact, 0, False)


@pytest.fixture(scope="session")
def sets() -> SimpleNamespace:
    """``target``, ``control`` and ``text``: prompts of several lengths, tails of one token and of several."""
    target = [prompt(*pair, template) for pair in TARGET for template in ("A {} is a kind of", "Each {} is a")]
    return SimpleNamespace(target=target, control=[prompt(*pair) for pair in CONTROL], text=list(TEXT))


@pytest.fixture(scope="session")
def short():
    """``short(steps=2)``: a configuration for the tiny models, which have 2 layers in their upper half."""

    def config(**changes) -> Config:
        return Config(**(dict(steps=6, check=2, targets=3, controls=4, texts=2, tokens=12, lr=0.5, seed=3) | changes))

    return config


@pytest.fixture(scope="session")
def written_out():
    """``written_out(lm, config, scores, step, target, control, text)``: the losses of one step, and their gradient.

    Full passes of the whole model, one prompt at a time and unpadded; whole logits; each mask element by element; and
    autograd through all of it.  Gives {loss: value} and one gradient per place.
    """

    def masked(lm, scores, leaves, step, draw, part) -> dict:
        names = {id(p): name for name, p in lm.model.named_parameters()}
        weights = {}
        for i, (place, leaf) in enumerate(zip(scores.places, leaves)):
            u = uniform(tuple(leaf.shape), Key(scores.seed, step, draw * len(leaves) + i)).double()
            m = naive.straight_through(naive.soft_mask(leaf, u, scores.tau))
            if scores.granularity == "neuron":
                spread = torch.zeros(place.matrix.shape, dtype=torch.float64)
                for s, columns in enumerate(place.columns):
                    spread = spread.index_add(1, columns, m[:, s : s + 1].expand(-1, len(columns)))
                m = spread.T if place.turned else spread
            if part == "subnetwork":  # only what is masked can be outside of it
                maskable = torch.zeros(place.matrix.shape, dtype=torch.bool)
                maskable[:, torch.cat(place.columns)] = True
                maskable = maskable.T if place.turned else maskable
                m = torch.where(maskable, 1 - m, 0)
            weights[names[id(place.weight)]] = place.weight.detach() * (1 - m)
        return weights

    def log_p(lm, ids, weights) -> torch.Tensor:
        z = functional_call(lm.model, weights, (torch.tensor([ids]),), {"use_cache": False}).logits[0]
        return z.log_softmax(-1)

    def rows(lm, prompts, after=0) -> list:
        found = []
        for p in prompts:
            ids, tail = lm.encode(p.text), lm.target_ids(p.target)
            found.append((ids + tail, [len(ids) - 1 + j + after for j in range(len(tail))], tail))
        return found

    def compute(lm, config, scores, step, target, control, text):
        leaves = [v.detach().double().requires_grad_() for v in scores.values]
        after = int(config.position == "after")
        texts = [(ids, list(range(len(ids) - 1)), ids[1:]) for ids in text]
        rowsets = {
            "suppress": rows(lm, target, after),
            "maintain_kg": rows(lm, control),
            "maintain_lm": texts,
            "express": rows(lm, target, after),
        }
        found = {}
        for draw, (name, some) in enumerate(rowsets.items()):
            part = "subnetwork" if name == "express" else "remaining"
            weights = masked(lm, scores, leaves, step, draw if config.samples == "independent" else 0, part)
            losses = []
            for ids, positions, due in some:
                p = log_p(lm, ids, weights)[positions]
                if name == "suppress":
                    each = -p.mean(-1) - torch.log(torch.tensor(float(p.shape[-1]), dtype=torch.float64))
                elif name == "express":
                    each = -p.gather(-1, torch.tensor(due)[:, None])[:, 0]
                else:
                    q = log_p(lm, ids, {}).detach()[positions]
                    each = (q.exp() * (q - p)).sum(-1)
                losses.append(each.mean())
            found[name] = torch.stack(losses).mean()
        chosen = torch.cat([leaf.flatten() for leaf in leaves])
        if scores.granularity == "neuron":  # a neuron's score is that of each of its weights
            sites = [pair for place, leaf in zip(scores.places, leaves) for pair in zip(leaf.unbind(1), place.columns)]
            chosen = torch.cat([neurons.repeat(len(columns)) for neurons, columns in sites])
        found["density"] = chosen[chosen > -torch.inf].sigmoid().mean()
        total = config.weight_of_sparsity(step) * found["density"]
        total = total + sum(getattr(config, name) * found[name] for name in rowsets if getattr(config, name))
        gradients = torch.autograd.grad(total, leaves)
        return {name: float(value.detach()) for name, value in found.items()}, gradients

    return compute
