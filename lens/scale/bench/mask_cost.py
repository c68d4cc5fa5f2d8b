"""What does a step of mask training cost?  Against its passes without masks, and against the published formulation.

``python -m lens bench mask`` prints times, memory and ratios for mini and for a model of GPT-2 small's shape:

    step           of ``lens.mask``: one sample of the mask, the passes of the losses, back to the scores, Adam
    passes alone   the same passes over the same rows, back to the same weights: no mask, no scores
    published      three samples, each drawn element by element with two uniform numbers a weight,
                   σ((l − log(log U₁ / log U₂))/τ) with the straight-through rule; three passes of the whole model
                   and two of the model as it is; all logits; autograd keeps everything until the end; Adam

Times are medians of repeats in turn.  Memory is the most held at a time beyond the model: scores, Adam's state and the
rows kept for all steps included.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lens.data import knowledge
from lens.kernels import naive
from lens.mask import Config, config_for
from lens.mask.examples import Examples, Order, of_prompts, of_texts
from lens.mask.objective import Objective
from lens.mask.places import places
from lens.mask.scores import Scores
from lens.model import LanguageModel
from lens.model.loading import load
from lens.model.watching import as_a_function
from lens.scale.bench.measure import interleaved, peak_bytes, random_gpt2

ROWS = (64, 128, 16)
"""How many rows of TargetKG, ControlKG and ControlLM the steps choose from."""

NAMES = ("suppress", "maintain_kg", "maintain_lm")


class Rows:
    """The three sets as they enter ``layer``, and those due at a step."""

    def __init__(self, lm: LanguageModel, config: Config, layer: int):
        kg = knowledge("building")
        target, control = (of_prompts(lm, p[:n], layer) for p, n in zip((kg.target, kg.control), ROWS))
        self.sets = target, control, of_texts(lm, kg.text[: ROWS[2]], layer, config.tokens)
        sizes = config.targets, config.controls, config.texts
        self.orders = [Order(len(s), size, config.seed, i) for i, (s, size) in enumerate(zip(self.sets, sizes))]

    def __getitem__(self, step: int) -> list[Examples]:
        return [s.rows(order[step]) for s, order in zip(self.sets, self.orders)]


class Ours:
    """A step of ``lens.mask.train``, and the same passes without a mask."""

    def __init__(self, lm: LanguageModel, config: Config, rows: Rows | None = None):
        self.config, self.places = config, places(lm, config.layers, config.sites)
        first = min(place.layer for place in self.places)
        self.rows = Rows(lm, config, first) if rows is None else rows
        self.objective = Objective(lm, config, first)
        self.scores = Scores(self.places, config.granularity, config.start, config.seed, config.tau)
        self.adam = torch.optim.Adam(self.scores.values, config.lr, fused=True)

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of training; its losses."""
        self.adam.zero_grad()
        losses = self.objective.backward(self.scores, step, *self.rows[step])
        self.adam.step()
        return losses

    def passes(self, step: int) -> None:
        """Its passes alone."""
        target, control, text = self.rows[step]
        leaves = [place.weight.detach().requires_grad_() for place in self.places]
        for some in ([(NAMES[0], target), (NAMES[1], control)], [(NAMES[2], text)]):
            self.objective.one_pass(some, self.scores.named(leaves))


class Published:
    """The step as the paper and its code write it, on rows that enter the lowest layer."""

    def __init__(self, lm: LanguageModel, config: Config, rows: Rows):
        self.lm, self.config, self.rows, self.objective = lm, config, rows, Objective(lm, config, 0)
        self.places = places(lm, config.layers, config.sites)
        level = math.log(config.start / (1 - config.start))
        self.scores = [torch.full_like(place.weight, level).requires_grad_() for place in self.places]
        self.adam = torch.optim.Adam(self.scores, config.lr, fused=True)

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of training; its losses."""
        self.adam.zero_grad()
        losses = {name: self._loss(name, rows) for name, rows in zip(NAMES, self.rows[step])}
        density = sum(s.sigmoid().sum() for s in self.scores) / sum(s.numel() for s in self.scores)
        total = self.config.weight_of_sparsity(step) * density
        (total + sum(getattr(self.config, name) * loss for name, loss in losses.items())).backward()
        self.adam.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _loss(self, name: str, rows: Examples) -> Tensor:
        weights = {
            (place.layer, place.path): naive.published_mask(place.weight.detach(), s, self.config.tau)
            for place, s in zip(self.places, self.scores)
        }
        log_p = self._log_p(rows, weights)
        if name == "suppress":
            losses = -log_p.mean(-1) - math.log(log_p.shape[-1])
        else:
            with torch.no_grad():
                log_q = self._log_p(rows, None)
            losses = (log_q.exp() * (log_q - log_p)).sum(-1)
        return (losses * rows.share).sum() / len(rows)

    def _log_p(self, rows: Examples, weights) -> Tensor:
        """log p [N, M, V] where a prediction counts, of all logits [N, T, V]."""
        normed = self.objective.upper(rows.hidden.shape[1])(rows.hidden, weights)
        with as_a_function(self.lm.model):
            z = self.lm.head(normed)
        return z[torch.arange(len(z))[:, None], rows.position].log_softmax(-1)


def begun(training: Ours | Published) -> Ours | Published:
    """After two steps: the second is the first that holds everything."""
    training.step(0), training.step(1)
    return training


def cost(lm: LanguageModel, config: Config, repeats: int) -> dict[str, float | None]:
    """Milliseconds and bytes of a step, of its passes alone and of the published step, and their ratios."""
    whole = Rows(lm, config, 0)
    makes = [lambda: begun(Ours(lm, config)), lambda: begun(Published(lm, config, whole))]
    for make in makes:
        make()  # whatever is loaded or compiled at the first use is there now
    memory, memory_published = (peak_bytes(make, lm.device) for make in makes)
    mine, theirs = (make() for make in makes)
    tasks = mine.step, mine.passes, theirs.step
    turns = [iter(range(repeats + 1)) for _ in tasks]  # all see the same rows
    tasks = [lambda task=task, turn=turn: task(next(turn)) for task, turn in zip(tasks, turns)]
    step, passes, eager = interleaved(tasks, lm.device, repeats)
    return {
        "step, ms": 1e3 * step,
        "its passes alone, ms": 1e3 * passes,
        "published step, ms": 1e3 * eager,
        "step / its passes": step / passes,
        "published / step": eager / step,
        "memory, MB": memory and memory / 1e6,
        "memory of the published step, MB": memory_published and memory_published / 1e6,
        "memory / published": memory and memory_published and memory / memory_published,
    }


def bench_mask(device: str | None = None, repeats: int = 9) -> dict[str, float | None]:
    """``cost`` of mini and of GPT-2 small's shape, each number under the model's name."""
    found = {}
    for name, lm in (("mini", load("mini", device=device)), ("GPT-2 small", random_gpt2(device))):
        config = config_for(lm, steps=10**6)  # a warm-up that does not move the scores
        found |= {f"{name}: {what}": value for what, value in cost(lm, config, repeats).items()}
    return found
