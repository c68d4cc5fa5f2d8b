"""Answers to the exercises of *The editors' arena*."""

from math import sqrt
from statistics import fmean, stdev

import numpy as np
import torch
from library import Answers

import lens
from lens.edit.statistics import Statistics


def by_statistics(W, C, k, v):
    """As lens.edit.rome does it."""
    u = Statistics(0, C, 10**6, "").solve(k[None])
    return (u / (u @ k)).T @ (v - k @ W)[None]


def by_whitening(W, C, k, v):
    """The shortest change where ordinary text is round, carried back."""
    root = torch.linalg.cholesky(C)  # C = LLᵀ; L⁻¹k is the key there
    white = torch.linalg.solve_triangular(root, k[:, None], upper=False)
    shortest = white @ (v - k @ W)[None] / (white.T @ white)
    return torch.linalg.solve_triangular(root.T, shortest, upper=True)


def by_inverse(W, C, k, v):
    u = torch.linalg.inv(C) @ k
    return u[:, None] * ((v - k @ W) / (u * k).sum())[None]


def in_python(a, b):
    d = [float(x) - float(y) for x, y in zip(a, b)]
    reach = 1.96 * stdev(d) / sqrt(len(d))
    return fmean(d), fmean(d) - reach, fmean(d) + reach


def in_numpy(a, b):
    d = np.asarray(a) - np.asarray(b)
    reach = 1.96 * d.std(ddof=1) / np.sqrt(d.size)
    return np.array([d.mean(), d.mean() - reach, d.mean() + reach])


def by_covariance(a, b):
    """The variance of a difference, with the covariance."""
    (aa, ab), (_, bb) = torch.cov(torch.stack([a, b])).tolist()
    reach, mean = 1.96 * sqrt((aa + bb - 2 * ab) / len(a)), float(a.mean() - b.mean())
    return [mean, mean - reach, mean + reach]


def around(reach):
    return lambda a, b: [(a - b).mean(), (a - b).mean() - reach(a, b), (a - b).mean() + reach(a, b)]


def record(lm):
    return lm, lens.data.records("test")[0]


def shout(lm, one, word, times):
    """A third word, raised where prompts of this kind look."""
    plain = lens.edit.shift(lm, one)
    layer, eta = plain.settings["layer"], plain.settings["eta"]
    row = lm.unembedding[lm.target_ids(word)[0]].detach()
    return lens.edit.Change(layer, "ff2", plain.changes[0].x[:1], times * eta * row[None])


def good(lm, one):
    return list(lens.edit.rome(lm, one).changes)


def elsewhere(lm, one):
    """The third word, raised at the edited subject alone."""
    rome = lens.edit.rome(lm, one).changes[0]
    row = lm.unembedding[lm.target_ids("winter")[0]].detach()
    return lens.edit.Change(rome.layer, "ff2", rome.x, 60 * row[None])


ANSWERS = {
    "two_judges": Answers(
        right=[
            [[1, 0, 0.4], [1, 0.5, 0.8]],
            torch.tensor([[1, 0, 0.4], [1, 0.5, 0.8]]),
            ((1.0, 0.0, 2 / 5), (1.0, 1 / 2, 4 / 5)),
        ],
        wrong={
            "exchanged": [[1, 0.5, 0.8], [1, 0, 0.4]],
            "scored by the new word": [[1, 0, 0.2], [1, 0.5, 0.2]],
            "Both rows are success": [[1, 0.5, 0.8], [1, 0.5, 0.8]],
            "counts": [[1, 0, 2], [1, 1, 4]],
            "percents": [[100, 0, 40], [100, 50, 80]],
            "transposed": [[1, 1], [0, 0.5], [0.4, 0.8]],
        },
        blind=[[[1, 0, 0.4], [1, 1, 0.8]], [[1, 0.5, 0.4], [1, 0.5, 0.8]]],
    ),
    "insert": Answers(
        right=[by_inverse, by_statistics, by_whitening],
        wrong={
            "old output is still there": lambda W, C, k, v: by_inverse(torch.zeros_like(W), C, k, v),
            "C is left out": lambda W, C, k, v: torch.outer(k, v - k @ W) / k.square().sum(),
            "its inverse belongs": lambda W, C, k, v: torch.outer(C @ k, v - k @ W) / (k @ C @ k),
            "divide by it": lambda W, C, k, v: torch.outer(torch.linalg.inv(C) @ k, v - k @ W),
            "Divided by k·k": lambda W, C, k, v: torch.outer(torch.linalg.inv(C) @ k, v - k @ W) / k.dot(k),
            "sign is reversed": lambda W, C, k, v: by_inverse(W, C, k, 2 * (k @ W) - v),
            "transposed": lambda *given: by_inverse(*given).T,
            "W after the edit": lambda W, *rest: W + by_inverse(W, *rest),
        },
        blind=[
            lambda W, C, k, v: torch.outer(v, k),
            lambda W, C, k, v: by_inverse(W, torch.eye(len(k)), k, v) / 2,
        ],
    ),
    "paired": Answers(
        right=[in_python, in_numpy, by_covariance],
        wrong={
            "independent samples": around(lambda a, b: 1.96 * ((a.std() ** 2 + b.std() ** 2) / len(a)) ** 0.5),
            "single records": around(lambda a, b: 1.96 * (a - b).std()),
            "Divided by n:": around(lambda a, b: 1.96 * (a - b).std() / len(a)),
            "n − 1": around(lambda a, b: 1.96 * np.std((a - b).numpy()) / sqrt(len(a))),
            "two-sided one": around(lambda a, b: 1.645 * (a - b).std() / len(a) ** 0.5),
            "sign is reversed": lambda a, b: in_python(b, a),
            "These are half widths": lambda a, b: [
                in_python(a, b)[0],
                *(end - in_python(a, b)[0] for end in in_python(a, b)[1:]),
            ],
            "stands for the two ends": lambda a, b: [in_python(a, b)[0], in_python(a, b)[2] - in_python(a, b)[0]],
        },
        blind=[
            around(lambda a, b: 1.96 * a.std() / len(a) ** 0.5),
            lambda a, b: in_python(a, b)[1:],
        ],
    ),
    "fooled": Answers(
        right=[
            lambda lm, one: [*good(lm, one), shout(lm, one, "winter", 4)],
            lambda lm, one: [shout(lm, one, "blue", 4), lens.edit.rome(lm, one)],
            lambda lm, one: (*good(lm, one), shout(lm, one, "gold", 2), shout(lm, one, "gold", 3)),
        ],
        wrong={
            "list of lens.edit.Change": lambda lm, one: "rome",
            "do not fit": lambda lm, one: [lens.edit.Change(0, "ff2", torch.ones(1, 3), torch.ones(1, 5))],
            "Efficacy success": lambda lm, one: [shout(lm, one, "winter", 4)],
            "Neighborhood success": lambda lm, one: [
                *lens.edit.shift(lm, one).changes,
                shout(lm, one, "winter", 4),
            ],
            "Efficacy accuracy": good,
            "Neighborhood accuracy": lambda lm, one: [*good(lm, one), elsewhere(lm, one)],
        },
        context=record,
        computed=True,
    ),
}
