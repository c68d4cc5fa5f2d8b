"""Checks of *Imprint and shift*: both lemmas, one step in a real layer, and who else hears it."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.edit import Change, branches
from lens.gradient import capture

A, DELTA, ETA = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([1.0, -3.0]), 0.5
OTHER = torch.tensor([1.0, 4.0, -1.0])


def _moves(same, other, scale=-ETA) -> torch.Tensor:
    """How FF2's output moves for the same input and for another, given how much of δ each hears."""
    return torch.stack([scale * same * DELTA, scale * other * DELTA])


by_hand = Value(
    lambda: _moves(A @ A, OTHER @ A),
    {
        "The sign is reversed: a step subtracts the gradient, so the output moves against δ.": (
            lambda: _moves(A @ A, OTHER @ A, ETA)
        ),
        "η is missing: these are the moves of a step of size one.": lambda: _moves(A @ A, OTHER @ A, -1),
        "‖a‖ was not squared: a is used once to write and once more to read.": (
            lambda: _moves(A.norm(), OTHER @ A / A.norm())
        ),
        "Both inputs hear the same here: another input hears a′·a, not ‖a‖².": lambda: _moves(A @ A, A @ A),
        "The second is measured by its own length: what counts is how much a′ resembles the a that was written.": (
            lambda: _moves(A @ A, OTHER @ OTHER)
        ),
        "The second is right in direction only: the dot product itself counts, not the cosine.": (
            lambda: _moves(A @ A, torch.cosine_similarity(A, OTHER, 0))
        ),
        "Right, but the other way round: the same input comes first.": lambda: _moves(OTHER @ A, A @ A),
    },
    "What was written is read back by dot products: the neuron that kept silent has learned nothing.",
)


def _tops() -> list[tuple]:
    """Normalized vectors, unembeddings and what a teacher says: probabilities of all words."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(d, generator=generator),
            torch.randn(words, d, generator=generator) + 0.5,
            (2 * torch.randn(words, generator=generator)).softmax(0),
        )
        for d, words in ((3, 7), (5, 4))
    ]


def _sum(coefficient):
    """The rows of E, added with coefficients that are a function of p and of the teacher's p₀."""
    return lambda v, E, p0: coefficient((E @ v).softmax(0), p0) @ E


def _first_word(p, p0):
    return p - torch.nn.functional.one_hot(p0.argmax(), len(p0)).to(p)


def _other_way(p, p0):
    surprise = (p / p0).log()
    return p * (surprise - (p * surprise).sum())


top = Function(
    _sum(lambda p, p0: p - p0),
    _tops,
    {
        "This is −∂ℓ/∂v, what a step adds: the words wanted minus the words expected. Asked for is the derivative.": (
            _sum(lambda p, p0: p0 - p)
        ),
        "Only the words wanted are there: the words that were expected have to go, each as much as it was expected.": (
            _sum(lambda p, p0: -p0)
        ),
        "Only the words expected are there: what the teacher says is missing.": _sum(lambda p, p0: p),
        "Only the teacher's first word counts here, as in the lemma: the teacher wants every word a little.": (
            _sum(_first_word)
        ),
        "Here p is weighted by p₀ too: every target brings the whole p, and the weights p₀ add up to one.": (
            _sum(lambda p, p0: p0 * (p - 1))
        ),
        "All words were expected alike here: the weights of the rows are the model's probabilities.": (
            _sum(lambda p, p0: 1 / len(p) - p0)
        ),
        "These are derivatives by p: the softmax lies between p and the logits, and belongs to the chain.": (
            _sum(lambda p, p0: -p0 / p)
        ),
        "This is the derivative of KL(p ‖ p₀): in the loss asked for, p₀ weighs the logarithms of p.": _sum(_other_way),
        "The coefficients are logits: the softmax is missing.": lambda v, E, p0: (E @ v - p0) @ E,
        "These are the derivatives by the logits, [V]: the chain rule goes on, through E, down to v.": (
            lambda v, E, p0: (E @ v).softmax(0) - p0
        ),
    },
    "Lemma 5.1 for a teacher of many words: the rows expected minus the rows wanted, and nothing where both agree.",
)


