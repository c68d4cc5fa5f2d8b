"""How much memory, how many operations is a step?  Traced on a few layers of its model, told for all of them.

Layers are alike, so whatever is counted of a step is affine in how many layers there are: with f(3) and f(4) known,

    f(L) = f(3) + (L − 3) · (f(4) − f(3))

for the bytes of each part in each phase, for operations, for what is left behind.  A maximum is not affine, but each
phase is one stretch of equal layers, which holds the most at its beginning or at its end, whatever its length.  Where
layers differ, as masked and unmasked ones, each run of equal layers has a length of its own.

What is counted is what torch is asked for.  On top of that come the holes that an allocator leaves, the libraries
themselves and, on a GPU, the CUDA context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from math import ceil

from lens.mask.places import places
from lens.scale.cost.machines import Operations
from lens.scale.cost.shapes import Shape, on_meta, shape
from lens.scale.cost.steps import STEPS, new
from lens.scale.cost.trace import Tracer
from lens.scale.cost.work import BYTES, Work

MOVED = {"mask": 84, "published": 3 * 158, "finetune": 28, "lora": 28}
"""Bytes moved a weight that learns, each array once for each reading and writing.

Of a float32 mask: sample W, l, W ∘ (1 − m) 12; adding the second pass's gradient 12; to the scores W, l, G, ∂l 16;
density l once, then l, its gradient, and adding it, 16; Adam l, ∂l and two moments read, three written, 28.
"""

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
    phases: dict[str, dict[str, int]] = field(repr=False)
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


def memory(model, step: str = "mask", **work) -> Memory:
    """The bytes that ``step`` needs on ``model``, computed: a name, a folder, a configuration, or a loaded model.

    ``step`` is one of

    - ``"forward"``: what comes next, without gradients;      ``"shift"``: an edit with one such pass
    - ``"lens"``: ``capture`` of every site, and the backward lens
    - ``"statistics"``, ``"rome"``, ``"memit"``: the second moments, and the editors that use them
    - ``"mask"``: a step of mask training;      ``"published"``: the same as the paper writes it
    - ``"finetune"``: Adam on all weights, or on ``layers`` and ``sites``;      ``"lora"``: on factors of rank ``rank``

    ``work`` are fields of ``Work``: ``dtype`` of the model's weights (scores and their Adam are float32), ``batch``
    rows of ``tokens`` tokens, ``config`` for masks, ``checkpointing``, ``devices``, and others.

    Raises ``ValueError`` in one sentence for a step, a dtype or a field that does not exist.

    >>> xl = memory("gpt2-xl", "mask", dtype="bfloat16")
    >>> f"{xl.learning:,} scores, {xl.parts['scores'] / xl.learning:.0f} bytes each"
    '737,280,000 scores, 4 bytes each'
    """
    s, w, found = _counted(model, step, work)
    weights = {"weights": s.parameters * BYTES[w.dtype]}
    phases: dict[str, dict[str, int]] = {}
    for key, size in found.items():
        if isinstance(key, tuple):
            phases.setdefault(key[0], dict(weights))[key[1]] = size
    if w.devices > 1:
        phases = {name: _fullest(s, w, parts) for name, parts in phases.items()}
    return Memory(s, step, w, phases, found["learning"], found["result"])


def flops(model, step: str = "mask", **work) -> Operations:
    """Operations of one step, given and refused as in ``memory``; of a search or a training, of one of its steps.

    >>> flops("gpt2-xl", "mask").flops > flops("gpt2", "mask").flops
    True
    """
    *_, found = _counted(model, step, work)
    return Operations(found["flops"], MOVED.get(step, 0) * found["learning"])


def kept(model, sites: Sequence[str] | None = (), *, tokens: int = 16, dtype: str = "float32") -> int:
    """Bytes of each token that autograd keeps of one layer until its backward pass, if the ``sites``' weights learn.

    ``sites``: none by default; None stands for every parameter.  ``tokens`` are those of a row.

    >>> kept("gpt2-xl") < kept("gpt2-xl", ("ff1",))
    True
    """
    s = shape(model)

    def held(layers: int) -> int:
        lm = on_meta(s.config, layers, dtype)
        lm.model.requires_grad_(sites is None)
        for place in places(lm, range(layers), sites or ()):
            place.weight.requires_grad_()
        with Tracer(s.vocabulary) as t:
            given = new(1, tokens, s.width, dtype=lm.dtype).requires_grad_()
            hidden = lm.base_model(inputs_embeds=given, use_cache=False).last_hidden_state
            return t.now if hidden.requires_grad else 0

    return (held(2) - held(1)) // tokens


def _counted(model, step: str, work: dict) -> tuple[Shape, Work, Counter]:
    """What was asked for, and (phase, part) → bytes at the phase's peak; "flops", "learning", "result"."""
    if step not in STEPS:
        raise ValueError(f"There is no step {step!r}: choose one of {', '.join(STEPS)}.")
    for name in work:
        if name not in (known := Work.__dataclass_fields__):
            raise ValueError(f"A step has no {name!r}: it has {', '.join(known)}.")
    s, w = shape(model), Work(**work)
    runs = _runs(s, step, w)
    few = [len(run) if len(run) <= 4 else 3 for _, run in runs]
    base = _traced(s, step, w, runs, few)
    found = Counter(base)
    for i, (_, run) in enumerate(runs):
        if len(run) > 4:
            more = _traced(s, step, w, runs, [*few[:i], 4, *few[i + 1 :]])
            for key in {**base, **more}:
                found[key] += (len(run) - 3) * (more.get(key, 0) - base.get(key, 0))
    return s, w, found


