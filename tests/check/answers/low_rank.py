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


class Accumulating:
    """Calls backward() and never clears what is there."""

    def __init__(self):
        self.sum = {}

    def __call__(self, lm, prompt, target, layer):
        g = by_weight(lm, prompt, target, layer)
        # Two cases use different layers in the check; a reader who sums .grad of a fixed loop sees both.
        self.sum = g + self.sum if isinstance(self.sum, torch.Tensor) else g
        return self.sum


def squared_sum_of_gram(x, delta):
    return ((x @ x.T) * (delta @ delta.T)).sum() ** 0.5


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
    ),
    "norm": Answers(
        right=[
            lambda x, delta: ((x @ x.T) * (delta @ delta.T)).sum().clamp(min=0).sqrt(),
            lambda x, delta: (x.T @ delta).norm(),
            lambda x, delta: float(lens.FactoredGradient(x, delta).norm()),
            squared_sum_of_gram,
        ],
        wrong={
            "orthogonal": lambda x, delta: ((x**2).sum(1) * (delta**2).sum(1)).sum().sqrt(),
            "upper bound (the triangle": lambda x, delta: sum(a.norm() * b.norm() for a, b in zip(x, delta)),
            "for a single token only": lambda x, delta: x.norm() * delta.norm(),
            "square root is missing": lambda x, delta: ((x @ x.T) * (delta @ delta.T)).sum(),
            "largest singular value": lambda x, delta: torch.linalg.svdvals(x.T @ delta)[0],
            "stopped with RuntimeError": lambda x, delta: (x @ delta).norm(),
        },
    ),
    "gradient": Answers(
        right=[by_hooks, by_weight, by_capture],
        wrong={
            "sign is reversed": lambda *given: by_weight(*given, sign=-1),
            "leading space": lambda lm, prompt, target, layer: by_weight(
                lm, prompt, target, layer, token=lm.encode(target)[0]
            ),
            "last token's outer product": last_token,
            "transposed": lambda *given: by_weight(*given, transpose=True),
            "accumulates": Accumulating(),
        },
        context=lambda lm: (lm,),
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
