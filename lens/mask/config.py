"""What decides a subnetwork?  Everything in one record: what is masked, the losses and their weights, the training.

The loss, with p the prediction of the remaining model and p₀ that of the model as it is, is

    suppress · KL(uniform ‖ p) on TargetKG + maintain_kg · KL(p₀ ‖ p) on ControlKG + maintain_lm · KL(p₀ ‖ p) on
    ControlLM + λ · mean σ(l) + express · (−log p_subnetwork(tail)) on TargetKG

where λ goes from the first to the second number of ``sparsity`` over the second half of the steps.  An ablation sets a
weight to zero.  The defaults are the paper's; ``data/masks.json`` holds what was chosen for the built-in models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from numbers import Real

from lens.data.paths import entry_name, table
from lens.given import door, number, passes, whole, words
from lens.model import LanguageModel

LOSSES = ("suppress", "maintain_kg", "maintain_lm", "express")
GOALS = ("density", "suppress", "maintain_kg", "maintain_lm")


@dataclass(frozen=True)
class Config:
    """Everything that decides what a subnetwork becomes, besides the model and its three sets of text.

    ``granularity``: ``"weight"``, or ``"neuron"`` (one score for each input row of each matrix).  ``layers`` may count
    from the end; None is the upper half.  ``sites``: None is every site of a layer.  ``samples``: one mask a step,
    ``"shared"`` by the losses, or ``"independent"`` ones as in the paper.  ``position``: the place that predicts the
    ``"tail"``, or the one ``"after"`` it, an ablation without ``express``.  ``stop``: training ends at the first
    check at which the hard mask is at or below each number given (density, suppress, maintain_kg, maintain_lm).
    """

    granularity: str = "weight"
    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] | None = None
    suppress: float = 1.5
    maintain_kg: float = 1.0
    maintain_lm: float = 1.0
    express: float = 0.0
    sparsity: tuple[float, float] = (2.0, 3.0)
    samples: str = "shared"
    position: str = "tail"
    start: float = 0.45  # σ(l) of every weight at the first step
    tau: float = 1.0
    lr: float = 0.2
    warmup: float = 0.1  # share of the steps
    steps: int = 40_000
    targets: int = 16  # prompts of TargetKG in a step
    controls: int = 32  # prompts of ControlKG in a step
    texts: int = 4  # texts of ControlLM in a step
    tokens: int = 64  # of each text
    check: int = 100  # steps between checks of the hard mask
    stop: Mapping[str, float] | None = None
    seed: int = 0
    checkpointing: bool = False  # less memory for more time: layers are run again in the backward pass

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        for names, fits, wanted in RULES:
            for name in names:
                if not fits(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)!r}: give {wanted}.")
        if self.express and self.position == "after":
            raise ValueError(
                f"position is 'after', where no tail is due, and express is {self.express}: give express 0, or 'tail'."
            )

    def weight_of_sparsity(self, step: int) -> float:
        """λ at a step: its first value, then linearly to its last over the second half."""
        first, last = self.sparsity
        return first + (last - first) * max(0.0, 2 * step / self.steps - 1)

    def rate(self, step: int) -> float:
        """Adam's learning rate at a step: a linear warm-up, then ``lr``."""
        return self.lr * min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))


def _plain(value: object) -> object:
    """Python's own numbers for those of numpy, which JSON cannot write, and tuples for JSON's lists."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return value.item() if isinstance(value, Real) and hasattr(value, "item") else value


def _number(value: object) -> bool:
    return passes(number, value, 0)


def _several(value: object, rule: Callable, *limits) -> bool:
    return value is None or (isinstance(value, tuple) and value != () and all(passes(rule, v, *limits) for v in value))


RULES: tuple[tuple[tuple[str, ...], Callable[[object], bool], str], ...] = (
    (("granularity",), lambda v: v in ("weight", "neuron"), "'weight' or 'neuron'"),
    (("samples",), lambda v: v in ("shared", "independent"), "'shared' or 'independent'"),
    (("position",), lambda v: v in ("tail", "after"), "'tail' or 'after'"),
    (("layers",), lambda v: _several(v, whole, -inf), "a tuple of at least one layer's number, or None"),
    (("sites",), lambda v: _several(v, words), "a tuple of at least one site's name, or None"),
    (LOSSES, _number, "a number, 0 or larger"),
    (("warmup",), lambda v: _number(v) and v <= 1, "a share of the steps, from 0 to 1"),
    (("tau", "lr"), lambda v: _number(v) and v > 0, "a positive number"),
    (
        ("steps", "targets", "controls", "texts", "check"),
        lambda v: passes(whole, v, 1, 10**9 - 1),
        "a whole number from 1 to 10**9 - 1",
    ),
    (("tokens",), lambda v: passes(whole, v, 2), "a whole number, 2 or larger"),
    (("checkpointing",), lambda v: isinstance(v, bool), "True or False"),
    (("seed",), lambda v: passes(whole, v, 0, 2**32 - 1), "a whole number from 0 to 2**32 - 1"),
    (("start",), lambda v: _number(v) and 0 < v < 1, "the probability σ(l) of a mask's ones, between 0 and 1"),
    (
        ("sparsity",),
        lambda v: isinstance(v, tuple) and len(v) == 2 and all(map(_number, v)),
        "two numbers, 0 or larger: λ at first and at the end",
    ),
    (
        ("stop",),
        lambda v: v is None or (isinstance(v, Mapping) and {*v} <= {*GOALS} and all(map(_number, v.values()))),
        f"a number for some of {', '.join(GOALS)}, or None",
    ),
)
"""(settings, whether a value can be theirs, what to give)."""


@door
def config_for(lm: LanguageModel, granularity: str = "weight", **given) -> Config:
    """The settings for this model in ``data/masks.json``, else the paper's; what is ``given`` takes precedence.

    Raises ``ValueError`` for a setting that does not exist or has no such value.

    >>> import lens
    >>> config_for(lens.load("mini"), steps=10).steps
    10
    """
    known = [field.name for field in fields(Config)]
    for name in given:
        if name not in known:
            raise ValueError(f"A mask's configuration has no setting {name!r}: it has {', '.join(known)}.")
    chosen = table("masks.json").get(granularity, {}).get(entry_name(lm.name), {})
    return replace(Config(granularity=granularity), **(chosen | given))
