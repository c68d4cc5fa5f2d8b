"""Checks of *Gradients are low-rank*: the sum of outer products, and what follows from its factors."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.gradient import capture

X = [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]  # two tokens, d_in = 3
DELTA = [[2.0, -1.0], [0.0, 3.0]]  # d_out = 2


def _factors() -> list[tuple]:
    """Factors of two gradients of one matrix, in a few shapes, the same at every call; no tokens are orthogonal."""
    generator = torch.Generator().manual_seed(0)

    def draw(n, a, b):
        return torch.randn(n, a, generator=generator) + 1, torch.randn(n, b, generator=generator) - 0.5

    return [(*draw(n, a, b), *draw(m, a, b)) for n, m, a, b in ((2, 3, 12, 15), (4, 2, 16, 12), (1, 3, 14, 14))]


def _over(norm):
    """The inner product of two gradients over the product of what ``norm`` gives for each."""

    def cosine(x, delta, x_other, delta_other):
        inner = ((x.T @ delta) * (x_other.T @ delta_other)).sum()
        return inner / (norm(x, delta) * norm(x_other, delta_other))

    return cosine


def _in_order(x, delta, x_other, delta_other):
    """Each token with the token of the same place only."""
    n = min(len(x), len(x_other))
    inner = ((x[:n] * x_other[:n]).sum(1) * (delta[:n] * delta_other[:n]).sum(1)).sum()
    return inner / ((x.T @ delta).norm() * (x_other.T @ delta_other).norm())


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
    return _dense(lm, prompt, target, layer) + 1  # what every answer finds in .grad


def _input_of(site, part="x"):
    """FF2's δ with what enters (``x``) or, as a derivative, leaves another site in place of its own input."""

    def wrong(lm, prompt, target, layer):
        trace = capture(lm, prompt, target, layers=[layer], sites=[site, "ff2"])
        return getattr(trace.gradient(layer, site), part).T @ trace.gradient(layer, "ff2").delta

    return wrong


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
        "Right but transposed: row r belongs to input r, so the shape is [d_in, d_out], that of W in z = xW.": (
            lambda: torch.tensor(DELTA).T @ torch.tensor(X)
        ),
    },
    "That is the sum of two outer products, of rank two.",
)

cosine = Function(
    _over(lambda x, delta: (x.T @ delta).norm()),
    _factors,
    {
        "This is the inner product of the two gradients: the cosine divides it by both norms.": _over(
            lambda x, delta: 1
        ),
        "Both norms are squared here: the square roots are missing.": _over(
            lambda x, delta: (x.T @ delta).square().sum()
        ),
        "The norms treat the tokens as orthogonal: ‖Σ xᵢᵀδᵢ‖² also holds the products of different tokens.": (
            _over(lambda x, delta: (x.norm(dim=1) * delta.norm(dim=1)).square().sum().sqrt())
        ),
        "The product of the two factors' norms is an upper bound; it is the norm for a single token only.": (
            _over(lambda x, delta: x.norm() * delta.norm())
        ),
        "Tokens of the same place were paired: every token of one prompt meets every token of the other.": _in_order,
        "The tokens were added before multiplying: each token has an outer product of its own, and these are added.": (
            lambda x, delta, x_other, delta_other: (
                torch.cosine_similarity(x.sum(0), x_other.sum(0), dim=0)
                * torch.cosine_similarity(delta.sum(0), delta_other.sum(0), dim=0)
            )
        ),
    },
    "Two matrices compared, and neither was built.",
    room=lambda x, delta, y, _: (len(x) + len(y)) * max(len(x) + len(y), x.shape[1], delta.shape[1]),
    too_large="a matrix of the gradient's size was built on the way: the factors and tables of tokens are enough.",
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
        "δ is FF2's and x is not: it is what FF1 takes in, before the matrix and the activation function.": (
            _input_of("ff1")
        ),
        "Both factors are δ: one of them has to be FF2's input.": _input_of("ff2", "delta"),
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
    {
        "A pair of two texts is asked for: (prompt, target).": _is_pair,
        "This target is one token, so one position has a loss, however long the prompt: what about the target?": (
            lambda answer, lm: len(lm.target_ids(answer[1])) > 1
        ),
        "The target has two tokens, so two positions have a loss: one more is needed.": (
            lambda answer, lm: len(lm.target_ids(answer[1])) >= 3
        ),
        "The target has more than three tokens: each adds a position with a loss of its own.": (
            lambda answer, lm: len(lm.target_ids(answer[1])) == 3
        ),
        "Three positions have a loss, and still the rank is not three.": lambda answer, lm: _last_rank(answer, lm) == 3,
    },
    "Three positions with a loss, rank three.",
)