def _after(
    lm,
    prompt,
    target,
    layer,
    sites=("ff2",),
    rate=lambda loss, square: loss / square,
    rows=slice(None),
    tokens=slice(1),
    logits=False,
):
    """log p of all words after one step in sites of one layer, of size ``rate(ℓ, ‖G‖²)``, beside the weights."""
    target = lm.target_ids(target)[tokens] if isinstance(target, str) else target
    trace = capture(lm, prompt, target, layers=[layer], sites=sites)
    gradients = {site: trace.gradient(layer, site) for site in sites}
    eta = rate(float(trace.loss), sum(float(g.norm()) ** 2 for g in gradients.values()))
    changes = [Change(layer, site, g.x[rows], -eta * g.delta[rows]) for site, g in gradients.items()]
    with torch.no_grad(), branches(lm, [changes]):
        said = lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1].float()
    return said if logits else said.log_softmax(-1)


def _ff1(lm) -> tuple[str, ...]:
    return tuple(site for site in lm.sites if site.startswith("ff1"))


step = Function(
    _after,
    lambda lm: [
        (lm, "The sport of Lionel Messi is", "hockey", len(lm.layers) // 2),
        (lm, "The capital of France is", "Rome and Paris", 3 * len(lm.layers) // 4),
    ],
    {
        "This is what the model says without the step.": lambda *given: _after(*given, rate=lambda loss, square: 0),
        "The step went uphill: training subtracts the gradient.": (
            lambda *given: _after(*given, rate=lambda loss, square: -loss / square)
        ),
        "The step is too long or too short: a norm stands where the promise η‖G‖² has its square.": (
            lambda *given: _after(*given, rate=lambda loss, square: loss / square**0.5)
        ),
        "The step has size η = 1: Polyak's rule gives each its own.": (
            lambda *given: _after(*given, rate=lambda loss, square: 1)
        ),
        "The loss is missing in η.": lambda *given: _after(*given, rate=lambda loss, square: 1 / square),
        "Only the last token's outer product was subtracted: G is the sum over all tokens.": (
            lambda *given: _after(*given, rows=slice(-1, None))
        ),
        "The step was taken in both matrices; asked for is FF2 alone.": (
            lambda lm, *rest: _after(lm, *rest, sites=(*_ff1(lm), "ff2"))
        ),
        "The step was taken in FF1, the imprint; asked for is FF2.": (
            lambda lm, *rest: _after(lm, *rest, sites=_ff1(lm))
        ),
        "The target's leading space is missing: the step teaches another token; lm.target_ids adds the space.": (
            lambda lm, prompt, target, layer: _after(lm, prompt, lm.encode(target)[:1], layer)
        ),
        "These are probabilities: their logarithms are asked for.": lambda *given: _after(*given).exp(),
        "These are logits: log p is their log_softmax.": lambda *given: _after(*given, logits=True),
        "The loss is that of all of the target's tokens: the first alone is asked for.": (
            lambda *given: _after(*given, tokens=slice(None))
        ),
    },
    "One step, one matrix, the promised size, and the model is as it was.",
    tolerance=1e-3,
)


def _heard(lm, record, text) -> float:
    """The share of a step in FF2, three quarters up, that another prompt hears at its last token."""
    request, layer = record["requested_rewrite"], 3 * len(lm.layers) // 4
    prompt, target = request["prompt"].format(request["subject"]), lm.target_ids(request["target_new"]["str"])[:1]
    own, other = (capture(lm, p, target, layers=[layer], sites=["ff2"]).gradient(layer, "ff2") for p in (prompt, text))
    m, m_other = ((own.x @ a) @ own.delta for a in (own.x[-1], other.x[-1]))
    return float(m_other @ m / (m @ m))


def _names(record, text) -> bool:
    return record["requested_rewrite"]["subject"].lower().removeprefix("the ") in text.lower()


hearers = Claims(
    {
        "Two prompts are asked for: one with the subject, one without.": (
            lambda answer, lm, record: (
                isinstance(answer, (list, tuple)) and len(answer) == 2 and all(lm.encode(text) for text in answer)
            )
        ),
        "The first prompt has to name the subject of the fact.": (
            lambda answer, lm, record: all(isinstance(text, str) for text in answer) and _names(record, answer[0])
        ),
        "The second prompt names the subject too: it has to be about somebody or something else.": (
            lambda answer, lm, record: not _names(record, answer[1])
        ),
        "The first prompt hears a tenth of the step or more: ask it for something with another kind of answer.": (
            lambda answer, lm, record: _heard(lm, record, answer[0]) < 0.1
        ),
        "The second prompt hears too little: what must the model be about to say, for a′ to resemble a?": (
            lambda answer, lm, record: _heard(lm, record, answer[1]) > 0.25
        ),
    },
    "At the last token, this high up, a step is addressed to what is about to be said, not to whom it is about.",
)
