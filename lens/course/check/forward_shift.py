"""Checks of *Forward-pass shift*: who hears an edit, the edit itself, and a key that others do not hear."""

from __future__ import annotations

import torch

from lens import data
from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import NEGATED, NO_SPACE, TRANSPOSED
from lens.course.check.seeded import seeded
from lens.edit import Change, Request
from lens.edit.settings import settings
from lens.evaluate.prompts import Case, shares
from lens.gradient import capture
from lens.model.watching import watch

WRITTEN = [2.0, 0.0, 1.0, 2.0]  # a_n, d_m = 4
INPUTS = [WRITTEN, [1.0, 5.0, 2.0, -2.0], [-3.0, 1.0, 0.0, 0.0]]
ROW = [1.0, -2.0]  # E[t], d = 2
ETA = 1 / 3


def _heard(weigh=lambda x, a: x @ a, eta=ETA):
    a = torch.tensor(WRITTEN)
    return torch.stack([eta * weigh(x, a) * torch.tensor(ROW) for x in torch.tensor(INPUTS)])


heard = Value(
    _heard,
    {
        "The edit is added, not subtracted: it is the gradient whose sign is turned.": NEGATED,
        "This is η times the share: the share is divided by ‖a‖², the push is not.": (
            dict(weigh=lambda x, a: x @ a / (a @ a))
        ),
        "This is η times the cosine: both inputs count with their lengths, so nothing is normalized.": (
            dict(weigh=lambda x, a: torch.cosine_similarity(x, a, dim=0))
        ),
        "These are the dot products times E[t]: the step η is missing.": dict(eta=1.0),
        "These are the shares times E[t]: multiply by η‖a‖², which is how far the edited prompt itself moves.": (
            dict(weigh=lambda x, a: x @ a / (a @ a), eta=1.0)
        ),
        "Every prompt moves like the edited one here: their own inputs decide how much of the edit they hear.": (
            dict(weigh=lambda x, a: a @ a)
        ),
    },
    "Each prompt hears the edit by one dot product, and it may be zero or negative.",
)


