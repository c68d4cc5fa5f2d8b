"""How is an editor trained?  On edits of other facts, down the meta-loss of ``lens.edit.mend_loss``, with Adam.

    network ← network − Adam(∇ meta-loss)      on a few random examples a step

``python -m lens mend train`` runs this.  Examples and initial weights follow from the seed, so a machine repeats itself
bit for bit; a run that was stopped goes on from its last checkpoint and ends in the same network.  What is kept is the
network of the step whose meta-loss on the validation records is lowest; the test records are never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from random import Random

import torch
from tqdm.auto import tqdm

from lens.edit.mend import MendNetwork, save_network
from lens.edit.mend_examples import Example, training_example, validation_examples
from lens.edit.mend_loss import MetaLoss, meta_loss
from lens.edit.settings import settings
from lens.given import door
from lens.model import LanguageModel
from lens.model.soundness import check_as_loaded, finite
from lens.results.checkpoint import resume, store
from lens.results.lock import held_alone
from lens.results.provenance import provenance


@dataclass(frozen=True)
class MendRecipe:
    """Everything that decides what the network becomes; ``edit_weight`` and ``alpha`` are the paper's."""

    layers: tuple[int, ...] = (-3, -2, -1)
    sites: tuple[str, ...] = ("ff1", "ff2")
    rank: int = 192
    alpha: float = 1e-4
    normalize: bool = True  # z-score x and δ
    edit_weight: float = 0.1  # c
    locality_weight: float = 1.0
    lr: float = 3e-3
    alpha_lr: float = 3e-2  # of log α
    clip: float = 1.0  # largest norm of the meta-gradient
    steps: int = 1000
    edits: int = 4  # examples in a step
    standardize: int = 400  # examples whose x and δ give the z-scores
    prose: int = 24  # tokens of each paragraph
    seed: int = 0

    @property
    def loss(self) -> tuple[float, float, int]:
        """What the meta-loss is told."""
        return self.edit_weight, self.locality_weight, self.prose


def recipe_for(lm: LanguageModel, **given) -> MendRecipe:
    """The recipe of this model's ``settings``; what is ``given`` (and not None) takes precedence."""
    chosen = settings(lm, "mend")["recipe"] | {name: value for name, value in given.items() if value is not None}
    return MendRecipe(**chosen)


def new_network(lm: LanguageModel, recipe: MendRecipe) -> MendNetwork:
    """A fresh network for ``lm``: the identity, and where the recipe says so after z-scoring."""
    for layer in recipe.layers:
        lm.check(layer, recipe.sites[0])
    layers = sorted({layer % len(lm.layers) for layer in recipe.layers})
    shapes = {(layer, site): tuple(lm.weight(layer, site).shape) for layer in layers for site in recipe.sites}
    network = MendNetwork(shapes, recipe.rank, recipe.alpha, recipe.seed)
    network = network.to(lm.device, torch.promote_types(lm.dtype, torch.float32))
    if recipe.normalize:
        requests = [example.request for example in _examples(recipe, "z-scores", recipe.standardize)]
        parts = (requests[i : i + recipe.edits] for i in range(0, len(requests), recipe.edits))
        network.standardize(network.capture(lm, [r.text for r in part], [r.target_new for r in part]) for part in parts)
    return network


