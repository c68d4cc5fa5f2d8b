"""Checks of *Forward-pass shift*: who hears an edit, the edit itself, and a key that others do not hear."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.edit import Change, Request
from lens.edit.settings import settings
from lens.evaluate import score
from lens.model.batch import pad
from lens.model.watching import watch

WRITTEN = [2.0, 0.0, 1.0, 2.0]  # a_n, d_m = 4
INPUTS = [WRITTEN, [1.0, 5.0, 2.0, -2.0], [-3.0, 1.0, 0.0, 0.0]]
ROW = [1.0, -2.0]  # E[t], d = 2
ETA = 1 / 3


def _heard(weigh=lambda x, a: x @ a, eta=ETA, sign=1):
    a = torch.tensor(WRITTEN)
    return torch.stack([sign * eta * weigh(x, a) * torch.tensor(ROW) for x in torch.tensor(INPUTS)])


heard = Value(
    _heard,
    {
        "The edit is added, not subtracted: it is the gradient whose sign is turned.": lambda: _heard(sign=-1),
        "This is η times the share: the share is divided by ‖a‖², the push is not.": (
            lambda: _heard(lambda x, a: x @ a / (a @ a))
        ),
        "This is η times the cosine: both inputs count with their lengths, so nothing is normalized.": (
            lambda: _heard(lambda x, a: torch.cosine_similarity(x, a, dim=0))
        ),
        "These are the dot products times E[t]: the step η is missing.": lambda: _heard(eta=1.0),
        "These are the shares times E[t]: multiply by η‖a‖², which is how far the edited prompt itself moves.": (
            lambda: _heard(lambda x, a: x @ a / (a @ a), eta=1.0)
        ),
        "Every prompt moves like the edited one here: their own inputs decide how much of the edit they hear.": (
            lambda: _heard(lambda x, a: a @ a)
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


@torch.no_grad()
def _seen(lm, tokens, layer, site="ff2"):
    """What enters and what leaves a site at every token: [n, d_in], [n, d_out]."""
    ids = torch.tensor([tokens], device=lm.device)
    with watch({0: lm.site(layer, site)}) as seen:
        lm.model(ids)
    return [part.reshape(ids.shape[1], -1) for part in seen[0][:2]]


def _row(lm, word, space=True, tokens=slice(1)):
    ids = lm.target_ids(word if space else f"##{word}")
    return lm.toward(torch.tensor(ids[tokens])).sum(0)


def _written(lm, request, layer, eta, late=0):
    """One outer product for each token of the target, with FF2's input at the place where that token is due."""
    prompt, target = lm.encode(request.text), lm.target_ids(request.target_new)
    start = len(prompt) - 1 + late
    inside, _ = _seen(lm, prompt + target, layer)
    return eta * inside[start : start + len(target)].T @ lm.toward(torch.tensor(target))


def _at_the_prompt(lm, request, layer, eta, x=lambda inside: inside[-1], e=None):
    """One outer product, with inputs of the prompt alone and, unless ``e`` is given, the row of the first token."""
    inside, _ = _seen(lm, lm.encode(request.text), layer)
    return eta * torch.outer(x(inside), _row(lm, request.target_new) if e is None else e)


def _from_output(lm, request, layer, eta, site):
    return eta * torch.outer(_seen(lm, lm.encode(request.text), layer, site)[1][-1], _row(lm, request.target_new))


