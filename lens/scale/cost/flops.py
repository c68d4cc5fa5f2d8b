"""How many operations is a step, and how long does it take?  Counted from shapes; hours follow from a machine's speed.

A matrix product [n, a]·[a, b] is 2·n·a·b operations.  With N the weights of the layers' matrices and t tokens:

    forward                   2 N t  +  4 t T d_q a layer for q kᵀ and p v, all T × T of them  +  2 d V a scored place
    backward to the inputs    the same again; attention twice that, and q kᵀ once more: it is not kept
    backward to the weights   2 N t of the weights that learn

    hours = operations / (peak · utilization)  +  bytes / (bandwidth · utilization)

where the bytes are those of element-wise work on weights (sampling a mask, Adam), which no matrix unit speeds up.
"""

from __future__ import annotations

from dataclasses import dataclass

from lens.scale.cost.machines import Machine
from lens.scale.cost.shapes import Module, Shape, shape
from lens.scale.cost.steps import Work

SWEEP = 84
"""Bytes moved a masked float32 weight and step of mask training, each array once for each reading and writing.

Sample: W, l, W ∘ (1 − m) 12.  Adding the second pass's gradient: 12.  To the scores: W, l, G, ∂l 16.  Density: l once,
then l, its gradient, and adding it, 16.  Adam: l, ∂l and two moments read, three written, 28.
"""


@dataclass(frozen=True)
class Operations:
    """Of one step, computed: ``flops``, and ``moved`` bytes of element-wise work."""

    flops: int
    moved: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.flops + other.flops, self.moved + other.moved)

    def __mul__(self, times: int) -> Operations:
        return Operations(self.flops * times, self.moved * times)

    __rmul__ = __mul__

    def hours(self, machine: Machine, dtype: str = "float32", utilization: float = 0.3) -> float:
        """GPU-hours on ``machine`` if this share of its peak and of its bandwidth is reached: an assumption."""
        seconds = self.flops / (machine.peak(dtype) * utilization) + self.moved / (machine.bandwidth * utilization)
        return seconds / 3600


def passes(
    model,
    rows: int,
    tokens: int,
    scored: int = 1,
    first: int = 0,
    backward: bool = False,
    learning: tuple[Module, ...] = (),
    head_backward: bool = True,
) -> Operations:
    """One pass over ``rows`` of ``tokens`` from layer ``first`` on, ``scored`` places in all through the head.

    ``backward``: also back to the inputs; ``learning``: and to these matrices.

    >>> passes("gpt2", 1, 100).flops / (2 * 100 * shape("gpt2").matrices) < 1.1
    True
    """
    s = shape(model)
    count = s.layers - first
    matrices = sum(m.weights for m in s.modules(range(first, s.layers))) if count else 0
    maps = 2 * matrices * rows * tokens
    attention = 4 * rows * tokens * tokens * s.query * count
    head = 2 * s.width * s.vocabulary * scored
    total = maps + attention + head
    if backward:
        total += maps + attention * 5 // 2 + (head if head_backward else 0)
        total += 2 * rows * tokens * sum(m.weights for m in learning)
    return Operations(total)


def flops(model, step: str = "mask", **work) -> Operations:
    """Operations of one step, as ``lens.cost.memory`` takes it; of a search or a training, of one of its steps.

    >>> flops("gpt2-xl", "mask").flops > flops("gpt2", "mask").flops
    True
    """
    s, w = shape(model), Work(**work)
    if step in ("mask", "published"):
        return _mask(s, w, step == "published")
    every = s.modules(range(s.layers))
    if step in ("forward", "shift"):
        return passes(s, w.batch, w.tokens, w.batch * w.scored)
    if step == "lens":  # and the words of a vector a layer and token
        return passes(s, w.batch, w.tokens, w.batch * w.scored, backward=True) + Operations(
            2 * s.width * s.vocabulary * w.batch * w.tokens * s.layers
        )
    if step in ("rome", "memit"):
        rows = (w.contexts or (21 if step == "rome" else 6)) + 1
        last = max(w.edited or (s.layers * 17 // 48,))
        return passes(s, rows, w.tokens, rows, first=last, backward=True)
    if step == "statistics":  # of the text: w.batch rows
        last = max(w.edited or (s.layers * 17 // 48,))
        part = s.matrices * (last + 1) // s.layers
        return Operations(2 * part * w.batch * w.tokens + 2 * s.inner**2 * w.batch * w.tokens)
    if step in ("finetune", "lora"):
        plain = w.layers is None and w.sites is None
        chosen = every if plain else s.modules(range(s.layers) if w.layers is None else w.layers, w.sites)
        first = min(m.layer for m in chosen)
        done = passes(
            s, w.batch, w.tokens, w.batch * w.scored, backward=True, learning=chosen if step == "finetune" else ()
        )
        if first:  # no gradient goes below
            below = passes(s, w.batch, w.tokens, 0, backward=True).flops - passes(s, w.batch, w.tokens, 0).flops
            done += Operations(-below * first // s.layers)
        learns = s.parameters if plain and step == "finetune" else sum(m.weights for m in chosen)
        if step == "lora":
            learns = sum(w.rank * (m.d_in + m.d_out) for m in chosen)
            done += Operations(6 * learns * w.batch * w.tokens)
        elif plain:  # the unembedding learns too
            done += Operations(2 * s.width * s.vocabulary * w.batch * w.scored)
        return done + Operations(0, 28 * learns)
    raise ValueError(f"The operations of {step!r} are not counted.")


def _mask(s: Shape, w: Work, published: bool) -> Operations:
    c = w.config
    modules = s.modules(c.layers, c.sites)
    first = min(m.layer for m in modules)
    masked = sum(m.weights for m in modules)
    prompts = c.targets + c.controls
    sizes = [(prompts, w.tokens, prompts * w.scored), (c.texts, c.tokens, c.texts * (c.tokens - 1))]
    done = Operations(0, SWEEP * masked)
    for rows, tokens, scored in sizes:
        done += passes(s, rows, tokens, rows * tokens if published else scored, first, True, modules)
    # What the original model says: its logits are made again, or (as published) all of the model is run.
    control = c.controls * w.scored + c.texts * (c.tokens - 1)
    if not published:
        return done + Operations(2 * s.width * s.vocabulary * control)
    for rows, tokens in ((c.controls, w.tokens), (c.texts, c.tokens)):
        done += passes(s, rows, tokens, rows * tokens)
    for rows, tokens, _ in sizes:  # the layers below the masks, which lens.mask runs once for all steps
        done += Operations(passes(s, rows, tokens, 0).flops * first // s.layers)
    return done + Operations(0, 3 * 158 * masked - SWEEP * masked)
