"""Can it come back?  A model, or what a removal leaves of it, is trained on questions and asked others.

    loss = −log softmax(scores)[answer],     AdamW on what the method trains

Accuracies are over facts that the training never named, at several steps: of all, of those that need the removed
facts ("filtered"), and of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from lens.data import Question
from lens.given import RULES, door, whole
from lens.mask import Subnetwork
from lens.model import LanguageModel
from lens.model.soundness import not_finite
from lens.relearn.choosing import Encoded, answered, by_fact, means
from lens.relearn.learners import learner

RATES = {"head": 1e-3, "lora": 1e-3, "full": 1e-4}
"""Learning rates for models of mini's size: of three each, those that after a removal give the right tails of the
validation questions the largest log probability, removed and other facts alike, on average over the TargetKGs
(``python -m lens relearn --target all --variant remaining --on validation --lr …``)."""

RATES_OF = {"smollm2-135m": {"head": 1e-4}}
"""Other rates, by model: the head's is the best of 1e-3, 1e-4 and 1e-5 on the validation questions of building, seeds
0 to 2; that of LoRA is mini's, and full training was not tried."""

COLUMNS = ("step", "loss", "all", "filtered", "rest", "score_filtered", "score_rest")
"""What a row of a learning curve has."""


@dataclass(frozen=True)
class Tuned:
    """What one training came to.

    ``curve``: a row for each check: ``step``; ``loss``, the mean since the check before, in nats (NaN at step 0); the
    accuracies (0 to 1) ``all``, ``filtered`` and ``rest`` of the test, and one for each further set; and
    ``score_filtered`` and ``score_rest``, the mean score of the right choices, which for the likelihood is their log
    probability among all words.  ``right``: fact (or index of a question made of none) → share of its test questions
    answered right at the end.
    """

    method: str
    config: dict
    curve: tuple[dict, ...] = field(repr=False)
    right: Mapping = field(repr=False)
    seconds: float

    @property
    def accuracy(self) -> dict[str, float]:
        """The last check: ``all``, ``filtered``, ``rest``, each 0 to 1."""
        return {name: self.curve[-1][name] for name in ("all", "filtered", "rest")}


def rates(lm: LanguageModel) -> dict[str, float]:
    """Method → the learning rate that ``tune`` takes by default for this model."""
    return RATES | RATES_OF.get(lm.name, {})


@door(train=RULES["questions"], test=RULES["questions"])
@torch.inference_mode(False)
def tune(
    lm: LanguageModel,
    train: Sequence[Question],
    test: Sequence[Question],
    method: str = "head",
    *,
    removed: Subnetwork | None = None,
    frozen: bool = True,
    also: Mapping[str, Sequence[Question]] | None = None,
    seed: int = 0,
    steps: int = 8,
    every: int = 4,
    batch: int = 12,
    lr: float | None = None,
    rank: int = 8,
    readout: str = "likelihood",
) -> Tuned:
    """Train ``lm`` on ``train`` for ``steps`` batches, and ask ``test`` before, at every ``every``-th step and behind.

    ``method``: what is trained, ``"head"``, ``"lora"`` (adapters of rank ``rank``) or ``"full"``.  ``removed``: without
    this subnetwork; ``frozen``: its zeros stay zero in full training.  ``also``: name → further questions, whose
    accuracy the curve has under that name.  ``readout``: ``"likelihood"``, or ``"classifier"``, a new linear head as in
    the paper.  ``seed``: of the order of the questions and of new weights.  ``lr``: AdamW's (default: ``rates``).

    The model is not changed.  Raises ``ValueError`` for questions, settings or a subnetwork that do not fit, and
    ``ImportError`` for LoRA without peft.

    >>> import lens
    >>> lm, task = lens.load("mini"), lens.relearn.questions(lens.data.knowledge("building"))
    >>> tune(lm, task.train, task.test, "head", steps=1).accuracy["filtered"]
    1.0
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: give a whole number, 1 or larger.")
    whole("rank", rank, 1, lm.width)  # of a larger one, the rest could add nothing to a matrix
    lr = rates(lm).get(method) if lr is None else lr
    if lr is not None and lr <= 0:
        raise ValueError(f"lr is {lr!r}: give a learning rate above 0.")
    if wrong := {*COLUMNS} & {*(also or {})}:
        raise ValueError(f"A set of further questions is named {min(wrong)!r}, as a column of the curve: rename it.")
    start = perf_counter()
    encoded, asked = Encoded(lm, train, readout), Encoded(lm, test, readout)
    others = {name: Encoded(lm, some, readout) for name, some in (also or {}).items()}
    config = {"seed": seed, "steps": steps, "batch": batch, "lr": lr, "rank": rank, "readout": readout}
    config |= {"frozen": frozen, "removed": removed is not None}

    order = torch.Generator().manual_seed(seed)
    device = lm.device
    curve: list[dict] = []
    losses: list[float] = []
    with (
        nullcontext() if removed is None else removed.removed(lm),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.enable_grad(),
    ):
        torch.manual_seed(seed)
        with learner(lm, method, readout, removed, frozen, rank) as learns:
            optimizer = torch.optim.AdamW(learns.parameters, lr=lr, weight_decay=0.01)
            questions, queue = learns.kept(encoded), []
            for step in range(steps + 1):
                if step % every == 0 or step == steps:
                    right, scores = answered(learns.score, asked)
                    score = means(asked.questions, scores)
                    row = {"step": step, "loss": fmean(losses) if losses else nan} | means(asked.questions, right)
                    row |= {f"score_{part}": score[part] for part in ("filtered", "rest")}
                    for name, one in others.items():
                        answers, further = answered(learns.score, one)
                        row[name], scores = means(one.questions, answers)["all"], scores + further
                    if not isfinite(sum(scores)):
                        known = "Scores are NaN or infinite before the training"
                        raise _diverged(-sum(scores), step, lr) if step else not_finite(lm, known)
                    curve.append(row)
                    losses.clear()
                if step == steps:
                    break
                while len(queue) < batch:
                    queue += torch.randperm(len(encoded), generator=order).tolist()
                chosen, queue = queue[:batch], queue[batch:]
                where = questions(chosen)
                scores = learns.score(*where)
                loss = cross_entropy(scores, where[0].answer.to(scores.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
                if not isfinite(losses[-1]):
                    raise _diverged(losses[-1], step + 1, lr)
    return Tuned(method, config, tuple(curve), by_fact(asked.questions, right), perf_counter() - start)


def _diverged(loss: float, step: int, lr: float) -> ValueError:
    return ValueError(f"The loss became {loss} in step {step}: try a smaller lr than {lr}.")