@door
@held_alone("out")
def train(
    lm: LanguageModel, out: str | Path, recipe: MendRecipe = MendRecipe(), every: int = 100, progress: bool = True
) -> Path:
    """Train a network for ``lm`` and write it to ``out``, a whole file or none; return ``out``.

    Every ``every`` steps the network is measured on the validation records, and the run kept in a hidden file beside
    ``out`` from which the same call goes on.  What is written is the network that measured best.  The model is not
    changed.  Raises ``ValueError`` for fewer than one step, ``IndexError`` for an unknown layer, and
    ``RuntimeError`` while an edit or a mask lies on the weights.
    """
    if recipe.steps < 1:
        raise ValueError(f"Training takes at least one step, and steps is {recipe.steps}.")
    check_as_loaded(lm, "MEND is trained for a model")
    out = Path(out).expanduser()
    network = new_network(lm, recipe)
    own = [p for name, p in network.named_parameters() if name.endswith("log_alpha")]
    rest = [p for name, p in network.named_parameters() if not name.endswith("log_alpha")]
    optimizer = torch.optim.Adam([{"params": rest, "lr": recipe.lr}, {"params": own, "lr": recipe.alpha_lr}])
    rates = [group["lr"] for group in optimizer.param_groups]
    checkpoint = out.with_name(f".{out.name}.{_run_name(lm, recipe)}")

    def take(state: dict) -> dict:
        network.load_state_dict(state.pop("network"))
        optimizer.load_state_dict(state.pop("optimizer"))
        return {"step": state["step"], "best": state["best"], "validation": state["validation"]}

    state = resume(checkpoint, take, {"step": 0, "best": None, "validation": None})
    validation = validation_examples()
    bar = tqdm(
        range(state["step"], recipe.steps), "training mend", recipe.steps, initial=state["step"], disable=not progress
    )
    for step in bar:
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * schedule(step, recipe)
        outcome = train_step(lm, network, optimizer, _examples(recipe, step, recipe.edits), recipe)
        if not finite(outcome.loss):
            raise ValueError(f"The meta-loss became {outcome.loss:.3g} in step {step + 1}: try a smaller lr.")
        bar.set_postfix(loss=f"{outcome.loss.item():.3f}", said=f"{outcome.said:.0%}", kept=f"{outcome.kept:.0%}")
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            measured = validate(lm, network, validation, recipe) | {"step": step + 1}
            if state["best"] is None or measured["loss"] < state["validation"]["loss"]:
                best = {name: t.clone() for name, t in network.state_dict().items()}
                state |= {"best": best, "validation": measured}
            state["step"] = step + 1
            store(checkpoint, state | {"network": network.state_dict(), "optimizer": optimizer.state_dict()})
    network.load_state_dict(state["best"])
    save_network(network, out, _about(lm, recipe, state["validation"]))
    checkpoint.unlink(missing_ok=True)
    return out


def train_step(
    lm: LanguageModel,
    network: MendNetwork,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    recipe: MendRecipe,
) -> MetaLoss:
    """One step of ``optimizer`` down the meta-loss of a few examples."""
    parameters = list(network.parameters())
    outcome = meta_loss(lm, network, examples, *recipe.loss)
    for p, gradient in zip(parameters, torch.autograd.grad(outcome.loss, parameters)):
        p.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
    optimizer.step()
    return outcome


@torch.no_grad()
def validate(
    lm: LanguageModel, network: MendNetwork, examples: Sequence[Example], recipe: MendRecipe
) -> dict[str, float]:
    """The mean ``MetaLoss`` over the examples, as numbers."""
    parts = [examples[i : i + recipe.edits] for i in range(0, len(examples), recipe.edits)]
    outcomes = [(len(part) / len(examples), meta_loss(lm, network, part, *recipe.loss)) for part in parts]
    return {f.name: sum(share * float(getattr(o, f.name)) for share, o in outcomes) for f in fields(MetaLoss)}


def schedule(step: int, recipe: MendRecipe) -> float:
    """A linear warm-up of 50 steps, then linearly down to zero."""
    return min(1.0, (step + 1) / 50) * (1 - step / recipe.steps)


def _examples(recipe: MendRecipe, stream: int | str, count: int) -> list[Example]:
    rng = Random(f"{recipe.seed}/{stream}")
    return [training_example(rng) for _ in range(count)]


def _run_name(lm: LanguageModel, recipe: MendRecipe) -> str:
    """A checkpoint continues only the run it came from: same recipe, same model."""
    return sha256(f"{json.dumps(asdict(recipe))} {lm.fingerprint}".encode()).hexdigest()[:12]


def _about(lm: LanguageModel, recipe: MendRecipe, validation: dict) -> dict:
    """What a reader of the file wants to know: for which model, how made, with which versions, how good."""
    return {
        "model": lm.name,
        "fingerprint": lm.fingerprint,
        "command": f"python -m lens mend train --model {lm.name} --steps {recipe.steps} --seed {recipe.seed}",
        "recipe": asdict(recipe),
        "versions": provenance(lm.device)["versions"],
        "validation": validation,
    }