shift = Function(
    _written,
    _requests,
    {
        "The sign is reversed: −δ points toward E[t] and a gradient is subtracted, so the shift is added.": (
            lambda lm, request, layer, eta: -_written(lm, request, layer, eta)
        ),
        "The target's leading space is missing: 'Rome' and ' Rome' are two tokens; lm.target_ids adds the space.": (
            lambda lm, request, layer, eta: _at_the_prompt(
                lm, request, layer, eta, e=_row(lm, request.target_new, space=False)
            )
        ),
        "Right but for η: the outer product is to be multiplied by the step.": (
            lambda lm, request, layer, eta: _written(lm, request, layer, 1.0)
        ),
        "Right but transposed: W is [d_m, d], its input first, as in z = xW.": (
            lambda lm, request, layer, eta: _written(lm, request, layer, eta).T
        ),
        "These activations come before the activation function: FF2's own input is what it is multiplied with.": (
            lambda lm, request, layer, eta: _from_output(lm, request, layer, eta, "ff1")
        ),
        "FF2's output was taken: its input is what the matrix is multiplied with.": (
            lambda lm, request, layer, eta: _from_output(lm, request, layer, eta, "ff2")
        ),
        "All tokens were added up: the shift keeps the last token's outer product alone.": (
            lambda lm, request, layer, eta: _at_the_prompt(lm, request, layer, eta, lambda inside: inside.sum(0))
        ),
        "The mean over tokens was taken: the answer is predicted at the last token, and only its input counts.": (
            lambda lm, request, layer, eta: _at_the_prompt(lm, request, layer, eta, lambda inside: inside.mean(0))
        ),
        "This is the first token's input: the answer is predicted at the last one.": (
            lambda lm, request, layer, eta: _at_the_prompt(lm, request, layer, eta, lambda inside: inside[0])
        ),
        "Off by one token: the answer is predicted at the prompt's last token, not at the one before it.": (
            lambda lm, request, layer, eta: _written(lm, request, layer, eta, late=-1)
        ),
        "Off by one token: the token is due where it is predicted, one place before its own.": (
            lambda lm, request, layer, eta: _written(lm, request, layer, eta, late=1)
        ),
        "This writes the word that is true: the shift writes the one that is wanted, target_new.": (
            lambda lm, request, layer, eta: _at_the_prompt(lm, request, layer, eta, e=_row(lm, request.target_true))
        ),
        "Right for a target of one token: this one has several, and this writes the first alone.": _at_the_prompt,
        "Right for a target of one token: this one has several, and this writes the last of them alone.": (
            lambda lm, request, layer, eta: _at_the_prompt(
                lm, request, layer, eta, e=_row(lm, request.target_new, tokens=slice(-1, None))
            )
        ),
        "All rows were written with the prompt's last input: a later token is due after the tokens before it.": (
            lambda lm, request, layer, eta: _at_the_prompt(
                lm, request, layer, eta, e=_row(lm, request.target_new, tokens=slice(None))
            )
        ),
        "The mean over the target's tokens was taken: each has an outer product of its own, and they are added.": (
            lambda lm, request, layer, eta: _written(lm, request, layer, eta) / len(lm.target_ids(request.target_new))
        ),
        "E[t] was brought to length one: the method does not normalize.": (
            lambda lm, request, layer, eta: (
                _at_the_prompt(lm, request, layer, eta) / _row(lm, request.target_new).norm()
            )
        ),
    },
    "One forward pass, and an outer product for each token of the target, made where that token is due.",
    tolerance=1e-3,
)


