"""Checks of *Scaling up*: bytes of a mask, what a Llama's layer keeps, checkpoints, and layers spread over GPUs."""

from __future__ import annotations

from functools import cache, partial
from itertools import combinations
from math import ceil, floor, isqrt

from lens.course.check.exercise import Function, Value
from lens.course.check.mistakes import Then
from lens.scale.cost import memory, shape


@cache
def _counted(model: str) -> tuple[int, int, int]:
    """Parameters, masked weights, and all weights of matrices."""
    return shape(model).parameters, memory(model, "mask", dtype="bfloat16").learning, shape(model).matrices


def _held(model, byte=2, masked=16, which=1):
    """So many bytes of a parameter and of a masked weight, in GB; ``which`` of the counts is masked."""
    return (byte * _counted(model)[0] + masked * _counted(model)[which]) / 1e9


mask_gigabytes = Value(
    _held,
    {
        "Scores and Adam were halved too: they stay in float32, where small steps are not lost.": dict(masked=10),
        "Adam keeps two moments of each score, and here is one.": dict(masked=12),
        "Adam is missing: it keeps two moments of each score.": dict(masked=8),
        "Four bytes a masked weight too many: sample and gradient are in half precision, and the scores' own gradient "
        "takes their place.": dict(masked=20),
        "This is in float32; in bfloat16 the model, the sample and its gradient are halved.": dict(byte=4, masked=20),
        "The model itself is missing: all of its weights are there, masked or not.": dict(byte=0),
        "Only the model's weights are here: what learns is missing.": dict(masked=0),
        "All parameters were masked: embeddings and the lower half of the layers have no score.": dict(which=0),
        "All layers were masked: only the upper half has scores.": dict(which=2),
        "Two bytes a masked weight are missing: W, its sample and the sample's gradient are three tensors.": (
            dict(masked=14)
        ),
        "This counts in 2³⁰ bytes; a GB is 10⁹.": Then(lambda giga: giga * 1e9 / 2**30),
        "This is in bytes; a GB is 10⁹ of them.": Then(lambda giga: giga * 1e9),
    },
    "What learns costs eight times the weight that it masks, and half precision does not touch most of it.",
    tolerance=5e-3,
)


def _layers() -> list[tuple]:
    """Grouped queries of lopsided widths, frozen and learning; then an ordinary head for every query."""
    return [(24, 52, 32, 10, False), (24, 52, 32, 10, True), (48, 100, 64, 64, True)]


def _kept(width, inner, query, keys, learns, d=0, m=0, q=0, k=0, only=None):
    """Norms' inputs; q, k, v and the result; z of the gate, both factors; and, where matrices learn, their inputs.

    ``d``, ``m``, ``q``, ``k``: how many such tensors a count has too many, ``only`` where matrices learn, or do not.
    """
    right = 2 * width + 2 * query + 2 * keys + 3 * inner + learns * (2 * width + inner)
    return right + (only in (None, learns)) * (d * width + m * inner + q * query + k * keys)


llama_numbers = Function(
    _kept,
    _layers,
    {
        "Keys and values were taken to be as wide as the queries: with grouped queries they are narrower.": (
            dict(q=2, k=-2)
        ),
        "q and k are counted before and after the turn: does its derivative read anything?": dict(q=1, k=1),
        "Attention's own result is missing: its backward pass reads it.": dict(q=-1),
        "Attention's result is counted twice: attention and the matrix behind it read the same tensor.": (
            dict(q=1, only=True)
        ),
        "There are two norms in a layer, and each keeps its input.": dict(d=-1),
        "This is GPT-2's GELU, four numbers: a gated MLP has silu of the gate, and a product.": dict(m=1),
        "FF2 learns too, and keeps its input.": dict(m=-1, only=True),
        "One tensor of the MLP is missing: what does the derivative of silu read, and what that of the product?": (
            dict(m=-1)
        ),
        "Nothing is kept of the MLP's product: what does its derivative read?": dict(m=-2),
        "The matrices' inputs are counted though they do not learn: a frozen matrix keeps nothing.": (
            dict(d=2, m=1, only=False)
        ),
        "Matrices that learn keep their inputs, and here they are missing.": dict(d=-2, m=-1, only=True),
        "Gate and FF1 read one tensor, which is kept once.": dict(d=1, only=True),
        "q, k and v read one tensor, which is kept once.": dict(d=2, only=True),
        "q, k and v read one tensor, and so do gate and FF1: each is kept once.": dict(d=3, only=True),
        "These are bytes of float32: the count of numbers is asked for.": Then(lambda count: 4 * count),
    },
    "You can read a layer's memory off its derivatives.",
    tolerance=1e-6,
)


def _peak(layers, whole, entry, each, up=ceil):
    return up(layers / each) * entry + each * whole


def _segment(layers, whole, entry, up=ceil, tie=1):
    return min(range(1, layers + 1), key=lambda each: (_peak(layers, whole, entry, each, up), tie * each))


segment = Function(
    _segment,
    # (layers, what a layer keeps, its input): equal parts, two between, a real model's ratio; then two are as good.
    lambda: [(100, 1, 1), (90, 40, 12), (64, 3, 7), (48, 28, 1), (6, 1, 1)],
    {
        "This is √L, whatever a layer and its input weigh; here they weigh differently.": lambda L, *_: isqrt(L),
        "The ratio under the root is upside down.": lambda L, whole, entry: min(L, round((L * whole / entry) ** 0.5)),
        "Only the inputs were counted: the segment that is run again is kept whole for its backward pass.": (
            lambda L, *_: L
        ),
        "Only the segment was counted: the inputs of all segments wait in memory meanwhile.": lambda *given: 1,
        "The last, shorter segment has an input too: round the number of segments up.": dict(up=floor),
        "The formula √(L · input / whole) takes a part of a segment for possible: layers are whole, so compare them.": (
            lambda L, whole, entry: max(1, round((L * entry / whole) ** 0.5))
        ),
        "Two lengths are as good here, and this is the longer one.": dict(tie=-1),
        "This is the peak; the number of layers in a segment is asked for.": (
            lambda *given: _peak(*given, _segment(*given))
        ),
        "This is the number of segments; that of layers in a segment is asked for.": (
            lambda L, *rest: ceil(L / _segment(L, *rest))
        ),
    },
    "Where a layer keeps far more than its input, nothing beats a checkpoint at every layer.",
)


def _stacks() -> list[tuple]:
    """Bytes by layer: heavy above, as a mask's are; uneven; and fewer layers than devices."""
    return [([2] * 5 + [18] * 6, 2), ([3, 1, 4, 1, 5, 9, 2, 6], 3), ([18, 2, 2, 2, 2, 18], 3), ([5, 1], 4)]


def _fullest(layers, devices, best=min, full=max):
    """Of all ways to cut the stack, devices in order and none empty where there are layers enough."""
    cuts = combinations(range(1, len(layers)), min(devices, len(layers)) - 1)
    return best(full(sum(layers[a:b]) for a, b in zip((0, *cut), (*cut, len(layers)))) for cut in cuts)


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
    _fullest,
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
            partial(_filled, over=False)
        ),
        "Each device was filled until it passed the mean: stopping a layer earlier may be better. Compare all cuts.": (
            partial(_filled, over=True)
        ),
        "This is the emptiest device: the fullest one must have the memory.": dict(full=min),
        "This is the worst way to cut; the best is asked for.": dict(best=max),
        "One device holds everything here: cut the stack.": lambda layers, devices: sum(layers),
    },
    "The best cuts follow the bytes, not the number of layers.",
)
