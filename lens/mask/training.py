"""How is a critical subnetwork found?  Scores down the gradient of ``lens.mask.objective``'s losses, with Adam.

    l ← l − Adam(∇_l [losses of the remaining model W ∘ (1 − m) + λ · mean σ(l)]),    m ~ Bernoulli(σ(l)) a step

Noise and order of the examples are functions of the seed and the step (``lens.kernels.noise``, ``Order``), so a run
that was stopped anywhere goes on from its last checkpoint and, on a CPU, ends in the same bits.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch
from tqdm.auto import tqdm

from lens.data.world import Prompt
from lens.given import RULES, door
from lens.mask.config import Config, config_for
from lens.mask.examples import Order, of_prompts, of_texts
from lens.mask.kept import find, keep
from lens.mask.objective import Objective
from lens.mask.places import places
from lens.mask.scores import Scores
from lens.mask.sets import check_sets
from lens.mask.subnetwork import Subnetwork
from lens.model import LanguageModel
from lens.model.devices import resident
from lens.model.soundness import check_as_loaded
from lens.results.checkpoint import resume, store
from lens.results.lock import held_alone
from lens.results.provenance import provenance

SAMPLE = (256, 128, 32)
"""Rows of TargetKG, ControlKG and ControlLM on which a check measures the hard mask."""


class TrainingStopped(RuntimeError):
    """A loss was no number any more.  ``subnetwork`` is what the last check before it found, None if there was none."""

    def __init__(self, message: str, subnetwork: Subnetwork | None):
        super().__init__(message)
        self.subnetwork = subnetwork


@door(target=RULES["prompts"], control_kg=RULES["prompts"], control_lm=RULES["texts"])
@held_alone("checkpoint")
@torch.inference_mode(False)
@torch.enable_grad()
def train(
    lm: LanguageModel,
    target: Sequence[Prompt],
    control_kg: Sequence[Prompt],
    control_lm: Sequence[str],
    config: Config | None = None,
    *,
    outside: Subnetwork | None = None,
    kept: str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[list[dict]], None] | None = None,
) -> Subnetwork:
    """Find the subnetwork of ``lm`` that is critical for the facts of ``target`` and for nothing else.

    ``target`` and ``control_kg``: prompts (``lens.data.knowledge``); ``control_lm``: ordinary texts.  ``config``: by
    default the model's own (``config_for``).  ``outside``: a subnetwork whose weights must stay in the model, so that
    what is found is disjoint from it (a neuron stays that has one of them).  ``kept``: the name of a run that comes
    with the book; where this very call made it, it is given at once (``lens.mask.kept``), and a line says so.
    ``checkpoint``: a file that keeps the run at every check, from which the same call goes on; it stays when the run is
    done, so that the call gives its result again.  ``watch`` is called with the history after each check.  Ctrl-C ends
    a run; with a checkpoint nothing but the steps since the last check is lost.  The model is not changed.

    Raises ``ValueError`` in one sentence where a set is empty or a control set holds a target's fact, where ``outside``
    is of another model or leaves no weight, ``RuntimeError`` while an edit or a mask lies on the weights, ``OSError``
    where another run has this ``checkpoint`` or it is damaged, and ``TrainingStopped`` where a loss is no number any
    more, with the last good state.

    >>> import lens
    >>> lm, kg = lens.load("mini"), lens.data.knowledge("building")
    >>> config = lens.mask.config_for(lm, steps=2, check=2)
    >>> lens.mask.train(lm, kg.target, kg.control, kg.text, config, progress=False).config.steps
    2
    """
    config = config or config_for(lm)
    check_as_loaded(lm, "A mask is found for a model")
    target, control_kg, control_lm = check_sets(target, control_kg, control_lm)
    run = _run_name(lm, config, outside, target, control_kg, control_lm)
    if kept and (known := find(lm, kept, run)):
        return known
    if resume(checkpoint, lambda held: held["run"], run) != run:  # also what is damaged is told before any work
        raise ValueError(
            f"The checkpoint {checkpoint} belongs to another run (other settings, model or texts): give another file, "
            "or delete it."
        )
    masked = places(lm, config.layers, config.sites)
    for place in masked:
        resident(place.weight, f"A mask of layer {place.layer} {place.sites[0]}")
    first = min(place.layer for place in masked)
    sets = (
        of_prompts(lm, target, first, after=config.position == "after"),
        of_prompts(lm, control_kg, first),
        of_texts(lm, control_lm, first, config.tokens),
    )
    sizes = config.targets, config.controls, config.texts
    orders = [Order(len(s), n, config.seed, i) for i, (s, n) in enumerate(zip(sets, sizes))]
    looked_at = [s.rows(torch.arange(min(n, len(s)))) for s, n in zip(sets, SAMPLE)]
    scores = Scores(masked, config.granularity, config.start, config.seed, config.tau)
    if outside:
        outside.check(lm)
        scores.forbid(outside)
    objective = Objective(lm, config, first)
    devices = {v.device.type for v in scores.values}
    optimizer = torch.optim.Adam(scores.values, lr=config.lr, fused=devices <= {"cpu", "cuda"})
    state = _resume(checkpoint, scores, optimizer)

    def found() -> Subnetwork:
        about = provenance(lm.device) | {"seconds": state["seconds"]}
        about |= {"outside": outside.digest()} if outside else {}
        rest = tuple(state["history"]), lm.name, lm.fingerprint, head_dim(lm), about
        return Subnetwork(scores.bits(), scores.shapes(), config, *rest)

    steps = range(state["step"], config.steps)
    bar = tqdm(steps, "mask", config.steps, initial=state["step"], disable=not progress, unit="step")
    begun, before, good = time.perf_counter(), state["seconds"], found() if state["step"] else None
    total: dict[str, torch.Tensor] = {}
    for step in bar:
        if state["done"]:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        optimizer.zero_grad()
        losses = objective.backward(scores, step, *(s.rows(order[step]) for s, order in zip(sets, orders)))
        optimizer.step()
        total = {name: total.get(name, 0) + loss for name, loss in losses.items()}
        if (step + 1) % config.check and step + 1 < config.steps:
            continue
        since = (step % config.check) + 1
        means = {name: float(value) / since for name, value in total.items()}
        total = {}
        hard = objective.hard(scores, *looked_at)
        numbers = [*means.values(), *hard.values(), float(scores.density())]  # of scores that no step used yet
        if not all(map(math.isfinite, numbers)):
            last, bad = state["step"], next(v for v in numbers if not math.isfinite(v))
            rest = f"the file {checkpoint} holds" if checkpoint else "the error's subnetwork is that of"
            rest = f"{rest} step {last}" if good else "no check came before"
            raise TrainingStopped(
                f"A loss became {bad} between steps {last} and {step + 1}; {rest}: try a smaller lr than {config.lr}.",
                good,
            )
        state["step"], state["seconds"] = step + 1, before + time.perf_counter() - begun
        row = {"step": step + 1, "seconds": round(state["seconds"], 3), "sampled": means, "hard": hard}
        state["history"].append(row)
        # A mask of no weights has met all goals but one from the start.
        held = bool(config.stop) and hard["density"] > 0
        state["done"] = held and all(hard[name] <= goal for name, goal in config.stop.items())
        if checkpoint:
            store(checkpoint, state | {"run": run, "scores": scores.values, "optimizer": optimizer.state_dict()})
        good = found()
        bar.set_postfix({name: f"{value:.3g}" for name, value in hard.items()})
        if watch:
            watch(state["history"])
    bar.close()
    return keep(found(), kept, run) if kept else found()


def head_dim(lm: LanguageModel) -> int:
    """How wide a head is."""
    c = lm.model.config
    return getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads


def _run_name(lm: LanguageModel, config: Config, outside: Subnetwork | None, *sets) -> str:
    """A checkpoint or a kept file belongs to one call only: same configuration, model and texts."""
    texts = [[p if isinstance(p, str) else (p.text, p.target) for p in one] for one in sets]
    held = [asdict(config), lm.weights.current_fingerprint, texts] + ([outside.digest()] if outside else [])
    return sha256(json.dumps(held).encode()).hexdigest()


def _resume(checkpoint, scores: Scores, optimizer: torch.optim.Optimizer) -> dict:
    """Where the run stood; raises ``OSError`` for a damaged file."""
    start = {"step": 0, "seconds": 0.0, "history": [], "done": False}

    def take(held: dict) -> dict:
        scores.load(held.pop("scores"))
        optimizer.load_state_dict(held.pop("optimizer"))
        return {name: type(value)(held[name]) for name, value in start.items()}

    return resume(checkpoint, take, start)
