"""Which code is a step?  The real one, on a model, its text and its scores that have shapes and no numbers.

Every function runs one step of ``lens`` under a ``Tracer`` and names its passes and what it makes.  It gives how many
weights learn, and the tensors that the step leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lens.edit import Request, shift
from lens.edit.statistics import CONTEXT, Statistics, measure
from lens.edit.value import find_value
from lens.gradient import capture
from lens.kernels import naive
from lens.mask.examples import Examples
from lens.mask.places import places
from lens.model import LanguageModel
from lens.readout.projection import read as words
from lens.scale.bench.mask_cost import Ours, Published
from lens.scale.cost.trace import Tracer
from lens.scale.cost.work import Work

Layers = Sequence[int]
Found = tuple[int, Sequence[Tensor]]


def new(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


# --- reading and editing ----------------------------------------------------------------------------------------------


def forward(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    t.phase("pass")
    with torch.no_grad():
        hidden = lm.base_model(input_ids=new(w.batch, w.tokens, dtype=torch.long), use_cache=False).last_hidden_state
        lm.head(hidden[:, -w.scored :])
    return 0, ()


def lens(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    t.phase("capture")
    trace = capture(lm, [[1] * (w.tokens + 1 - w.scored)] * w.batch, [[1] * w.scored] * w.batch)
    t.phase("words")  # of all layers: chunks of logits are as many as they must be
    words(lm, new(t.depth, len(trace.ids), lm.width, dtype=lm.dtype), k=5, largest=False, tokens=1)
    return 0, [f for seen in trace._factors.values() for f in seen.values()]


def shifted(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    t.phase("pass")
    request = Request("{}" + "a" * (w.tokens - w.scored), "a", (1,) * w.scored)
    edit = shift(lm, [request] * w.batch, layer=0, eta=1.0)
    return 0, [f for change in edit.changes for f in (change.x, change.delta)]


def statistics(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    with patch("lens.edit.statistics.tqdm"):  # nobody waits
        measure(lm, list(layers), [[1] * w.tokens] * w.batch, "")
        flops = t.flops  # of the text that is given; held is what a whole batch of it needs
        t.phase("second moments")
        found = measure(lm, list(layers), [[1] * CONTEXT] * 16, "")
    t.flops = flops
    return 0, [one.C for one in found]


def search(lm: LanguageModel, w: Work, layers: Layers, t: Tracer, whole: bool, contexts: int) -> Found:
    """The value at the last layer edited, of FF2 or of the ``whole`` layer; and C with its factor in every one."""
    contexts = w.contexts or contexts
    module = lm.layers[layers[-1]] if whole else lm.site(layers[-1], "ff2")
    inner = lm.weight(0, "ff2").shape[0]
    with t.part("statistics"):
        known = [Statistics(layer, new(inner, inner), inner, "") for layer in layers]
    plain = max(w.tokens - 12, 2)
    before = ((), *[(1,) * max(w.tokens - plain - 2, 1)] * (contexts - 1))
    chosen = dict(lr=0.1, kl=0.1, decay=0.1, clamp=1.0, stop=0.0)
    t.phase("search")
    for steps in (0, 1):
        t.flops *= -1  # what a search of one step does more than a search of none is a step
        request = Request("{}" + "a" * (plain - 1), "a", (1,))
        found = find_value(lm, request, layers[-1], module, before, chosen | {"steps": steps})
    t.phase("factors of C")
    with t.part("statistics"):
        us = [one.solve(found.key[None]) for one in known]
    return 0, [f.to(found.key) for u in us for f in (u, found.delta)]


# --- masks ------------------------------------------------------------------------------------------------------------


def mask(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    """A step of ``lens.mask.train``."""
    training, total = begun(lm, w, layers, t, Ours)
    scores, objective = training.scores, training.objective
    bits = total if scores.granularity == "weight" else sum(v.numel() for v in scores.values)
    with t.part("packed mask"):
        packed = new(bits // 8, dtype=torch.uint8)
    scores.sample = t.part("sampled weights")(scores.sample)
    scores.back_ = t.named("to the scores", scores.back_)
    scores.density = t.named("density", scores.density)
    objective.losses = t.named(lambda some, _: " and ".join(name for name, _ in some), objective.losses)
    t.phase("samples")
    training.step(0)
    return total, [packed]


def published(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    """The step as the paper's code writes it: each loss draws a sample of its own and keeps it."""
    training, total = begun(lm, w, layers, t, Published)
    training._loss = t.named(lambda name, rows: name, training._loss)
    with patch.object(naive, "published_mask", t.part("sampled weights")(naive.published_mask)):
        training.step(0)
    return total, [new(total // 8, dtype=torch.uint8)]


def begun(lm: LanguageModel, w: Work, layers: Layers, t: Tracer, kind: type[Ours] | type[Published]):
    """Such a training with the rows that enter the lowest layer, and how many weights it masks."""
    c = replace(w.config, layers=tuple(layers), checkpointing=w.checkpointing or w.config.checkpointing)
    with t.part("kept rows"):
        sizes = (w.tokens, w.scored), (w.tokens, w.scored), (c.tokens, c.tokens - 1)
        sets = [kept_rows(lm, n, *size) for n, size in zip(w.rows, sizes)]
        due = [s.rows(torch.zeros(n, dtype=torch.long)) for s, n in zip(sets, (c.targets, c.controls, c.texts))]
    with t.part("scores"):
        training = kind(lm, c, [due])
    training.sets = sets  # as long as it lives
    total = sum(len(p.matrix) * sum(map(len, p.columns)) for p in training.places)
    for some in due:
        training.objective.upper(some.hidden.shape[1])
    t.flops = 0  # that was done once for all steps
    return training, total


def kept_rows(lm: LanguageModel, n: int, tokens: int, scored: int) -> Examples:
    hidden, reference = (new(n, size, lm.width, dtype=lm.dtype) for size in (tokens, scored))
    position, label = (new(n, scored, dtype=torch.long) for _ in range(2))
    return Examples(hidden, torch.full((n,), tokens), position, label, new(n, scored), reference)


# --- training ---------------------------------------------------------------------------------------------------------


def finetune(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    if w.layers is None and w.sites is None:
        return train(lm, w, t, list(lm.model.parameters()))
    return train(lm, w, t, [place.weight for place in places(lm, layers, w.sites)])


def lora(lm: LanguageModel, w: Work, layers: Layers, t: Tracer) -> Found:
    factors = []
    for place in places(lm, layers, w.sites):
        d_in, d_out = place.matrix.shape
        with t.part("adapters"):
            a, b = new(d_in, w.rank, dtype=lm.dtype), new(w.rank, d_out, dtype=lm.dtype)
        factors += [a, b]
        module = lm.layers[place.layer].get_submodule(place.path)
        module.register_forward_hook(lambda _, args, z, a=a, b=b: z + args[0] @ a @ b)
    return train(lm, w, t, factors)


def train(lm: LanguageModel, w: Work, t: Tracer, learn: list[Tensor]) -> Found:
    """A step of Adam, the loss at the last ``scored`` places of each row."""
    lm.model.requires_grad_(False)
    for p in learn:
        p.requires_grad_()
    if w.checkpointing:
        for layer in lm.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    adam = t.adam(learn)
    t.phase("step")
    hidden = lm.base_model(input_ids=new(w.batch, w.tokens, dtype=torch.long), use_cache=False).last_hidden_state
    loss = cross_entropy(lm.head(hidden[:, -w.scored :].flatten(0, 1)), new(w.batch * w.scored, dtype=torch.long))
    del hidden
    loss.backward()
    adam.step()
    return sum(p.numel() for p in learn), learn


STEPS: dict[str, Callable[[LanguageModel, Work, Layers, Tracer], Found]] = {
    "forward": forward, "lens": lens, "shift": shifted, "statistics": statistics,
    "rome": partial(search, whole=False, contexts=21), "memit": partial(search, whole=True, contexts=6),
    "mask": mask, "published": published, "finetune": finetune, "lora": lora,
}  # fmt: skip
"""A step's name → the step."""
