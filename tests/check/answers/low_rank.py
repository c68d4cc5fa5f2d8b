"""Answers to the exercises of *Gradients are low-rank*."""

import torch
from library import Answers
from transformers.pytorch_utils import Conv1D

import lens


def ids(lm, prompt):
    return torch.tensor([lm.encode(prompt)], device=lm.device)


def loss(lm, prompt, token, position=-1):
    return -lm.model(ids(lm, prompt)).logits[0, position].float().log_softmax(-1)[token]


def by_weight(lm, prompt, target, layer, sign=1, token=None, position=-1, transpose=False):
    module = lm.site(layer, "ff2")
    token = lm.target_ids(target)[0] if token is None else token
    (g,) = torch.autograd.grad(sign * loss(lm, prompt, token, position), module.weight)
    g = g if isinstance(module, Conv1D) else g.T
    return g.T if transpose else g


def by_hooks(lm, prompt, target, layer):
    seen = {}
    hook = lm.site(layer, "ff2").register_forward_hook(lambda module, args, z: seen.update(x=args[0], z=z))
    try:
        value = loss(lm, prompt, lm.target_ids(target)[0])
    finally:
        hook.remove()
    (delta,) = torch.autograd.grad(value, seen["z"])
    return seen["x"][0].T @ delta[0]


def by_capture(lm, prompt, target, layer):
    return lens.capture(lm, prompt, target).gradient(layer, "ff2").dense()


def last_token(lm, prompt, target, layer):
    g = lens.capture(lm, prompt, target).gradient(layer, "ff2")
    return g.x[-1:].T @ g.delta[-1:]


def accumulating(lm, prompt, target, layer, clear=False):
    """Calls backward(), and clears what is there or does not."""
    if clear:
        lm.model.zero_grad()
    loss(lm, prompt, lm.target_ids(target)[0]).backward()
    module = lm.site(layer, "ff2")
    return module.weight.grad if isinstance(module, Conv1D) else module.weight.grad.T


def with_another_input(lm, prompt, target, layer, site="ff1", factor="x"):
    trace = lens.capture(lm, prompt, target)
    return getattr(trace.gradient(layer, site), factor).T @ trace.gradient(layer, "ff2").delta


def inner(x, delta, y, delta_y):
    return ((x @ y.T) * (delta @ delta_y.T)).sum()


def by_tables(x, delta, y, delta_y):
    own = inner(x, delta, x, delta) * inner(y, delta_y, y, delta_y)
    return inner(x, delta, y, delta_y) / own.sqrt()


def by_sums(x, delta, y, delta_y):
    """⟨G, G′⟩ from the norms of G + G′ and G − G′, of which lens knows the factors."""
    both = torch.cat([x, y])
    plus, minus = (lens.FactoredGradient(both, torch.cat([delta, sign * delta_y])).norm() for sign in (1, -1))
    lengths = lens.FactoredGradient(x, delta).norm() * lens.FactoredGradient(y, delta_y).norm()
    return float((plus**2 - minus**2) / 4 / lengths)


def token_by_token(x, delta, y, delta_y):
    def product(a, b, c, d):
        return sum((i @ j) * (k @ m) for i, k in zip(a, b) for j, m in zip(c, d))

    return product(x, delta, y, delta_y) / (product(x, delta, x, delta) * product(y, delta_y, y, delta_y)) ** 0.5


def of_matrices(x, delta, y, delta_y):
    return torch.cosine_similarity((x.T @ delta).flatten(), (y.T @ delta_y).flatten(), dim=0)


def length(x, delta):
    return inner(x, delta, x, delta).sqrt()


def fact(lm):
    return lm, lens.check.student("ada").records()[0]


def tokens(lm, record):
    request = record["requested_rewrite"]
    return len(lm.encode(request["prompt"].format(request["subject"])))


def depth(lm):
    return len(lm.layers)


