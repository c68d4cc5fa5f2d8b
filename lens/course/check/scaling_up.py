"""Checks of *Scaling up*: bytes of a mask, what a Llama's layer keeps, checkpoints, and layers spread over GPUs."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import ceil, isqrt

from lens.course.check.exercise import Function, Value
from lens.scale.cost import memory, shape

HELD = ("weights", "scores", "optimizer", "sampled weights", "gradients")


@cache
def _counted(model: str) -> tuple[int, int, int, float]:
    """Parameters, masked weights, all weights of matrices; and what ``lens.cost`` counts, in GB."""
    told, s = memory(model, "mask", dtype="bfloat16"), shape(model)
    return s.parameters, told.learning, s.matrices, sum(told.parts[part] for part in HELD) / 1e9


def _held(model, model_bytes=2, masked_bytes=16):
    parameters, masked, *_ = _counted(model)
    return (model_bytes * parameters + masked_bytes * masked) / 1e9


mask_gigabytes = Value(
    lambda model: _counted(model)[-1],
    {
        "Scores and Adam were halved too: they stay in float32, where small steps are not lost.": (
            lambda model: _held(model, 2, 10)
        ),
        "Adam keeps two moments of each score, and here is one.": lambda model: _held(model, 2, 12),
        "Adam is missing: it keeps two moments of each score.": lambda model: _held(model, 2, 8),
        "Four bytes a masked weight too many: sample and gradient are in half precision, and the scores' own gradient "
        "takes their place.": lambda model: _held(model, 2, 20),
        "This is in float32; in bfloat16 the model, the sample and its gradient are halved.": (
            lambda model: _held(model, 4, 20)
        ),
        "The model itself is missing: all of its weights are there, masked or not.": lambda model: _held(model, 0, 16),
        "Only the model's weights are here: what learns is missing.": lambda model: _held(model, 2, 0),
        "All parameters were masked: embeddings and the lower half of the layers have no score.": (
            lambda model: 18 * _counted(model)[0] / 1e9
        ),
        "All layers were masked: only the upper half has scores.": (
            lambda model: (2 * _counted(model)[0] + 16 * _counted(model)[2]) / 1e9
        ),
        "Two bytes a masked weight are missing: W, its sample and the sample's gradient are three tensors.": (
            lambda model: (2 * (_counted(model)[0] - _counted(model)[1]) + 16 * _counted(model)[1]) / 1e9
        ),
        "This counts in 2³⁰ bytes; a GB is 10⁹.": lambda model: _held(model) * 1e9 / 2**30,
        "This is in bytes; a GB is 10⁹ of them.": lambda model: 1e9 * _held(model),
    },
    "What learns costs eight times the weight that it masks, and half precision does not touch most of it.",
    tolerance=5e-3,
)


def _layers() -> list[tuple]:
    """Grouped queries of lopsided widths, frozen and learning; then an ordinary head for every query."""
    return [(24, 52, 32, 10, False), (24, 52, 32, 10, True), (48, 100, 64, 64, True)]


def _kept(width, inner, query, keys, learns):
    """Norms' inputs; q, k, v and the result; z of the gate, both factors; and, where matrices learn, their inputs."""
    return 2 * width + 2 * query + 2 * keys + 3 * inner + learns * (2 * width + inner)


def _plus(change):
    """The right count and a term more or less: ``change(d, m, q, k, learns)``."""
    return lambda *given: _kept(*given) + change(*given)


llama_numbers = Function(
    _kept,
    _layers,
    {
        "Keys and values were taken to be as wide as the queries: with grouped queries they are narrower.": (
            _plus(lambda d, m, q, k, learns: 2 * (q - k))
        ),
        "q and k are counted before and after the turn: does its derivative read anything?": (
            _plus(lambda d, m, q, k, learns: q + k)
        ),
        "Attention's own result is missing: its backward pass reads it.": _plus(lambda d, m, q, k, learns: -q),
        "Attention's result is counted twice: attention and the matrix behind it read the same tensor.": (
            _plus(lambda d, m, q, k, learns: q * learns)
        ),
        "There are two norms in a layer, and each keeps its input.": _plus(lambda d, m, q, k, learns: -d),
        "This is GPT-2's GELU, four numbers: a gated MLP has silu of the gate, and a product.": (
            _plus(lambda d, m, q, k, learns: m)
        ),
        "FF2 learns too, and keeps its input.": _plus(lambda d, m, q, k, learns: -m * learns),
        "One tensor of the MLP is missing: what does the derivative of silu read, and what that of the product?": (
            _plus(lambda d, m, q, k, learns: -m)
        ),
        "Nothing is kept of the MLP's product: what does its derivative read?": (
            _plus(lambda d, m, q, k, learns: -2 * m)
        ),
        "The matrices' inputs are counted though they do not learn: a frozen matrix keeps nothing.": (
            _plus(lambda d, m, q, k, learns: (2 * d + m) * (not learns))
        ),
        "Matrices that learn keep their inputs, and here they are missing.": (
            _plus(lambda d, m, q, k, learns: -(2 * d + m) * learns)
        ),
        "Gate and FF1 read one tensor, which is kept once.": _plus(lambda d, m, q, k, learns: d * learns),
        "q, k and v read one tensor, which is kept once.": _plus(lambda d, m, q, k, learns: 2 * d * learns),
        "q, k and v read one tensor, and so do gate and FF1: each is kept once.": (
            _plus(lambda d, m, q, k, learns: 3 * d * learns)
        ),
        "These are bytes of float32: the count of numbers is asked for.": lambda *given: 4 * _kept(*given),
    },
    "You can read a layer's memory off its derivatives.",
    tolerance=1e-6,
)


