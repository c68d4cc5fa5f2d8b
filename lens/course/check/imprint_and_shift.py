"""Checks of *Imprint and shift*: both lemmas, one step in a real layer, and who else hears it."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import NEGATED, Then
from lens.course.check.seeded import seeded
from lens.edit import Change, Request, branches
from lens.gradient import capture

A, DELTA, ETA = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([1.0, -3.0]), 0.5
OTHER = torch.tensor([1.0, 4.0, -1.0])


def _moves(same=A @ A, other=OTHER @ A, step=-ETA) -> torch.Tensor:
    """How FF2's output moves for the same input and for another, given how much of δ each hears."""
    return torch.stack([step * same * DELTA, step * other * DELTA])


by_hand = Value(
    _moves,
    {
        "The sign is reversed: a step subtracts the gradient, so the output moves against δ.": NEGATED,
        "η is missing: these are the moves of a step of size one.": dict(step=-1),
        "‖a‖ was not squared: a is used once to write and once more to read.": (
            dict(same=A.norm(), other=OTHER @ A / A.norm())
        ),
        "Both inputs hear the same here: another input hears a′·a, not ‖a‖².": dict(other=A @ A),
        "The second is measured by its own length: what counts is how much a′ resembles the a that was written.": (
            dict(other=OTHER @ OTHER)
        ),
        "The second is right in direction only: the dot product itself counts, not the cosine.": (
            dict(other=torch.cosine_similarity(A, OTHER, 0))
        ),
        "Right, but the other way round: the same input comes first.": Then(lambda moves: moves.flip(0)),
    },
    "What was written is read back by dot products: the neuron that kept silent has learned nothing.",
)


def _tops() -> list[tuple]:
    """Normalized vectors, unembeddings and what a teacher says: probabilities of all words."""
    draw = seeded()
    return [(draw(d), draw(words, d) + 0.5, (2 * draw(words)).softmax(0)) for d, words in ((3, 7), (5, 4))]


def _derivative(v, E, p0, coefficient=lambda p, p0: p - p0):
    """The rows of E, added with coefficients that are a function of p and of the teacher's p₀."""
    return coefficient((E @ v).softmax(0), p0) @ E


def _other_way(p, p0):
    surprise = (p / p0).log()
    return p * (surprise - (p * surprise).sum())


top = Function(
    _derivative,
    _tops,
    {
        "This is −∂ℓ/∂v, what a step adds: the words wanted minus the words expected. Asked for is the derivative.": (
            NEGATED
        ),
        "Only the words wanted are there: the words that were expected have to go, each as much as it was expected.": (
            dict(coefficient=lambda p, p0: -p0)
        ),
        "Only the words expected are there: what the teacher says is missing.": dict(coefficient=lambda p, p0: p),
        "Only the teacher's first word counts here, as in the lemma: the teacher wants every word a little.": (
            dict(coefficient=lambda p, p0: p - (p0 == p0.max()).to(p))
        ),
        "Here p is weighted by p₀ too: every target brings the whole p, and the weights p₀ add up to one.": (
            dict(coefficient=lambda p, p0: p0 * (p - 1))
        ),
        "All words were expected alike here: the weights of the rows are the model's probabilities.": (
            dict(coefficient=lambda p, p0: 1 / len(p) - p0)
        ),
        "These are derivatives by p: the softmax lies between p and the logits, and belongs to the chain.": (
            dict(coefficient=lambda p, p0: -p0 / p)
        ),
        "This is the derivative of KL(p ‖ p₀): in the loss asked for, p₀ weighs the logarithms of p.": (
            dict(coefficient=_other_way)
        ),
        "The coefficients are logits: the softmax is missing.": lambda v, E, p0: (E @ v - p0) @ E,
        "These are the derivatives by the logits, [V]: the chain rule goes on, through E, down to v.": (
            lambda v, E, p0: (E @ v).softmax(0) - p0
        ),
    },
    "Lemma 5.1 for a teacher of many words: the rows expected minus the rows wanted, and nothing where both agree.",
)


def _polyak(loss, square):
    return loss / square


def _after(lm, prompt, target, layer, sites="ff2", rate=_polyak, rows=0, space=True, tokens=1, logits=False):
    """log p of all words after one step in sites of one layer, of size ``rate(ℓ, ‖G‖²)``, beside the weights."""
    sites = [site for site in lm.sites if site.startswith(sites)]
    target = (lm.target_ids if space else lm.encode)(target)[:tokens]
    trace = capture(lm, prompt, target, layers=[layer], sites=sites)
    gradients = {site: trace.gradient(layer, site) for site in sites}
    eta = rate(float(trace.loss), sum(float(g.norm()) ** 2 for g in gradients.values()))
    changes = [Change(layer, site, g.x[rows:], -eta * g.delta[rows:]) for site, g in gradients.items()]
    with torch.no_grad(), branches(lm, [changes]):
        said = lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1].float()
    return said if logits else said.log_softmax(-1)


step = Function(
    _after,
    lambda lm: [
        (lm, "The sport of Lionel Messi is", "hockey", len(lm.layers) // 2),
        (lm, "The capital of France is", "Rome and Paris", 3 * len(lm.layers) // 4),
    ],
    {
        "This is what the model says without the step.": dict(rate=lambda loss, square: 0),
        "The step went uphill: training subtracts the gradient.": dict(rate=lambda loss, square: -loss / square),
        "The step is too long or too short: a norm stands where the promise η‖G‖² has its square.": (
            dict(rate=lambda loss, square: loss / square**0.5)
        ),
        "The step has size η = 1: Polyak's rule gives each its own.": dict(rate=lambda loss, square: 1),
        "The loss is missing in η.": dict(rate=lambda loss, square: 1 / square),
        "Only the last token's outer product was subtracted: G is the sum over all tokens.": dict(rows=-1),
        "The step was taken in both matrices; asked for is FF2 alone.": dict(sites=("ff1", "ff2")),
        "The step was taken in FF1, the imprint; asked for is FF2.": dict(sites="ff1"),
        "The target's leading space is missing: the step teaches another token; lm.target_ids adds the space.": (
            dict(space=False)
        ),
        "These are probabilities: their logarithms are asked for.": Then(torch.exp),
        "These are logits: log p is their log_softmax.": dict(logits=True),
        "The loss is that of all of the target's tokens: the first alone is asked for.": dict(tokens=None),
    },
    "One step, one matrix, the promised size, and the model is as it was.",
    tolerance=1e-3,
)


def _heard(lm, record, text) -> float:
    """The share of a step in FF2, three quarters up, that another prompt hears at its last token."""
    request, layer = Request.from_record(record), 3 * len(lm.layers) // 4
    target = lm.target_ids(request.target_new)[:1]
    traces = capture(lm, [request.text, text], [target, target], layers=[layer], sites=["ff2"])
    own, other = (trace.gradient(layer, "ff2") for trace in traces)
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
