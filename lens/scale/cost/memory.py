"""How many bytes does a step need, and for what?  Counted from shapes, phase by phase; nothing is run.

A step goes through *phases*, moments at which it may hold the most.  Each is a list of parts in bytes; the largest
sum is the peak that a machine must have room for:

    peak = max over phases of (weights + scores + Adam + sampled weights + gradients + activations + logits + …)

What is counted is what torch is asked for.  On top of that come the holes that an allocator leaves, the libraries
themselves and, on a GPU, the CUDA context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import torch

from lens.scale.cost import masks, steps, training
from lens.scale.cost.shapes import Shape, shape
from lens.scale.cost.steps import DTYPES, Found, Parts, Phases, Work

STEPS: dict[str, Callable[[Shape, Work], Found]] = {
    "forward": steps.forward,
    "lens": steps.lens,
    "shift": steps.shift,
    "statistics": steps.statistics,
    "rome": steps.rome,
    "memit": steps.memit,
    "mask": masks.mask,
    "published": masks.published,
    "finetune": training.finetune,
    "lora": training.lora,
}
"""A step's name → its phases."""

ONE_PLACE = ("logits", "working")
"""Parts that one device holds as a whole."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one ``step`` on one model, computed.

    ``phases``: name → {part: bytes}.  ``learning``: how many weights the step masks or trains (0: none), which is what
    ``per_weight`` divides by.  ``result``: bytes of what the step leaves behind, such as a packed mask or an edit.
    """

    shape: Shape
    step: str
    work: Work
    phases: Phases = field(repr=False)
    learning: int
    result: int

    @property
    def phase(self) -> str:
        """The phase that holds the most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part, at the peak."""
        return self.phases[self.phase]

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.parts.values())

    @property
    def beyond_weights(self) -> int:
        """Bytes at the peak beyond the model's own weights."""
        return self.total - self.parts["weights"]

    def per_weight(self) -> dict[str, float]:
        """Bytes by part at the peak, for each weight that is masked or trained (of the model, where none is)."""
        return {part: size / (self.learning or self.shape.parameters) for part, size in self.parts.items()}

    def table(self) -> str:
        """The peak as a Markdown table: each part in all and per weight."""
        of = "weight of the model" if not self.learning else "weight that learns"
        rows = [f"| computed, at the peak ({self.phase}) | MB | bytes per {of} |", "|---|--:|--:|"]
        each = self.per_weight()
        rows += [f"| {part} | {size / 1e6:,.1f} | {each[part]:.3f} |" for part, size in self.parts.items() if size]
        rows.append(f"| **in all** | **{self.total / 1e6:,.1f}** | **{sum(each.values()):.3f}** |")
        return "\n".join(rows)

    def __str__(self) -> str:
        s, w = self.shape, self.work
        learns = f", {self.learning:,} of them learn" if self.learning else ""
        split = f", the fullest of {w.devices} devices" if w.devices > 1 else ""
        head = f"{s.name}, step {self.step!r}, {w.dtype}{split}: {s.parameters:,} weights{learns}."
        left = f"\n\nWhat is left when it is done: {self.result / 1e6:,.3f} MB." if self.result else ""
        return f"{head}\n\n{self.table()}{left}"


def memory(model, step: str = "mask", *, dtype: torch.dtype | str = "float32", **work) -> Memory:
    """The bytes that ``step`` needs on ``model``, computed: a name, a folder, a configuration, or a loaded model.

    ``step`` is one of

    - ``"forward"``: what comes next, without gradients;      ``"shift"``: an edit with one such pass
    - ``"lens"``: ``capture`` of every site, and the backward lens
    - ``"statistics"``, ``"rome"``, ``"memit"``: the second moments, and the editors that use them
    - ``"mask"``: a step of mask training;      ``"published"``: the same as the paper and its code write it
    - ``"finetune"``: Adam on all weights, or on ``layers`` and ``sites``;      ``"lora"``: on factors of rank ``rank``

    ``dtype`` is that of the model's weights; scores and their Adam are float32.  ``work`` are fields of ``Work``:
    ``batch`` rows of ``tokens`` tokens, ``config`` for masks, ``checkpointing``, ``devices``, and others.

    Raises ``ValueError`` in one sentence for a step, a dtype or a field that does not exist.

    >>> xl = memory("gpt2-xl", "mask", dtype="bfloat16")
    >>> f"{xl.learning:,} scores, {xl.parts['scores'] / xl.learning:.0f} bytes each"
    '737,280,000 scores, 4 bytes each'
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"The dtype is {name!r}: give one of {', '.join(DTYPES)}.")
    if step not in STEPS:
        raise ValueError(f"There is no step {step!r}: choose one of {', '.join(STEPS)}.")
    known = Work.__dataclass_fields__
    for field_name in work:
        if field_name not in known or field_name == "dtype":
            raise ValueError(f"A step has no {field_name!r}: it has {', '.join(n for n in known if n != 'dtype')}.")
    s, w = shape(model), Work(dtype=name, **work)
    for count in ("batch", "tokens", "scored", "devices", "rank"):
        if getattr(w, count) < 1:
            raise ValueError(f"{count} is {getattr(w, count)}: give 1 or more.")
    phases, learning, result = STEPS[step](s, w)
    if w.devices > 1:
        phases = {name: _fullest(s, w, parts) for name, parts in phases.items()}
    return Memory(s, step, w, phases, learning, result)


def _fullest(s: Shape, w: Work, parts: Parts) -> Parts:
    """What the fullest of ``w.devices`` holds: layers are spread evenly, the unembedding is with the last of them.

    Masked layers lie together, in the upper half: two devices do not halve what they need.
    """
    layers = ceil(s.layers / w.devices)
    inner = s.matrices * w.width
    outer = parts["weights"] - inner  # embeddings, unembedding, norms; a tied one is on both ends
    involved = s.layers - s.layers // 2 if "scores" in parts else s.layers
    share = min(1.0, layers / involved)
    found = {"weights": ceil(inner * layers / s.layers) + (outer if s.tied else ceil(outer / 2))}
    for name, size in parts.items():
        if name != "weights":
            found[name] = size if name in ONE_PLACE else ceil(size * share)
    return found
