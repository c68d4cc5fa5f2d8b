"""Checks of *Gradients are low-rank*: the sum of outer products, and what follows from its factors."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.gradient import capture

X = [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]  # two tokens, d_in = 3
DELTA = [[2.0, -1.0], [0.0, 3.0]]  # d_out = 2


def _factors() -> list[tuple]:
    """Factors of a few shapes, wide and thin, the same at every call; the tokens are far from orthogonal."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, a, generator=generator) + 1, torch.randn(n, b, generator=generator) - 0.5)
        for n, a, b in ((2, 3, 5), (4, 6, 2), (1, 4, 4))
    ]


def _prompts(lm) -> list[tuple]:
    middle = len(lm.layers) // 2
    return [(lm, "The capital of France is", "Rome", middle), (lm, "The language of Spain is", "Greek", 0)]


def _dense(lm, prompt, target, layer):
    return capture(lm, prompt, target, layers=[layer], sites=["ff2"]).gradient(layer, "ff2").dense()


def _spaceless(lm, prompt, target, layer):
    return _dense(lm, prompt, lm.encode(target)[:1], layer)


def _last_token(lm, prompt, target, layer):
    g = capture(lm, prompt, target, layers=[layer], sites=["ff2"]).gradient(layer, "ff2")
    return torch.outer(g.x[-1], g.delta[-1])


def _accumulated(lm, prompt, target, layer):
    (_, *first), (_, *second) = _prompts(lm)
    if (prompt, target, layer) != tuple(second):
        raise ValueError("the first case has nothing to add")
    return _dense(lm, *second) + _dense(lm, *first)


by_hand = Value(
    lambda: torch.tensor(X).T @ torch.tensor(DELTA),
    {
        "The tokens were added before multiplying: each token has an outer product of its own, and these are added.": (
            lambda: torch.outer(torch.tensor(X).sum(0), torch.tensor(DELTA).sum(0))
        ),
        "This is the last token's outer product alone: the first token uses the same W, so its own is added.": (
            lambda: torch.outer(torch.tensor(X)[-1], torch.tensor(DELTA)[-1])
        ),
        "This is the first token's outer product alone: the second token uses the same W, so its own is added.": (
            lambda: torch.outer(torch.tensor(X)[0], torch.tensor(DELTA)[0])
        ),
        "Right but transposed: row a belongs to input a, so the shape is [d_in, d_out], that of W in z = xW.": (
            lambda: torch.tensor(DELTA).T @ torch.tensor(X)
        ),
    },
    "That is the sum of two outer products, of rank two.",
)

norm = Function(
    lambda x, delta: (x.T @ delta).norm(),
    _factors,
    {
        "The tokens were treated as orthogonal: ‖Σ xᵢᵀδᵢ‖² also holds the products of different tokens.": (
            lambda x, delta: (x.norm(dim=1) * delta.norm(dim=1)).square().sum().sqrt()
        ),
        "The norms of the outer products were added: that is an upper bound (the triangle inequality), not the norm.": (
            lambda x, delta: (x.norm(dim=1) * delta.norm(dim=1)).sum()
        ),
        "The product of the two factors' norms is an upper bound; it is the norm for a single token only.": (
            lambda x, delta: x.norm() * delta.norm()
        ),
        "This is the squared norm: the square root is missing.": lambda x, delta: (x.T @ delta).square().sum(),
        "This is the largest singular value (torch.linalg.norm with ord=2); the Frobenius norm is asked for.": (
            lambda x, delta: torch.linalg.matrix_norm(x.T @ delta, ord=2)
        ),
    },
    "The norm of a matrix that need not be built.",
)

gradient = Function(
    _dense,
    _prompts,
    {
        "The sign is reversed: the loss is −log p of the target, so that descending makes the target more likely.": (
            lambda lm, *rest: -_dense(lm, *rest)
        ),
        "The target's leading space is missing: 'Rome' and ' Rome' are two tokens; lm.target_ids adds the space.": (
            _spaceless
        ),
        "Only the last token's outer product is there: earlier tokens reach the loss through attention.": _last_token,
        "Two gradients are added up: backward() accumulates into .grad, so clear it before, or use autograd.grad.": (
            _accumulated
        ),
        "Right but transposed: nn.Linear stores [d_out, d_in]; the gradient of z = xW is asked for, [d_in, d_out].": (
            lambda lm, *rest: _dense(lm, *rest).T
        ),
    },
    "Your gradient is lens.capture's.",
    tolerance=1e-3,
)


def _ranks(lm, record):
    fact = record["requested_rewrite"]
    trace = capture(lm, fact["prompt"].format(fact["subject"]), fact["target_new"]["str"], sites=["ff2"])
    return [trace.gradient(layer, "ff2").rank() for layer in trace.layers]


def _length(lm, record):
    fact = record["requested_rewrite"]
    return len(lm.encode(fact["prompt"].format(fact["subject"])))


ranks = Value(
    _ranks,
    {
        "Is the last layer like the others? No attention above it could carry a signal to earlier tokens.": (
            lambda lm, record: [_length(lm, record)] * len(lm.layers)
        ),
        "Rank one everywhere would mean that no earlier token matters: count the tokens that attention leads to.": (
            lambda lm, record: [1] * len(lm.layers)
        ),
        "The other way round: it is the last layer that is special, not the first.": (
            lambda lm, record: _ranks(lm, record)[::-1]
        ),
        "Off by one token: the loss belongs to the last token, but the last token has an outer product too.": (
            lambda lm, record: [max(r - 1, 1) for r in _ranks(lm, record)]
        ),
        "Words were counted, not tokens: len(lm.encode(prompt)) counts what the model sees.": (
            lambda lm, record: (
                [len(record["requested_rewrite"]["prompt"].format(record["requested_rewrite"]["subject"]).split())]
                * (len(lm.layers) - 1)
                + [1]
            )
        ),
    },
    "As the lemma has it.",
)


def _is_pair(answer, lm):
    return len(answer) == 2 and all(isinstance(text, str) and text.strip() for text in answer)


def _last_rank(answer, lm):
    layer = len(lm.layers) - 1
    return capture(lm, *answer, layers=[layer], sites=["ff2"]).gradient(layer, "ff2").rank()


rank_three = Claims(
    [
        (_is_pair, "A pair of two texts is asked for: (prompt, target)."),
        (
            lambda answer, lm: len(lm.target_ids(answer[1])) > 1,
            "This target is one token, so one position has a loss, however long the prompt: what about the target?",
        ),
        (
            lambda answer, lm: len(lm.target_ids(answer[1])) >= 3,
            "The target has two tokens, so two positions have a loss: one more is needed.",
        ),
        (
            lambda answer, lm: len(lm.target_ids(answer[1])) == 3,
            "The target has more than three tokens: each adds a position with a loss of its own.",
        ),
        (
            lambda answer, lm: _last_rank(answer, lm) == 3,
            "Three positions have a loss, and still the rank is not three.",
        ),
    ],
    "Three positions with a loss, rank three.",
)
