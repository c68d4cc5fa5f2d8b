"""What should an edit do?  MEND's meta-loss: what the *edited* model says.

For one example (``lens.edit.mend_examples``): take the raw gradient of the request, let the network make an edit of it,
and run the model with that edit,

    meta-loss = c · (−log p_edited(new | equivalents)) + KL(p_original ‖ p_edited) on locality.

x and δ do not depend on the network, so the meta-gradient passes through the edited model once and needs no second
derivative.  The model itself is never written: the edits of a whole batch of examples run side by side as branches
z + (a x̃ᵀ)(−α δ̃), and the layers below the first edited one run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lens.edit.branch import branches
from lens.edit.edit import Change
from lens.edit.mend import MendNetwork
from lens.edit.mend_examples import Example
from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.upper import UpperLayers
from lens.model.watching import as_a_function

BATCH = 8
"""Rows that run through the model together: few, so that rows of unlike length are not padded to one."""


@dataclass(frozen=True)
class MetaLoss:
    """What a batch of edits does: the meta-loss, its two terms, and two shares to read them by.

    ``said``: of the equivalents' target tokens, those that the edited model would say; ``kept``: of the locality
    prompts, those where it says what the original says.
    """

    loss: Tensor
    edit: float
    locality: float
    said: float
    kept: float


def meta_loss(
    lm: LanguageModel,
    network: MendNetwork,
    examples: Sequence[Example],
    edit_weight: float = 0.1,
    locality_weight: float = 1.0,
    prose: int = 24,
) -> MetaLoss:
    """Edit with every example's request, and measure its edited model on its equivalents and locality.

    ``edit_weight`` is c; ``prose`` is how many tokens of each paragraph are read.  Autograd follows into the network.

    >>> import lens
    >>> from random import Random
    >>> from lens.edit.mend_examples import training_example
    >>> network = MendNetwork({(7, "ff2"): (768, 192)}, rank=8, alpha=1e-4)
    >>> outcome = meta_loss(lens.load("mini"), network, [training_example(Random(0))])
    >>> outcome.locality < 0.001 < outcome.edit  # next to no edit yet
    True
    """
    requests = [example.request for example in examples]
    trace = network.capture(lm, [r.text for r in requests], [r.target_new for r in requests])
    edits: list[list[Change]] = [[] for _ in examples]
    for (layer, site), (x, delta) in network(trace).items():
        for edit, its_x, its_delta in zip(edits, x.split(trace.lengths), delta.split(trace.lengths)):
            edit.append(Change(layer, site, its_x, its_delta))
    with as_a_function(lm.model):
        edit, said = _edit_loss(lm, edits, examples)
        locality, kept = _locality_loss(lm, edits, examples, prose)
    loss = edit_weight * edit + locality_weight * locality
    return MetaLoss(loss, edit.item(), locality.item(), said, kept)


def _edit_loss(lm: LanguageModel, edits: list[list[Change]], examples: Sequence[Example]) -> tuple[Tensor, float]:
    """−log p(new target) behind the equivalents, the mean over prompts; and the share of target tokens said."""
    rows, labels, shares = [], [], []
    for i, example in enumerate(examples):
        target = lm.target_ids(example.request.target_new)
        for text in example.equivalents:
            prompt = lm.encode(text)
            rows.append(Reading(i, [*prompt, *target[:-1]], len(prompt) - 1))
            labels += target
            shares += [1 / len(target)] * len(target)
    logits = lm.head(_read(lm, edits, rows)[0])
    label = torch.tensor(labels).to(logits.device)
    share = torch.tensor(shares, dtype=torch.float64).to(logits) / len(rows)
    nll = cross_entropy(logits, label, reduction="none")
    return (nll * share).sum(), float(((logits.argmax(1) == label) * share).sum())


def _locality_loss(
    lm: LanguageModel, edits: list[list[Change]], examples: Sequence[Example], prose: int
) -> tuple[Tensor, float]:
    """KL(original ‖ edited), the mean over rows: at a prompt's last token, and over a paragraph's every token."""
    rows = []
    for i, example in enumerate(examples):
        rows += [Reading(i, ids, len(ids) - 1) for ids in map(lm.encode, example.locality)]
        rows += [Reading(i, lm.encode(text)[:prose], 0) for text in example.prose]
    edited, original = (lm.head(h).log_softmax(1) for h in _read(lm, edits, rows, original=True))
    kl = (original.exp() * (original - edited)).sum(1)
    read = [len(row.ids) - row.first for row in rows]
    share = torch.tensor([1 / n for n in read for _ in range(n)], dtype=torch.float64).to(kl) / len(rows)
    same = (original.argmax(1) == edited.argmax(1)).double()
    return (kl * share).sum(), float((same * share).sum())


class Reading(NamedTuple):
    """Token ids that run through edited model ``edit``, of which the places from ``first`` on are read."""

    edit: int
    ids: list[int]
    first: int


def _read(lm: LanguageModel, edits: list[list[Change]], rows: list[Reading], original: bool = False) -> list[Tensor]:
    """ln_f's output [K, d] at all places of all rows that are read, of the edited models, and of the original one."""
    order = sorted(range(len(rows)), key=lambda r: len(rows[r].ids))  # rows of like length run together
    found: dict[int, list[Tensor]] = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        upper = UpperLayers(lm, pad([rows[r].ids for r in part])[0], min(change.layer for change in edits[0]))
        with branches(lm, edits, [rows[r].edit for r in part]):
            runs = [upper()]
        if original:
            runs.append(upper.normed)
        for i, r in enumerate(part):
            found[r] = [run[i, rows[r].first : len(rows[r].ids)] for run in runs]
    return [torch.cat(places) for places in zip(*(found[r] for r in range(len(rows))))]
