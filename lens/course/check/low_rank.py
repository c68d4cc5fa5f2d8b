"""Checks of *Gradients are low-rank*: the sum of outer products, and what follows from its factors."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import NEGATED, NO_SPACE, SWAPPED, TRANSPOSED, Then
from lens.course.check.seeded import seeded
from lens.edit import Request
from lens.gradient import capture

X = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])  # two tokens, d_in = 3
DELTA = torch.tensor([[2.0, -1.0], [0.0, 3.0]])  # d_out = 2

by_hand = Value(
    lambda: X.T @ DELTA,
    {
        "The tokens were added before multiplying: each token has an outer product of its own, and these are added.": (
            lambda: torch.outer(X.sum(0), DELTA.sum(0))
        ),
        "This is the last token's outer product alone: the first token uses the same W, so its own is added.": (
            lambda: torch.outer(X[-1], DELTA[-1])
        ),
        "This is the first token's outer product alone: the second token uses the same W, so its own is added.": (
            lambda: torch.outer(X[0], DELTA[0])
        ),
        "Right but transposed: row r belongs to input r, so the shape is [d_in, d_out], that of W in z = xW.": (
            TRANSPOSED
        ),
    },
    "That is the sum of two outer products, of rank two.",
)


def _factors() -> list[tuple]:
    """Factors of two gradients of one matrix, in a few shapes, the same at every call; no tokens are orthogonal."""
    draw = seeded()
    shapes = (2, 3, 12, 15), (4, 2, 16, 12), (1, 3, 14, 14)
    return [(draw(n, a) + 1, draw(n, b) - 0.5, draw(m, a) + 1, draw(m, b) - 0.5) for n, m, a, b in shapes]


def _norm(x, delta):
    return (x.T @ delta).norm()


def _inner(x, delta, y, other):
    return ((x.T @ delta) * (y.T @ other)).sum()


def _cosine(x, delta, y, other, norm=_norm, inner=_inner):
    return inner(x, delta, y, other) / (norm(x, delta) * norm(y, other))


cosine = Function(
    _cosine,
    _factors,
    {
        "This is the inner product of the two gradients: the cosine divides it by both norms.": _inner,
        "Both norms are squared here: the square roots are missing.": dict(norm=lambda x, delta: _norm(x, delta) ** 2),
        "The norms treat the tokens as orthogonal: ‖Σ xᵢᵀδᵢ‖² also holds the products of different tokens.": (
            dict(norm=lambda x, delta: (x.norm(dim=1) * delta.norm(dim=1)).norm())
        ),
        "The product of the two factors' norms is an upper bound; it is the norm for a single token only.": (
            dict(norm=lambda x, delta: x.norm() * delta.norm())
        ),
        "Tokens of the same place were paired: every token of one prompt meets every token of the other.": (
            dict(inner=lambda *factors: sum((a @ c) * (b @ d) for a, b, c, d in zip(*factors)))
        ),
        "The tokens were added before multiplying: each token has an outer product of its own, and these are added.": (
            lambda *factors: _cosine(*(rows.sum(0, keepdim=True) for rows in factors))
        ),
    },
    "Two matrices compared, and neither was built.",
    room=lambda x, delta, y, _: (len(x) + len(y)) * max(len(x) + len(y), x.shape[1], delta.shape[1]),
    too_large="a matrix of the gradient's size was built on the way: the factors and tables of tokens are enough.",
)


def _prompts(lm) -> list[tuple]:
    middle = len(lm.layers) // 2
    return [(lm, "The capital of France is", "Rome", middle), (lm, "The language of Spain is", "Greek", 0)]


def _dense(lm, prompt, target, layer, space=True, rows=0, x=("ff2", "x")):
    """FF2's gradient xᵀδ, of tokens from ``rows`` on; ``x``: the site and the factor in place of its input."""
    target = target if space else lm.encode(target)[:1]
    trace = capture(lm, prompt, target, layers=[layer], sites=["ff1", "ff2"])
    inputs = getattr(trace.gradient(layer, x[0]), x[1])
    return inputs[rows:].T @ trace.gradient(layer, "ff2").delta[rows:]


gradient = Function(
    _dense,
    _prompts,
    {
        "The sign is reversed: the loss is −log p of the target, so that descending makes the target more likely.": (
            NEGATED
        ),
        NO_SPACE: dict(space=False),
        "Only the last token's outer product is there: earlier tokens reach the loss through attention.": dict(rows=-1),
        "Two gradients are added up: backward() accumulates into .grad, so clear it before, or use autograd.grad.": (
            Then(lambda gradient: gradient + 1)  # what every answer finds in .grad
        ),
        "Right but transposed: nn.Linear stores [d_out, d_in]; the gradient of z = xW is asked for, [d_in, d_out].": (
            TRANSPOSED
        ),
        "δ is FF2's and x is not: it is what FF1 takes in, before the matrix and the activation function.": (
            dict(x=("ff1", "x"))
        ),
        "Both factors are δ: one of them has to be FF2's input.": dict(x=("ff2", "delta")),
    },
    "Your gradient is lens.capture's.",
    tolerance=1e-3,
)


def _text(record):
    return Request.from_record(record).text


def _ranks(lm, record):
    trace = capture(lm, _text(record), Request.from_record(record).target_new, sites=["ff2"])
    return [trace.gradient(layer, "ff2").rank() for layer in trace.layers]


ranks = Value(
    _ranks,
    {
        "Is the last layer like the others? No attention above it could carry a signal to earlier tokens.": (
            lambda lm, record: [len(lm.encode(_text(record)))] * len(lm.layers)
        ),
        "Rank one everywhere would mean that no earlier token matters: count the tokens that attention leads to.": (
            lambda lm, record: [1] * len(lm.layers)
        ),
        "The other way round: it is the last layer that is special, not the first.": SWAPPED,
        "Off by one token: the loss belongs to the last token, but the last token has an outer product too.": (
            Then(lambda ranks: [max(rank - 1, 1) for rank in ranks])
        ),
        "Words were counted, not tokens: len(lm.encode(prompt)) counts what the model sees.": (
            lambda lm, record: [len(_text(record).split())] * (len(lm.layers) - 1) + [1]
        ),
    },
    "As the lemma has it.",
)


rank_three = Claims(
    {
        "A pair of two texts is asked for: (prompt, target).": (
            lambda answer, lm: len(answer) == 2 and all(isinstance(text, str) and text.strip() for text in answer)
        ),
        "This target is one token, so one position has a loss, however long the prompt: what about the target?": (
            lambda answer, lm: len(lm.target_ids(answer[1])) > 1
        ),
        "The target has two tokens, so two positions have a loss: one more is needed.": (
            lambda answer, lm: len(lm.target_ids(answer[1])) >= 3
        ),
        "The target has more than three tokens: each adds a position with a loss of its own.": (
            lambda answer, lm: len(lm.target_ids(answer[1])) == 3
        ),
        "Three positions have a loss, and still the rank is not three.": (
            lambda answer, lm: capture(lm, *answer, sites=["ff2"]).gradient(-1, "ff2").rank() == 3
        ),
    },
    "Three positions with a loss, rank three.",
)