Runs = tuple[tuple[int, range], ...]
"""Stretches of layers of one role each: 0 (is run), 1 (learns or is edited), 2 (the last that an editor changes)."""


def _runs(s: Shape, step: str, w: Work) -> Runs:
    """All layers but those that are run once for all steps."""
    late = s.layers * 17 // 48  # as deep as ROME's layer of GPT-2 XL
    half, every = range(s.layers // 2, s.layers), range(s.layers)
    given, default = {
        "mask": (w.config.layers, half), "published": (w.config.layers, half),
        "finetune": (w.layers, every), "lora": (w.layers, every),
        "rome": (w.edited, (late,)), "statistics": (w.edited, (late,)),
        "memit": (w.edited, range(max(0, late - 4), late + 1)),
    }.get(step, ((), ()))  # fmt: skip
    chosen = s.chosen(default if given is None else given)
    search = step in ("rome", "memit")
    entered = range(min(chosen) if search or step == "mask" else 0, s.layers)
    stretches = groupby(entered, lambda i: (i in chosen) + (search and i == max(chosen)))
    runs = ((role, list(run)) for role, run in stretches)
    return tuple((role, range(run[0], run[-1] + 1)) for role, run in runs)


def _traced(s: Shape, step: str, w: Work, runs: Runs, lengths: Sequence[int]) -> dict:
    """What is counted where each run is so long as ``lengths`` say."""
    config = replace(w.config, layers=None, stop=None)
    plain = replace(w, devices=1, edited=None, layers=w.layers and (), config=config)  # the runs say the rest
    return _trace(s.config, step, plain, runs, tuple(lengths), s.layers)


@cache
def _trace(config: str, step: str, w: Work, runs: Runs, lengths: tuple[int, ...], depth: int) -> dict:
    names, layers = [], []
    for (role, run), length in zip(runs, lengths):
        layers += range(len(names), len(names) + length) if role else ()
        each = [f"layer {i}" for i in run]
        if len(run) > 4:
            each[1:-1] = [f"layers {run[1]} to {run[-2]}"] * (length - 2)
        names += each
    lm = on_meta(config, len(names), w.dtype)
    with Tracer(lm.vocabulary_size, depth) as t, t.layers(lm.layers, names):
        learning, left = STEPS[step](lm, w, layers, t)
    found = {(phase, part): size for phase, parts in t.peaks().items() for part, size in parts.items()}
    left = {id(x.untyped_storage()): x.untyped_storage().nbytes() for x in left}
    return found | {"flops": t.flops, "learning": learning, "result": sum(left.values())}


def _fullest(s: Shape, w: Work, parts: dict[str, int]) -> dict[str, int]:
    """What the fullest of ``w.devices`` holds: layers are spread evenly, the unembedding is with the last of them.

    Masked layers lie together, in the upper half: two devices do not halve what they need.
    """
    layers = ceil(s.layers / w.devices)
    inner = s.matrices * BYTES[w.dtype]
    outer = parts["weights"] - inner  # embeddings, unembedding, norms; a tied one is on both ends
    involved = s.layers - s.layers // 2 if "scores" in parts else s.layers
    share = min(1.0, layers / involved)
    found = {part: size if part in ONE_PLACE else ceil(size * share) for part, size in parts.items()}
    return found | {"weights": ceil(inner * layers / s.layers) + (outer if s.tied else ceil(outer / 2))}
