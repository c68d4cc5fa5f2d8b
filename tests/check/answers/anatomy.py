"""Answers to the exercises of *Anatomy*."""

import torch
from library import Answers

import lens


def by_view(m, heads):
    return m.float().view(len(m), 3, heads, -1).mean((0, 3))


def by_chunks(m, heads):
    return [[float(head.double().mean()) for head in part.chunk(heads, 1)] for part in m.chunk(3, 1)]


def by_slices(m, heads):
    width = m.shape[1] // (3 * heads)
    starts = [[(i * heads + head) * width for head in range(heads)] for i in range(3)]
    columns = m.numpy().mean(0)
    return [[columns[start : start + width].mean() for start in row] for row in starts]


def by_threshold(W, g, count):
    values = [(w * slope).abs() for w, slope in zip(W, g)]
    edge = torch.cat([v.flatten() for v in values]).topk(count).values[-1]
    return [v >= edge for v in values]


def by_sorting(W, g, count):
    """One list of all weights, sorted."""
    places = [(j, a, b) for j, w in enumerate(W) for a in range(len(w)) for b in range(w.shape[1])]
    places.sort(key=lambda at: -abs(float(W[at[0]][at[1:]] * g[at[0]][at[1:]])))
    found = [[[0] * w.shape[1] for _ in w] for w in W]
    for j, a, b in places[:count]:
        found[j][a][b] = 1
    return found


def by_places(W, g, count):
    """Places in one long tensor, cut into modules again."""
    flat = torch.cat([(w.double() * slope.double()).abs().flatten() for w, slope in zip(W, g)])
    mask = torch.zeros(len(flat), dtype=torch.bool).index_fill_(0, flat.argsort(descending=True)[:count], True)
    parts = mask.split([w.numel() for w in W])
    return tuple(part.view(w.shape).numpy() for part, w in zip(parts, W))


def top(value, count):
    return value >= value.flatten().sort(descending=True).values[count - 1]


def over_all(measure):
    def choose(W, g, count):
        values = [measure(w, slope) for w, slope in zip(W, g)]
        edge = torch.cat([v.flatten() for v in values]).sort(descending=True).values[count - 1]
        return [v >= edge for v in values]

    return choose


def in_each(how_many):
    return lambda W, g, count: [top((w * slope).abs(), how_many(W, w, count)) for w, slope in zip(W, g)]


def by_size_of_module(W, w, count):
    return round(count * w.numel() / sum(x.numel() for x in W))


def above(W, g, count):
    values = [(w * slope).abs() for w, slope in zip(W, g)]
    edge = torch.cat([v.flatten() for v in values]).topk(count).values.min()
    return [v > edge for v in values]


def lost_label(lm):
    topics = lens.data.target_kgs()
    labeled = {name: [lens.mask.shipped(name, seed) for seed in (0, 1)] for name in topics}
    return lens.mask.shipped(*lens.check.student("").choose(topics, 1), seed=2), labeled


def maps(mystery, labeled, by="head"):
    x = torch.tensor([*mystery.density(by).values()])
    return x, {k: torch.tensor([[*m.density(by).values()] for m in some]).mean(0) for k, some in labeled.items()}


def by_correlation(mystery, labeled):
    x, means = maps(mystery, labeled)
    return max(means, key=lambda k: float(torch.corrcoef(torch.stack([x, means[k]]))[0, 1]))


def by_ranks(mystery, labeled):
    x, means = maps(mystery, labeled, "module")
    ranks = {k: v.argsort().argsort() for k, v in means.items()}
    return min(ranks, key=lambda k: int((ranks[k] - x.argsort().argsort()).square().sum()))


def by_distance(mystery, labeled, choose=min):
    x, means = maps(mystery, labeled)
    return choose(means, key=lambda k: float((x / x.mean() - means[k] / means[k].mean()).norm()))


def by_size(mystery, labeled):
    return min(labeled, key=lambda k: abs(sum(m.density() for m in labeled[k]) / 2 - mystery.density()))


ANSWERS = {
    "surprise": Answers(
        right=[(1300 / 10_000 - 0.1) / (0.1 * 0.9 / 10_000) ** 0.5, 10, torch.tensor((1300 - 1000) / 900**0.5)],
        wrong={
            "own density": 0.03 / (0.13 * 0.87 / 10_000) ** 0.5,
            "square root is missing": 0.03 / (0.09 / 10_000),
            "smaller, by √N": 0.03 / 0.3,
            "counts in both": 300 / 0.003,
            "relative density": 1.3,
            "standard deviation itself": 0.003,
            "1 − d was left out": 0.03 / (0.1 / 10_000) ** 0.5,
            "sign is reversed": -10,
        },
        blind=[300 / 1000**0.5, 3.0],
    ),
    "heads": Answers(
        right=[by_view, by_chunks, by_slices],
        wrong={
            "GPT-NeoX": lambda m, heads: m.float().view(len(m), heads, 3, -1).mean((0, 3)).T,
            "the shape is [3, heads]": lambda m, heads: m.float().view(len(m), heads, 3, -1).mean((0, 3)),
            "transposed": lambda m, heads: by_view(m, heads).T,
            "every so-manieth column": lambda m, heads: m.float().view(len(m), 3, -1, heads).mean((0, 2)),
            "These are sums": lambda m, heads: m.view(len(m), 3, heads, -1).sum((0, 3)),
            "sparsities": lambda m, heads: (~m).float().view(len(m), 3, heads, -1).mean((0, 3)),
            "The rows are still there": lambda m, heads: m.float().view(len(m), 3, heads, -1).mean(-1),
            "density of the whole": lambda m, heads: by_view(m, heads) / m.float().mean(),
        },
        blind=[
            lambda m, heads: m.float().view(3, len(m), heads, -1).mean((1, 3)),
            lambda m, heads: m.float().view(len(m), 3, heads, -1).std((0, 3)),
        ],
    ),
    "chosen": Answers(
        right=[by_threshold, by_sorting, by_places],
        wrong={
            "same share of each module": in_each(by_size_of_module),
            "equally many": in_each(lambda W, w, count: count // len(W)),
            "for all of them together": in_each(lambda W, w, count: count),
            "largest |W|": over_all(lambda w, slope: w.abs()),
            "steepest slopes": over_all(lambda w, slope: slope.abs()),
            "The sign was kept": over_all(torch.mul),
            "The sign was reversed": over_all(lambda w, slope: -(w * slope)),
            "the smallest": over_all(lambda w, slope: -(w * slope).abs()),
            "were added": over_all(lambda w, slope: w.abs() + slope.abs()),
            "a mask is asked for": lambda W, g, count: [(w * slope).abs() for w, slope in zip(W, g)],
            "One weight too few": above,
        },
    ),
    "whose": Answers(
        right=[by_correlation, by_ranks, by_distance],
        wrong={
            "Another topic": by_size,
            "whatever their mean": lambda mystery, labeled: by_distance(mystery, labeled, choose=max),
            "where the maps are dense": lambda mystery, labeled: max(labeled, key=lambda k: labeled[k][0].density()),
            "have this name": lambda mystery, labeled: "winter",
            "name of a topic": lambda mystery, labeled: maps(mystery, labeled)[0],
        },
        context=lost_label,
        computed=True,
    ),
}