def _checkpoints() -> list[tuple]:
    """(layers, what a layer keeps, its input): equal parts, two between, a real model's ratio; then two are as good."""
    return [(100, 1, 1), (90, 40, 12), (64, 3, 7), (48, 28, 1), (6, 1, 1)]


def _best(layers, peak):
    return min(range(1, layers + 1), key=lambda c: (peak(c), c))


def _segment(layers, whole, entry):
    return _best(layers, lambda c: ceil(layers / c) * entry + c * whole)


segment = Function(
    _segment,
    _checkpoints,
    {
        "This is √L, whatever a layer and its input weigh; here they weigh differently.": (
            lambda layers, whole, entry: isqrt(layers)
        ),
        "The ratio under the root is upside down.": (
            lambda layers, whole, entry: min(layers, round((layers * whole / entry) ** 0.5))
        ),
        "Only the inputs were counted: the segment that is run again is kept whole for its backward pass.": (
            lambda layers, whole, entry: layers
        ),
        "Only the segment was counted: the inputs of all segments wait in memory meanwhile.": lambda *given: 1,
        "The last, shorter segment has an input too: round the number of segments up.": (
            lambda layers, whole, entry: _best(layers, lambda c: layers // c * entry + c * whole)
        ),
        "The formula √(L · input / whole) takes a part of a segment for possible: layers are whole, so compare them.": (
            lambda layers, whole, entry: max(1, round((layers * entry / whole) ** 0.5))
        ),
        "Two lengths are as good here, and this is the longer one.": (
            lambda layers, whole, entry: max(
                range(1, layers + 1), key=lambda c: (-ceil(layers / c) * entry - c * whole, c)
            )
        ),
        "This is the peak; the number of layers in a segment is asked for.": (
            lambda *given: ceil(given[0] / _segment(*given)) * given[2] + _segment(*given) * given[1]
        ),
        "This is the number of segments; that of layers in a segment is asked for.": (
            lambda *given: ceil(given[0] / _segment(*given))
        ),
    },
    "Where a layer keeps far more than its input, nothing beats a checkpoint at every layer.",
)


def _stacks() -> list[tuple]:
    """Bytes by layer: heavy above, as a mask's are; uneven; and fewer layers than devices."""
    return [([2] * 5 + [18] * 6, 2), ([3, 1, 4, 1, 5, 9, 2, 6], 3), ([18, 2, 2, 2, 2, 18], 3), ([5, 1], 4)]


def _splits(layers, devices):
    """The fullest of each way to cut the stack, devices in order and none empty where there are layers enough."""
    for cuts in combinations(range(1, len(layers)), min(devices, len(layers)) - 1):
        edges = [0, *cuts, len(layers)]
        yield [sum(layers[a:b]) for a, b in zip(edges, edges[1:])]


def _evenly(layers, devices):
    each = ceil(len(layers) / devices)
    return max(sum(layers[i : i + each]) for i in range(0, len(layers), each))


def _anywhere(layers, devices):
    loads = [0] * devices
    for size in sorted(layers, reverse=True):
        loads[loads.index(min(loads))] += size
    return max(loads)


def _filled(layers, devices, over):
    """Each device filled up to the mean, or just over it; the last one gets the rest."""
    mean, loads = sum(layers) / devices, [0]
    for size in layers:
        full = loads[-1] >= mean if over else loads[-1] + size > mean
        if full and loads[-1] and len(loads) < devices:
            loads.append(0)
        loads[-1] += size
    return max(loads)


fullest = Function(
    lambda layers, devices: min(max(loads) for loads in _splits(layers, devices)),
    _stacks,
    {
        "As many layers for each device is not as many bytes for each: that is the even split you are to improve.": (
            _evenly
        ),
        "This is the mean: layers cannot be cut in two, so it is a bound that need not be reached.": (
            lambda layers, devices: sum(layers) / devices
        ),
        "Layers were handed out in any order: neighbors must stay together, a device has a stretch of the stack.": (
            _anywhere
        ),
        "Each device was filled up to the mean, and the last got the rest: a little more before may leave it less.": (
            lambda layers, devices: _filled(layers, devices, False)
        ),
        "Each device was filled until it passed the mean: stopping a layer earlier may be better. Compare all cuts.": (
            lambda layers, devices: _filled(layers, devices, True)
        ),
        "This is the emptiest device: the fullest one must have the memory.": (
            lambda layers, devices: min(min(loads) for loads in _splits(layers, devices))
        ),
        "This is the worst way to cut; the best is asked for.": (
            lambda layers, devices: max(max(loads) for loads in _splits(layers, devices))
        ),
        "One device holds everything here: cut the stack.": lambda layers, devices: sum(layers),
    },
    "The best cuts follow the bytes, not the number of layers.",
)
