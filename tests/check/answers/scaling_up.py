"""Answers to the exercises of *Scaling up*."""

from bisect import bisect_left
from functools import cache
from itertools import accumulate, combinations
from math import ceil, sqrt

import numpy as np
import torch
from library import Answers

from lens import cost

MODEL = "llama-3-8b"


def gigabytes(model, weight=2, score=4, moments=2, sample=2, slope=2, layers=None):
    s = cost.shape(model)
    masked = sum(m.weights for m in s.modules())  # those of the upper half; layers are alike
    masked = masked if layers is None else masked * len(s.chosen(layers)) // (s.layers - s.layers // 2)
    return (weight * s.parameters + (score + score * moments + sample + slope) * masked) / 1e9


def by_parts(model):
    told = cost.memory(model, "mask", dtype="bfloat16")
    return sum(told.parts[p] for p in ("weights", "scores", "optimizer", "sampled weights", "gradients")) / 1e9


def llama(width, inner, query, keys, learns):
    norms, attention, mlp = 2 * width, 2 * query + 2 * keys, 3 * inner
    return norms + attention + mlp + (2 * width + inner if learns else 0)


def tensors(width, inner, query, keys, learns):
    """The list of them, by name."""
    kept = dict(stream=width, q=query, k=keys, v=keys, result=query, middle=width, gate=inner, up=inner, silu=inner)
    if learns:
        kept |= dict(qkv_in=width, mlp_in=width, ff2_in=inner)
    return torch.tensor(list(kept.values())).sum()


def by_autograd(width, inner, query, keys, learns):
    """The tensors that autograd keeps, of a layer written in plain torch, for four tokens."""
    n, seen = 4, {}

    def tensor(*shape, grad=True):
        return torch.randn(*shape, requires_grad=grad)

    shapes = [(width, query), (width, keys), (width, keys), (query, width)]
    W = [tensor(*shape, grad=learns) for shape in shapes + 2 * [(width, inner)] + [(inner, width)]]
    known = {w.data_ptr() for w in W}

    def keep(t):
        if t.data_ptr() not in known and t.shape[:1] == (n,):
            seen[t.data_ptr()] = t
        return t

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x + 1

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            out = q * 1.5
            ctx.save_for_backward(q, k, v, out)
            return out

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        x = tensor(n, width)
        h = Norm.apply(x)
        x = x + Attention.apply(*(h @ w for w in W[:3])) @ W[3]
        h = Norm.apply(x)
        x = x + (torch.nn.functional.silu(h @ W[4]) * (h @ W[5])) @ W[6]
    return sum(t.numel() for t in seen.values()) / n