ANSWERS = {
    "by_hand": Answers(
        right=[
            [[2, -1], [0, 3], [4, 1]],
            torch.tensor([[2.0, -1.0], [0.0, 3.0], [4.0, 1.0]]),
            ((2.0, -1.0), (0.0, 3.0), (4.0, 1.0)),
        ],
        wrong={
            "transposed": [[2, 0, 4], [-1, 3, 1]],
            "added before multiplying": [[2, 2], [2, 2], [6, 6]],
            "last token's outer product alone": [[0, 0], [0, 3], [0, 3]],
            "first token's outer product alone": [[2, -1], [0, 0], [4, -2]],
            "constant factor": [[1, -0.5], [0, 1.5], [2, 0.5]],
        },
        blind=[[[2, -1], [0, 3], [4, -2]], [[2, -1], [0, 3]], [[2, 1], [0, 3], [4, 5]]],
    ),
    "cosine": Answers(
        right=[by_tables, by_sums, token_by_token],
        wrong={
            "divides it by both norms": inner,
            "square roots are missing": lambda x, d, y, e: inner(x, d, y, e) / length(x, d) ** 2 / length(y, e) ** 2,
            "orthogonal": lambda x, d, y, e: (
                inner(x, d, y, e) / ((x**2).sum(1) @ (d**2).sum(1) * ((y**2).sum(1) @ (e**2).sum(1))).sqrt()
            ),
            "for a single token only": lambda x, d, y, e: (
                inner(x, d, y, e) / (x.norm() * d.norm() * y.norm() * e.norm())
            ),
            "same place were paired": lambda x, d, y, e: (
                sum((a @ c) * (b @ f) for a, b, c, f in zip(x, d, y, e)) / length(x, d) / length(y, e)
            ),
            "added before multiplying": lambda x, d, y, e: of_matrices(
                x.sum(0)[None], d.sum(0)[None], y.sum(0)[None], e.sum(0)[None]
            ),
            "stopped with RuntimeError": lambda x, d, y, e: ((x * y).sum(1) * (d * e).sum(1)).sum(),
            "matrix of the gradient's size": of_matrices,
        },
        blind=[
            lambda *given: by_tables(*given).abs(),
            lambda *given: 1 - by_tables(*given),
            lambda *given: by_tables(*given).arccos(),
        ],
    ),
    "gradient": Answers(
        right=[by_hooks, by_weight, by_capture, lambda *given: accumulating(*given, clear=True)],
        wrong={
            "sign is reversed": lambda *given: by_weight(*given, sign=-1),
            "leading space": lambda lm, prompt, target, layer: by_weight(
                lm, prompt, target, layer, token=lm.encode(target)[0]
            ),
            "last token's outer product": last_token,
            "transposed": lambda *given: by_weight(*given, transpose=True),
            "accumulates": accumulating,
            "what FF1 takes in": with_another_input,
            "Both factors are δ": lambda *given: with_another_input(*given, site="ff2", factor="delta"),
        },
        context=lambda lm: (lm,),
        blind=[
            lambda lm, prompt, target, layer: by_weight(lm, prompt, target, layer) / len(lm.encode(prompt)),
            lambda lm, prompt, target, layer: by_weight(lm, prompt, target, layer, position=0),
        ],
    ),
    "ranks": Answers(
        right=[
            lambda lm, record: [tokens(lm, record)] * (depth(lm) - 1) + [1],
            lambda lm, record: torch.tensor([tokens(lm, record)] * (depth(lm) - 1) + [1]),
            lambda lm, record: tuple(
                lens.capture(
                    lm,
                    record["requested_rewrite"]["prompt"].format(record["requested_rewrite"]["subject"]),
                    record["requested_rewrite"]["target_new"]["str"],
                )
                .gradient(layer, "ff2")
                .rank()
                for layer in range(depth(lm))
            ),
        ],
        wrong={
            "last layer like the others": lambda lm, record: [tokens(lm, record)] * depth(lm),
            "Rank one everywhere": lambda lm, record: [1] * depth(lm),
            "not the first": lambda lm, record: [1] + [tokens(lm, record)] * (depth(lm) - 1),
            "Off by one token": lambda lm, record: [tokens(lm, record) - 1] * (depth(lm) - 1) + [1],
        },
        context=fact,
        computed=True,
    ),
    "rank_three": Answers(
        right=[
            ("The capital of France is", "Rome and Paris"),
            ["A cafe is a kind of", "a part of"],
            ("The language of Spain is", "kind of bird"),
        ],
        wrong={
            "one token": ("The capital of France, which is a large country in Europe, is", "Rome"),
            "one more is needed": ("The capital of France is", "Rome and"),
            "more than three": ("The capital of France is", "Rome and Paris and Rome"),
            "A pair of two texts": "The capital of France is",
        },
        context=lambda lm: (lm,),
    ),
}