def _keys() -> list[tuple]:
    """Inputs with much in common, as prompts have."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(width, generator=generator) + 1, torch.randn(m, width, generator=generator) + 1)
        for m, width in ((3, 7), (2, 5), (1, 6))
    ]


def _rest(a, others):
    q, _ = torch.linalg.qr(others.double().T)
    return a.double() - q @ (q.T @ a.double())


def _as_far(key, a):
    return key * (a.double() @ a.double()) / (a.double() @ key)


def _in_turn(a, others):
    key = a.double()
    for x in others.double():
        key = key - (key @ x) / (x @ x) * x
    return key


def _each(a, others):
    a, others = a.double(), others.double()
    return a - ((others @ a) / (others**2).sum(1)) @ others


ONE_BY_ONE = "The projections were taken away one by one, and the inputs are not orthogonal: some still hear the key."

spare = Function(
    lambda a, others: _as_far(_rest(a, others), a),
    _keys,
    {
        "No input hears this key, but the edited prompt moves less than before: k·a has to be a·a again.": _rest,
        "This key has a's length: what has to be as before is the dot product with a.": (
            lambda a, others: _rest(a, others) * a.norm() / _rest(a, others).norm()
        ),
        ONE_BY_ONE: lambda a, others: _as_far(_in_turn(a, others), a),
        ONE_BY_ONE + " (And the length is not made up for.)": _in_turn,
        "All inputs were taken away at once, each as if it were alone; they overlap, so too much is gone.": _each,
        "All inputs were taken away as if each were alone, and then the length was made up for; but they overlap.": (
            lambda a, others: _as_far(_each(a, others), a)
        ),
        "Only the mean of the inputs is spared: each of them is to hear nothing.": (
            lambda a, others: _as_far(_rest(a, others.mean(0, keepdim=True)), a)
        ),
        "This is the part of a that the others do hear: the rest is asked for.": (
            lambda a, others: a.double() - _rest(a, others)
        ),
        "The key is a itself, so everyone hears it as before.": lambda a, others: a,
    },
    "The edited prompt hears it all, the others nothing.",
)


def _texts(answer, *_):
    return isinstance(answer, (list, tuple)) and answer and all(isinstance(t, str) and t.strip() for t in answer)


def _neighbors(record) -> set[str]:
    """The subjects of its neighbors, as far as they have records of their own."""
    from lens import data

    text = " ".join(record["neighborhood_prompts"])
    return {s for r in data.records() if (s := r["requested_rewrite"]["subject"]) in text}


@torch.no_grad()
def _last_inputs(lm, texts, layer):
    """FF2's input at the last token of each text, [texts, d_m]."""
    ids, real = pad([lm.encode(text) for text in texts])
    with watch({0: lm.site(layer, "ff2")}) as seen:
        lm.base_model(ids.to(lm.device), use_cache=False)
    return seen[0][0].reshape(*ids.shape, -1)[torch.arange(len(ids)), real.sum(1) - 1]


def _outcome(lm, record, protected=()) -> tuple[bool, int, int]:
    """The shift's outcome, its key sparing these prompts: does it take, how many paraphrases follow, neighbors keep."""
    request, chosen = Request.from_record(record), settings(lm, "shift")
    key, *others = _last_inputs(lm, [request.text, *protected], chosen["layer"]).double()
    if others:
        key = _as_far(_rest(key, torch.stack(others)), key)
    row = chosen["eta"] * _row(lm, request.target_new)[None].float()
    change = Change(chosen["layer"], "ff2", key[None].float(), row)
    again, near = record["paraphrase_prompts"], record["neighborhood_prompts"]
    texts = [request.text, *again, *near]
    targets = [request.target_new] * (1 + len(again)) + [request.target_true] * len(near)
    right = score(lm, texts, targets, edits=[[change]], rows=[0] * len(texts)).correct.tolist()
    return right[0], sum(right[1 : 1 + len(again)]), sum(right[1 + len(again) :])


def _saves(answer, lm, record):
    fallen = len(record["neighborhood_prompts"]) - _outcome(lm, record)[2]
    return 5 * (_outcome(lm, record, answer)[2] - _outcome(lm, record)[2]) >= fallen


protected = Claims(
    {
        "A list of prompts is asked for, each a text.": _texts,
        "More than twenty prompts: which of them could you do without?": lambda answer, lm, record: len(answer) <= 20,
        "A neighbor's subject is among them: neighbors are the test, and who spares the test has learned nothing.": (
            lambda answer, lm, record: not any(subject in text for text in answer for subject in _neighbors(record))
        ),
        "The edited subject is among them: a key that spares it cannot edit it.": (
            lambda answer, lm, record: all(record["requested_rewrite"]["subject"] not in text for text in answer)
        ),
        "With this key the edit itself does not take.": lambda answer, lm, record: _outcome(lm, record, answer)[0],
        "No paraphrase follows any more: these prompts take too much of the subject out of the key.": (
            lambda answer, lm, record: _outcome(lm, record, answer)[1] >= 1
        ),
        (
            "Fewer than a fifth of the fallen neighbors are saved: spare prompts that hear more of the edit. "
            "Which have most in common with it?"
        ): _saves,
    },
    "The neighbors are saved by strangers: what all prompts of one wording share is out of the key.",
)