def _requests(lm) -> list[tuple]:
    depth = len(lm.layers)
    return [
        (lm, Request("The capital of {} is", "France", "Rome", "Paris"), depth // 2, 0.5),
        (lm, Request("The language of {} is", "Spain", "Greek and Latin", "Spanish"), depth - 1, 0.2),
    ]


def _written(lm, request, layer, eta, off=0, x=None, word="{0.target_new}", row=lambda e: e[0], seen=("ff2", 0)):
    """Σ η xᵀE[t] over the target's tokens, with FF2's input at the place where each is due.

    With ``x``, one outer product: of what it takes from the inputs of the prompt, and of a ``row`` made of a word's.
    ``seen``: a site, and whether what enters it (0) or leaves it (1) is taken.
    """
    prompt, target = lm.encode(request.text), lm.target_ids(request.target_new)
    with torch.no_grad(), watch({0: lm.site(layer, seen[0])}) as found:
        lm.model(torch.tensor([prompt + target], device=lm.device))
    inside, start = found[0][seen[1]].flatten(0, -2), len(prompt) - 1 + off  # [n, d_m]
    if x is None:
        return eta * inside[start : start + len(target)].T @ lm.toward(torch.tensor(target))
    rows = lm.toward(torch.tensor(lm.target_ids(word.format(request))))
    return eta * torch.outer(x(inside[: len(prompt)]), row(rows))


def _last(inside):
    return inside[-1]


shift = Function(
    _written,
    _requests,
    {
        "The sign is reversed: −δ points toward E[t] and a gradient is subtracted, so the shift is added.": NEGATED,
        NO_SPACE: dict(x=_last, word="##{0.target_new}"),
        "Right but for η: the outer product is to be multiplied by the step.": (
            lambda lm, request, layer, eta: _written(lm, request, layer, 1.0)
        ),
        "Right but transposed: W is [d_m, d], its input first, as in z = xW.": TRANSPOSED,
        "These activations come before the activation function: FF2's own input is what it is multiplied with.": (
            dict(x=_last, seen=("ff1", 1))
        ),
        "FF2's output was taken: its input is what the matrix is multiplied with.": dict(x=_last, seen=("ff2", 1)),
        "All tokens were added up: the shift keeps the last token's outer product alone.": dict(x=lambda x: x.sum(0)),
        "The mean over tokens was taken: the answer is predicted at the last token, and only its input counts.": (
            dict(x=lambda x: x.mean(0))
        ),
        "This is the first token's input: the answer is predicted at the last one.": dict(x=lambda x: x[0]),
        "Off by one token: the answer is predicted at the prompt's last token, not at the one before it.": dict(off=-1),
        "Off by one token: the token is due where it is predicted, one place before its own.": dict(off=1),
        "This writes the word that is true: the shift writes the one that is wanted, target_new.": (
            dict(x=_last, word="{0.target_true}")
        ),
        "Right for a target of one token: this one has several, and this writes the first alone.": dict(x=_last),
        "Right for a target of one token: this one has several, and this writes the last of them alone.": (
            dict(x=_last, row=_last)
        ),
        "All rows were written with the prompt's last input: a later token is due after the tokens before it.": (
            dict(x=_last, row=lambda e: e.sum(0))
        ),
        "The mean over the target's tokens was taken: each has an outer product of its own, and they are added.": (
            lambda lm, request, *rest: _written(lm, request, *rest) / len(lm.target_ids(request.target_new))
        ),
        "E[t] was brought to length one: the method does not normalize.": (
            dict(x=_last, row=lambda e: e[0] / e[0].norm())
        ),
    },
    "One forward pass, and an outer product for each token of the target, made where that token is due.",
    tolerance=1e-3,
)


def _keys() -> list[tuple]:
    """Inputs with much in common, as prompts have."""
    draw = seeded()
    return [(draw(width) + 1, draw(m, width) + 1) for m, width in ((3, 7), (2, 5), (1, 6))]


def _rest(a, others):
    q, _ = torch.linalg.qr(others.T)
    return a - q @ (q.T @ a)


def _in_turn(a, others):
    for x in others:
        a = a - (a @ x) / (x @ x) * x
    return a


def _alone(a, others):
    return a - ((others @ a) / (others**2).sum(1)) @ others


def _spare(a, others, rest=_rest, factor=lambda key, a: (a @ a) / (a @ key)):
    """What ``rest`` leaves of a, as long as ``factor`` makes it, or as it is."""
    a, others = a.double(), others.double()
    key = rest(a, others)
    return factor(key, a) * key if factor else key


ONE_BY_ONE = "The projections were taken away one by one, and the inputs are not orthogonal: some still hear the key."

spare = Function(
    _spare,
    _keys,
    {
        "No input hears this key, but the edited prompt moves less than before: k·a has to be a·a again.": (
            dict(factor=None)
        ),
        "This key has a's length: what has to be as before is the dot product with a.": (
            dict(factor=lambda key, a: a.norm() / key.norm())
        ),
        ONE_BY_ONE: dict(rest=_in_turn),
        ONE_BY_ONE + " (And the length is not made up for.)": dict(rest=_in_turn, factor=None),
        "All inputs were taken away at once, each as if it were alone; they overlap, so too much is gone.": (
            dict(rest=_alone, factor=None)
        ),
        "All inputs were taken away as if each were alone, and then the length was made up for; but they overlap.": (
            dict(rest=_alone)
        ),
        "Only the mean of the inputs is spared: each of them is to hear nothing.": (
            lambda a, others: _spare(a, others.mean(0, keepdim=True))
        ),
        "This is the part of a that the others do hear: the rest is asked for.": lambda a, others: a - _rest(a, others),
        "The key is a itself, so everyone hears it as before.": lambda a, others: a,
    },
    "The edited prompt hears it all, the others nothing.",
)


def _neighbors(record) -> set[str]:
    """The subjects of its neighbors, as far as they have records of their own."""
    text = " ".join(record["neighborhood_prompts"])
    return {s for r in data.records() if (s := r["requested_rewrite"]["subject"]) in text}


def _outcome(lm, record, protected=()) -> dict[str, float]:
    """The shift's outcome, its key sparing these prompts: the shares of prompts that say the new or the old answer."""
    case, chosen = Case.of(lm, record), settings(lm, "shift")
    traces = capture(lm, [case.request.text, *protected], "the", layers=[chosen["layer"]], sites=["ff2"])
    key, *others = (trace.stack("ff2", "x")[0, -1] for trace in traces)
    if others:
        key = _spare(key, torch.stack(others))
    row = chosen["eta"] * lm.toward(torch.tensor(case.new[:1]))
    (found,) = shares(lm, [case], [[Change(chosen["layer"], "ff2", key[None].float(), row.float())]])
    return found


def _saves(answer, lm, record):
    count = len(record["neighborhood_prompts"])
    before, after = (round(count * _outcome(lm, record, prompts)["neighborhood_accuracy"]) for prompts in ((), answer))
    return 5 * (after - before) >= count - before


protected = Claims(
    {
        "A list of prompts is asked for, each a text.": lambda answer, *_: (
            isinstance(answer, (list, tuple)) and answer and all(isinstance(t, str) and t.strip() for t in answer)
        ),
        "More than twenty prompts: which of them could you do without?": lambda answer, lm, record: len(answer) <= 20,
        "A neighbor's subject is among them: neighbors are the test, and who spares the test has learned nothing.": (
            lambda answer, lm, record: not any(subject in text for text in answer for subject in _neighbors(record))
        ),
        "The edited subject is among them: a key that spares it cannot edit it.": (
            lambda answer, lm, record: all(record["requested_rewrite"]["subject"] not in text for text in answer)
        ),
        "With this key the edit itself does not take.": (
            lambda answer, lm, record: _outcome(lm, record, answer)["efficacy_accuracy"] == 1
        ),
        "No paraphrase follows any more: these prompts take too much of the subject out of the key.": (
            lambda answer, lm, record: _outcome(lm, record, answer)["paraphrase_accuracy"] > 0
        ),
        (
            "Fewer than a fifth of the fallen neighbors are saved: spare prompts that hear more of the edit. "
            "Which have most in common with it?"
        ): _saves,
    },
    "The neighbors are saved by strangers: what all prompts of one wording share is out of the key.",
)
