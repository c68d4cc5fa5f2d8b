"""Is the knowledge gone, and only that?  A TargetKG and its controls, with and without a subnetwork.

    ΔPPL = PPL(remaining model) − PPL(original),     PPL = exp( mean −log p of the tokens due )

A removal is worth something where ΔPPL is large on the target's facts, also in phrasings that the mask never saw, small
on the controls it never saw, and both far from what removing as many weights of each module at random does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from statistics import fmean

from tqdm.auto import tqdm

from lens.data import Knowledge
from lens.evaluate.readings import Measures, Readings
from lens.given import RULES, door, whole
from lens.mask.subnetwork import Subnetwork
from lens.mask.variants import random_like
from lens.model import LanguageModel
from lens.results import markdown

SETS = {
    "target": "TargetKG",
    "unseen": "TargetKG, new phrasings",
    "unseen_taught": "– that the model was taught with",
    "unseen_untaught": "– that it was not taught with",
    "control": "ControlKG",
    "control_held_out": "ControlKG, held out",
    "text_held_out": "ControlLM, held out",
}
"""What is measured, as tables call it."""

SIZES = {"control": 256, "text_held_out": 100}
"""Of how many prompts or texts a set is measured by default; the others whole."""


@dataclass(frozen=True)
class Removal:
    """What ``knowledge`` found: ``result["remaining"]["target"].ppl``, and so for each variant and set.

    ``name`` is the TargetKG's; ``found`` has the ``Measures`` of each set (``SETS``) for each variant; ``removed`` the
    share of the maskable weights that a variant has lost, ``runs`` over how many masks it is a mean.
    """

    name: str
    model: str
    found: Mapping[str, Mapping[str, Measures]] = field(repr=False)
    removed: Mapping[str, float]
    runs: Mapping[str, int]

    def __getitem__(self, variant: str) -> Mapping[str, Measures]:
        return self.found[variant]

    def rows(self) -> list[dict]:
        """One flat row for each variant and set, for a table of many results (``pandas.DataFrame(rows)``)."""
        return [
            {"target_kg": self.name, "model": self.model, "variant": variant, "removed": self.removed[variant]}
            | {"runs": self.runs[variant], "set": name}
            | asdict(measures)
            for variant, sets in self.found.items()
            for name, measures in sets.items()
        ]

    def table(self) -> str:
        """The numbers as a Markdown table, variants in columns; ranks count from 0, shares are in percent."""
        runs = [f"{name} (mean of {n})" if n > 1 else name for name, n in self.runs.items()]
        lines = [[f"{self.name}, {self.model}", "", *runs]]
        lines.append(["weights removed (%)", "", *(f"{100 * share:.2f}" for share in self.removed.values())])
        for name in self.found["original"]:
            sets = [self.found[variant][name] for variant in self.found]
            lines.append([f"{SETS[name]} ({sets[0].count})", "PPL", *(_number(m.ppl) for m in sets)])
            lines.append(["", "ΔPPL", "", *(_number(m.delta_ppl, "+") for m in sets[1:])])
            lines.append(["", "rank", *(f"{m.rank:.1f}" for m in sets)])
            lines.append(["", "top-1 / 5 / 10 (%)", *(" / ".join(f"{100 * s:.1f}" for s in _tops(m)) for m in sets)])
            lines.append(["", "Δ log p", "", *(f"{m.delta_log_prob:+.3f}" for m in sets[1:])])
        return markdown.table(lines)

    def __str__(self) -> str:
        return self.table()


@door(subnetwork=lambda name, value: value if isinstance(value, Mapping) else RULES["subnetwork"](name, value))
def knowledge(
    lm: LanguageModel,
    kg: Knowledge,
    subnetwork: Subnetwork | Mapping[str, Subnetwork | Sequence[Subnetwork]] | None = None,
    *,
    random: int = 3,
    alone: bool = False,
    sizes: Mapping[str, int] = SIZES,
    progress: bool = True,
) -> Removal:
    """Measure what ``lm`` knows of ``kg``: as it is ("original"), and without a subnetwork.

    One ``subnetwork``: also "remaining", the model without it; "random", the mean over ``random`` masks that remove as
    many weights of each module (none where 0); and if ``alone``, "alone", the model with nothing but the subnetwork in
    the masked sites.  Several under names of their own share the work: then each is removed, a list of them gives its
    mean, and nothing is added.  ``sizes``: set → at most so many of its prompts or texts, drawn once and for all (0
    leaves it out); the others are whole.  The model is not changed.

    Raises ``ValueError`` for a subnetwork of another model, a set that is none, and where nothing is left to read.

    >>> import lens
    >>> lm, kg = lens.load("mini"), lens.data.knowledge("building")
    >>> few = {name: 8 for name in SETS}
    >>> knowledge(lm, kg, sizes=few, progress=False)["original"]["target"].top1
    1.0
    """
    sets, variants = sets_of(kg, sizes), _variants(subnetwork, random, alone)
    masks = [mask for some in variants.values() for _, mask in some]
    for mask in masks:
        mask.check(lm)

    lowest = min((layer for mask in masks for layer, _ in mask.bits), default=-1)
    with tqdm(total=1 + len(masks), desc=kg.name, unit="variant", disable=not progress) as bar:
        readings = Readings(lm, sets, lowest)
        found, removed, runs = {"original": readings.original}, {"original": 0.0}, {"original": 1}
        bar.update()
        for name, some in variants.items():
            each = []
            for how, mask in some:
                with getattr(mask, how)(lm):
                    each.append(readings())
                bar.update()
            found[name] = {one: Measures.mean([measures[one] for measures in each]) for one in each[0]}
            removed[name] = fmean(mask.density() if how == "removed" else mask.sparsity for how, mask in some)
            runs[name] = len(some)
    return Removal(kg.name, lm.name, found, removed, runs)


def _variants(subnetwork, random: int, alone: bool) -> dict[str, list[tuple[str, Subnetwork]]]:
    """Name → the masks to measure under it, each with what is done with it: ``"removed"`` or ``"only"``."""
    if subnetwork is None:
        return {}
    if not isinstance(subnetwork, Mapping):
        variants = {
            "remaining": [("removed", subnetwork)],
            "random": [("removed", random_like(subnetwork, seed)) for seed in range(random)],
            "alone": [("only", subnetwork)] if alone else [],
        }
        return {name: some for name, some in variants.items() if some}
    variants = {}
    for name, some in subnetwork.items():
        variants[name] = [("removed", mask) for mask in ([some] if isinstance(some, Subnetwork) else some)]
        if not variants[name]:
            raise ValueError(f"The variant {name!r} has no subnetwork: give at least one.")
    if "original" in variants:
        raise ValueError("The variant 'original' is the model as it is: give that subnetwork another name.")
    return variants


def sets_of(kg: Knowledge, sizes: Mapping[str, int] = SIZES) -> dict[str, list]:
    """The sets of ``kg`` that are measured, in ``SETS``' order, each of at most its size; "unseen" also in two parts.

    Where all unseen phrasings are of one kind, they have no parts.  Raises ``ValueError`` for a size of no set and one
    that is no whole number.
    """
    if wrong := [name for name in sizes if name not in SETS]:
        raise ValueError(f"There is no set {wrong[0]!r} in sizes: choose of {', '.join(SETS)}.")
    for name, size in sizes.items():
        whole(f"the size of {name}", size)
    taught, untaught = ([p for p in kg.unseen if p.held_out == part] for part in (False, True))
    parts = {"unseen_taught": taught, "unseen_untaught": untaught} if taught and untaught else {}
    found = {}
    for name in SETS:
        every = list(parts.get(name, getattr(kg, name, ())))
        size = sizes.get(name, len(every))
        found[name] = every if size >= len(every) else Random(0).sample(every, size)
    return found


def _tops(m: Measures) -> tuple[float, float, float]:
    return m.top1, m.top5, m.top10


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.2f" if abs(value) < 1000 else f"{sign}.3g" if abs(value) >= 1e6 else f"{sign}.0f")
