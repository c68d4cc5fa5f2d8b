"""Checks of *Imprint and shift*: both lemmas, one step in a real layer, and who else hears it."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.verdict import Verdict
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
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(d, generator=generator), torch.randn(words, d, generator=generator) + 0.5, t)
        for d, words, t in ((3, 7, 2), (5, 4, 0))
    ]


def _coefficients(v, E, t) -> tuple[torch.Tensor, torch.Tensor]:
    """p and the target as a one-hot vector."""
    return (E @ v).softmax(0), torch.nn.functional.one_hot(torch.tensor(t), len(E)).to(E)


def _sum(coefficient):
    """The rows of E, added with coefficients that are a function of p and the one-hot target."""
    return lambda v, E, t: coefficient(*_coefficients(v, E, t)) @ E


top = Function(
    _sum(lambda p, one: p - one),
    _tops,
    {
        "This is −∂ℓ/∂v, what a step adds: the word wanted minus the words expected. Asked for is the derivative.": (
            _sum(lambda p, one: one - p)
        ),
        "Only the word wanted is there: the words that were expected have to go, each as much as it was expected.": (
            _sum(lambda p, one: -one)
        ),
        "Only the target's row is there, with p − 1: every other row comes with its own probability.": (
            _sum(lambda p, one: (p - 1) * one)
        ),
        "Only the words expected are there: the target's −1 is missing.": _sum(lambda p, one: p),
        "The target's coefficient is p − 1; here it is −1, as if the target had not been expected at all.": (
            _sum(lambda p, one: p * (1 - one) - one)
        ),
        "All words were expected alike here: the weights of the rows are the model's probabilities.": (
            _sum(lambda p, one: 1 / len(p) - one)
        ),
        "The coefficients are logits: the softmax is missing.": lambda v, E, t: (E @ v) @ E - E[t],
        "These are the derivatives by the logits, [V]: the chain rule goes on, through E, down to v.": (
            lambda v, E, t: (E @ v).softmax(0) - _coefficients(v, E, t)[1]
        ),
    },
    "That is Lemma 5.1: every VJP of the model descends from this vector.",
)


class Careful(Function):
    """A function of (lm, …, layer) that may change that layer's weights and has to put them back; here they are."""

    def _case(self, answer, arguments, number):
        lm, layer = arguments[0], arguments[-1]
        weights = [lm.weight(layer, site).detach() for site in lm.sites]
        kept, spoiled = [w.clone() for w in weights], []

        def watched(*given):
            try:
                return answer(*given)
            finally:
                for w, k in zip(weights, kept):
                    if not torch.equal(w, k):
                        spoiled.append(w.copy_(k))

        verdict = super()._case(watched, arguments, number)
        if verdict is None and spoiled:
            return Verdict(
                False, "The result is right, but the step stayed in the weights: put them back, also after an error."
            )
        return verdict


def _after(lm, prompt, target, layer, sites=("ff2",), rate=lambda loss, square: loss / square, rows=slice(None)):
    """log p of all words after one step in sites of one layer, of size ``rate(ℓ, ‖G‖²)``, by hooks."""
    target = lm.target_ids(target)[:1] if isinstance(target, str) else target
    trace = capture(lm, prompt, target, layers=[layer], sites=sites)
    gradients = {site: trace.gradient(layer, site) for site in sites}
    eta = rate(float(trace.loss), sum(float(g.norm()) ** 2 for g in gradients.values()))

    def moving(g):
        return lambda module, args, z: z - eta * (args[0] @ g.x[rows].T) @ g.delta[rows]

    hooks = [lm.site(layer, site).register_forward_hook(moving(g)) for site, g in gradients.items()]
    try:
        with torch.no_grad():
            return lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1].float().log_softmax(-1)
    finally:
        for hook in hooks:
            hook.remove()


def _ff1(lm) -> tuple[str, ...]:
    return tuple(site for site in lm.sites if site.startswith("ff1"))


step = Careful(
    _after,
    lambda lm: [
        (lm, "The sport of Lionel Messi is", "hockey", len(lm.layers) // 2),
        (lm, "The capital of France is", "Rome", 3 * len(lm.layers) // 4),
    ],
    {
        "This is the model before the step: did the forward pass run with the changed weights?": (
            lambda *given: _after(*given, rate=lambda loss, square: 0)
        ),
        "The step went uphill: training subtracts the gradient.": (
            lambda *given: _after(*given, rate=lambda loss, square: -loss / square)
        ),
        "‖G‖ was not squared: the promise is η‖G‖², so η is ℓ divided by the square of the norm.": (
            lambda *given: _after(*given, rate=lambda loss, square: loss / square**0.5)
        ),
        "The step has size η = 1: Polyak's rule is η = ℓ/‖G‖².": (
            lambda *given: _after(*given, rate=lambda loss, square: 1)
        ),
        "The loss is missing in η: Polyak's rule is η = ℓ/‖G‖².": (
            lambda *given: _after(*given, rate=lambda loss, square: 1 / square)
        ),
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
    [
        (
            lambda answer, lm, record: (
                isinstance(answer, (list, tuple)) and len(answer) == 2 and all(lm.encode(text) for text in answer)
            ),
            "Two prompts are asked for: one with the subject, one without.",
        ),
        (
            lambda answer, lm, record: all(isinstance(text, str) for text in answer) and _names(record, answer[0]),
            "The first prompt has to name the subject of the fact.",
        ),
        (
            lambda answer, lm, record: not _names(record, answer[1]),
            "The second prompt names the subject too: it has to be about somebody or something else.",
        ),
        (
            lambda answer, lm, record: _heard(lm, record, answer[0]) < 0.1,
            "The first prompt hears a tenth of the step or more: ask it for something with another kind of answer.",
        ),
        (
            lambda answer, lm, record: _heard(lm, record, answer[1]) > 0.25,
            "The second prompt hears too little: what must the model be about to say, for a′ to resemble a?",
        ),
    ],
    "At the last token, this high up, a step is addressed to what is about to be said, not to whom it is about.",
)