def peak(c, layers, whole, entry):
    return -(-layers // c) * entry + c * whole


def segment(layers, whole, entry):
    return min(range(1, layers + 1), key=lambda c: peak(c, layers, whole, entry))


def sorted_peaks(layers, whole, entry):
    return sorted((peak(c, layers, whole, entry), c) for c in range(1, layers + 1))[0][1]


def by_numpy(layers, whole, entry):
    c = np.arange(1, layers + 1)
    return c[np.argmin(np.ceil(layers / c) * entry + c * whole)]


def fullest(layers, devices):
    """The best of the first i layers on k devices, from k − 1."""

    @cache
    def best(i, k):
        if k == 1 or i <= 1:
            return sum(layers[:i])
        return min(max(best(j, k - 1), sum(layers[j:i])) for j in range(1, i + 1))

    return best(len(layers), devices)


def by_bisection(layers, devices):
    def needed(most):
        count, load = 1, 0
        for size in layers:
            count, load = (count + 1, size) if load + size > most else (count, load + size)
        return count

    return bisect_left(range(sum(layers) + 1), True, lo=max(layers), key=lambda most: needed(most) <= devices)


def all_cuts(layers, devices):
    ends = list(accumulate(layers, initial=0))
    found = []
    for number in range(min(devices, len(layers))):
        for cuts in combinations(range(1, len(layers)), number):
            edges = [0, *cuts, len(layers)]
            found.append(max(ends[b] - ends[a] for a, b in zip(edges, edges[1:])))
    return torch.tensor(min(found))


def even(layers, devices):
    return max(sum(part) for part in np.array_split(layers, devices))


def scattered(layers, devices):
    loads = np.zeros(devices)
    for size in sorted(layers)[::-1]:
        loads[loads.argmin()] += size
    return loads.max()


def greedy(layers, devices):
    mean, parts = sum(layers) / devices, [[]]
    for size in layers:
        if sum(parts[-1]) + size > mean and parts[-1] and len(parts) < devices:
            parts.append([])
        parts[-1].append(size)
    return max(map(sum, parts))


def until_passed(layers, devices):
    mean, loads = sum(layers) / devices, [0.0] * devices
    i = 0
    for size in layers:
        if loads[i] >= mean and i < devices - 1:
            i += 1
        loads[i] += size
    return max(loads)


ANSWERS = {
    "mask_gigabytes": Answers(
        right=[gigabytes, by_parts, lambda model: np.float32(round(gigabytes(model), 1))],
        wrong={
            "were halved too": lambda model: gigabytes(model, score=2),
            "here is one": lambda model: gigabytes(model, moments=1),
            "Adam is missing": lambda model: gigabytes(model, moments=0),
            "Four bytes a masked weight too many": lambda model: gigabytes(model, sample=4, slope=4),
            "This is in float32": lambda model: gigabytes(model, weight=4, sample=4, slope=4),
            "model itself is missing": lambda model: gigabytes(model, weight=0),
            "what learns is missing": lambda model: 2 * cost.shape(model).parameters / 1e9,
            "All parameters were masked": lambda model: 18e-9 * cost.shape(model).parameters,
            "All layers were masked": lambda model: gigabytes(model, layers=range(cost.shape(model).layers)),
            "Two bytes a masked weight are missing": lambda model: gigabytes(model, sample=0),
            "2³⁰": lambda model: gigabytes(model) / 1.073741824,
            "in bytes": lambda model: gigabytes(model) * 10**9,
        },
        context=lambda lm: (MODEL,),
        computed=True,
    ),
    "llama_numbers": Answers(
        right=[llama, tensors, by_autograd],
        wrong={
            "as wide as the queries": lambda d, m, q, k, learns: llama(d, m, q, q, learns),
            "before and after the turn": lambda d, m, q, k, learns: llama(d, m, q, k, learns) + q + k,
            "own result is missing": lambda d, m, q, k, learns: llama(d, m, q, k, learns) - q,
            "result is counted twice": lambda d, m, q, k, learns: llama(d, m, q, k, learns) + (q if learns else 0),
            "two norms in a layer": lambda d, m, q, k, learns: llama(d, m, q, k, learns) - d,
            "GPT-2's GELU": lambda d, m, q, k, learns: 2 * d + 2 * q + 2 * k + 4 * m + learns * (2 * d + m),
            "One tensor of the MLP": lambda d, m, q, k, learns: 2 * d + 2 * q + 2 * k + 2 * m + learns * (2 * d + m),
            "Nothing is kept of the MLP's product": lambda d, m, q, k, learns: llama(d, m, q, k, learns) - 2 * m,
            "frozen matrix keeps nothing": lambda d, m, q, k, learns: llama(d, m, q, k, True),
            "here they are missing": lambda d, m, q, k, learns: llama(d, m, q, k, False),
            "FF2 learns too": lambda d, m, q, k, learns: llama(d, m, q, k, False) + (2 * d if learns else 0),
            "Gate and FF1 read one": lambda d, m, q, k, learns: llama(d, m, q, k, learns) + d * learns,
            "q, k and v read one tensor, which": lambda d, m, q, k, learns: llama(d, m, q, k, learns) + 2 * d * learns,
            "and so do gate and FF1": lambda d, m, q, k, learns: llama(d, m, q, k, False) + learns * (5 * d + m),
            "bytes of float32": lambda *given: 4 * llama(*given),
        },
    ),
    "segment": Answers(
        right=[segment, sorted_peaks, by_numpy],
        wrong={
            "This is √L": lambda layers, whole, entry: int(sqrt(layers)),
            "upside down": lambda layers, whole, entry: round(sqrt(layers * whole / entry)),
            "Only the inputs": lambda layers, whole, entry: min(
                range(1, layers + 1), key=lambda c: ceil(layers / c) * entry
            ),
            "Only the segment": lambda layers, whole, entry: min(range(1, layers + 1), key=lambda c: c * whole),
            "last, shorter segment": lambda layers, whole, entry: min(
                range(1, layers + 1), key=lambda c: int(layers / c) * entry + c * whole
            ),
            "layers are whole": lambda layers, whole, entry: max(1, round(sqrt(layers * entry / whole))),
            "This is the peak": lambda *given: min(peak(c, *given) for c in range(1, given[0] + 1)),
            "the longer one": lambda *given: min(range(given[0], 0, -1), key=lambda c: peak(c, *given)),
            "number of segments": lambda *given: ceil(given[0] / segment(*given)),
        },
        blind=[
            lambda layers, whole, entry: layers,
            lambda layers, whole, entry: 1,
        ],
    ),
    "fullest": Answers(
        right=[fullest, by_bisection, all_cuts],
        wrong={
            "even split": even,
            "This is the mean": lambda layers, devices: sum(layers) / devices,
            "neighbors must stay together": scattered,
            "last got the rest": greedy,
            "until it passed the mean": until_passed,
            "emptiest device": lambda layers, devices: min(layers),
            "One device holds everything": lambda layers, devices: sum(layers),
        },
        blind=[
            lambda layers, devices: max(layers),
            lambda layers, devices: fullest(layers, devices + 1),
        ],
    ),
}
