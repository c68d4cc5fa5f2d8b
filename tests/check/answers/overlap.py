"""Answers to the exercises of *Overlap analysis*."""

from itertools import combinations

import torch
from library import Answers

import lens
from lens import kernels


def by_formula(modules):
    observed, expected = 0, 0.0
    for m in modules:
        observed += int((m.sum(0) >= 2).sum())
        p, q, r = m.double().mean((1, 2)).tolist()
        expected += m[0].numel() * (p * q + p * r + q * r - 2 * p * q * r)
    return observed, expected


def by_cases(modules):
    """Every outcome of three independent draws, in float32 and as a list."""
    observed, expected = torch.tensor(0), torch.tensor(0.0)
    for a, b, c in modules:
        observed = observed + ((a & b) | (a & c) | (b & c)).sum()
        rates = [m.float().mean() for m in (a, b, c)]
        for inside in [*combinations(range(3), 2), (0, 1, 2)]:
            chance = torch.tensor(1.0)
            for i, rate in enumerate(rates):
                chance = chance * (rate if i in inside else 1 - rate)
            expected = expected + chance * a.numel()
    return [observed, expected]


def by_lists(modules):
    observed = expected = 0
    for module in modules:
        flat = [mask.flatten().tolist() for mask in module]
        n, (a, b, c) = len(flat[0]), map(sum, flat)
        observed += sum(sum(weight) > 1 for weight in zip(*flat))
        expected += (a * b + a * c + b * c) / n - 2 * a * b * c / n**2
    return observed, expected


def wrong_chance(rule, observe=lambda m: m.sum(0) >= 2, per_weight=False):
    def answer(modules):
        observed, expected = 0, 0
        for m in modules:
            n = m.shape[1] * m.shape[2]
            observed += int(observe(m).sum())
            a, b, c = (int(mask.sum()) / n for mask in m)
            expected += rule(a, b, c) * (1 if per_weight else n)
        return observed, expected

    return answer


def pooled(modules):
    one = torch.cat([m.flatten(1) for m in modules], 1)[:, None]
    return by_formula([one])


def pairs(a, b, c):
    return a * b + a * c + b * c


def masks(rows_of, columns_of):
    """Two masks that hold everything in some rows and columns."""
    found = torch.zeros(2, 20, 30, dtype=torch.bool)
    for mask, rows, columns in zip(found, rows_of, columns_of):
        mask[torch.tensor(list(rows))[:, None], torch.tensor(list(columns))] = True
    return found


def ten(lm):
    topics = lens.data.target_kgs()
    mine, *others = (lens.mask.shipped(name) for name in topics)
    return mine, others


def without(mine, others, k=2):
    general = lens.overlap.at_least(others, k)
    return mine.with_bits({key: b & ~general.bits[key] for key, b in mine.bits.items()}, "without")


def drawn(mine, like, seed=0):
    generator, bits = torch.Generator().manual_seed(seed), {}
    for key, b in like.bits.items():
        places = mine.mask(*key).flatten().nonzero()[:, 0]
        stay = places[torch.randperm(len(places), generator=generator)[: b.count()]]
        kept = torch.zeros(mine.mask(*key).numel(), dtype=torch.bool).index_fill_(0, stay, True)
        bits[key] = kernels.pack(kept.view(b.shape))
    return mine.with_bits(bits, "control")


def fair(mine, others):
    first = without(mine, others)
    return first, drawn(mine, first)


def by_counting(mine, others):
    """Memberships added up, and the control by noise."""
    first, control = {}, {}
    for key in mine.bits:
        m, seen = mine.mask(*key), sum(o.mask(*key).int() for o in others)
        first[key] = kernels.pack(m & (seen < 2))
        noise = torch.rand(m.shape, generator=torch.Generator().manual_seed(7)).masked_fill(~m, -1).flatten()
        kept = torch.zeros(m.numel(), dtype=torch.bool).index_fill_(0, noise.topk(first[key].count()).indices, True)
        control[key] = kernels.pack(kept.view(m.shape))
    return [mine.with_bits(first, "first"), mine.with_bits(control, "control")]


def by_pairs(mine, others):
    first = mine
    for one, other in combinations(others, 2):
        both = {key: b & other.bits[key] for key, b in one.bits.items()}
        first = first.with_bits({key: b & ~both[key] for key, b in first.bits.items()}, "first")
    return first, drawn(mine, first, seed=3)


def measured(pair, lm, prompts, order=(0, 1)):
    """Δ log p by the losses of the whole and of the remaining model."""
    tokens = torch.tensor([len(lm.target_ids(p.target)) for p in prompts])

    def log_p():
        nll = lens.evaluate.score(lm, [p.text for p in prompts], [p.target for p in prompts]).nll
        return -float((nll.cpu() * tokens).sum() / tokens.sum())

    found, whole = [], log_p()
    for i in order:
        with pair[i].removed(lm):
            found.append(log_p() - whole)
    return found


def with_readings(pair, lm, prompts, inside=True):
    readings = lens.evaluate.readings.Readings(lm, {"unseen": prompts}, min(layer for layer, _ in pair[0].bits))
    changes = []
    for one in pair:
        with one.removed(lm):
            change = readings()["unseen"].delta_log_prob
        changes.append(change if inside else readings()["unseen"].delta_log_prob)
    return changes


def own(lm):
    """A model that is not the tests': a removal puts all weights back, and torch counts each write."""
    return fair(*ten(lm)), lens.load("mini", device="cpu"), lens.data.knowledge(lens.data.target_kgs()[0]).unseen[:32]


ANSWERS = {
    "by_chance": Answers(
        right=[50 * 40 / 100 + 10 * 10 / 900, torch.tensor(20.1111), 20.11],
        wrong={
            "give two": 20 + 10 * 10 / 1000,
            "modules were pooled": 60 * 50 / 1000,
            "second module adds a little": 20,
            "averaged": (20 + 1 / 9) / 2,
            "sum of probabilities": 0.5 * 0.4 + (10 / 900) ** 2,
            "The number is not right": 90,
        },
        blind=[50 * 40 / 100 * 10 * 10 / 900],
    ),
    "two_of_three": Answers(
        right=[by_formula, by_cases, by_lists],
        wrong={
            "belongs to every pair": wrong_chance(pairs),
            "Both numbers are those of exactly two": wrong_chance(
                lambda a, b, c: a * b * (1 - c) + a * c * (1 - b) + b * c * (1 - a), lambda m: m.sum(0) == 2
            ),
            "this is the chance of exactly two": wrong_chance(
                lambda a, b, c: a * b * (1 - c) + a * c * (1 - b) + b * c * (1 - a)
            ),
            "Observed: these are exactly two": wrong_chance(
                lambda a, b, c: pairs(a, b, c) - 2 * a * b * c, lambda m: m.sum(0) == 2
            ),
            "the intersection; two suffice": wrong_chance(lambda a, b, c: a * b * c, lambda m: m.all(0)),
            "pooled": pooled,
            "each module has N weights": wrong_chance(lambda a, b, c: pairs(a, b, c) - 2 * a * b * c, per_weight=True),
            "exchanged": lambda modules: by_formula(modules)[::-1],
        },
        blind=[
            lambda modules: [x / 2 for x in by_formula(modules)],
            wrong_chance(lambda a, b, c: a + b + c),
        ],
    ),
    "same_rows": Answers(
        right=[
            masks((range(4), range(4)), (range(0, 30, 2), range(14))),
            masks((range(3), range(3)), (range(0, 30, 3), range(15))).tolist(),
            tuple(masks((range(5), range(5)), (range(10), range(6, 21))).numpy()),
        ],
        wrong={
            "they agree on single weights": masks((range(4), range(4)), (range(10), range(10))),
            "one mask": masks((range(3), range(3)), (range(30), range(30))),
            "less than three times": masks((range(20), range(20)), (range(0, 30, 2), range(14))),
            "columns that explain": masks((range(0, 20, 2), range(10)), (range(5), range(5))),
            "Two masks of shape": torch.ones(2, 30, 20, dtype=torch.bool),
        },
    ),
    "general": Answers(
        right=[fair, by_counting, by_pairs],
        wrong={
            "your own mask among the others": lambda mine, others: (
                (first := without(mine, [mine, *others])),
                drawn(mine, first),
            ),
            "not your mask without": lambda mine, others: ((first := without(mine, others, 3)), drawn(mine, first)),
            "general part itself": lambda mine, others: (
                mine.with_bits({k: b & ~without(mine, others).bits[k] for k, b in mine.bits.items()}, "general"),
                mine,
            ),
            "The control holds weights": lambda mine, others: (
                (first := without(mine, others)),
                lens.mask.random_like(first),
            ),
            "in each module": lambda mine, others: (
                (first := without(mine, others)),
                lens.mask.shrunk(mine, 1 - first.density() / mine.density()),
            ),
            "are exchanged": lambda mine, others: fair(mine, others)[::-1],
            "once more": lambda mine, others: (without(mine, others), without(mine, others)),
            "The first holds weights": lambda mine, others: (others[0], others[0]),
            "Two subnetworks": lambda mine, others: without(mine, others),
        },
        context=ten,
        computed=True,
    ),
    "silence": Answers(
        right=[with_readings, measured, lambda *given: torch.tensor(with_readings(*given))],
        wrong={
            "Nothing changes": lambda *given: with_readings(*given, inside=False),
            "are exchanged": lambda *given: measured(*given, order=(1, 0)),
            "both changes": lambda *given: with_readings(*given)[1] - with_readings(*given)[0],
            "for the sign": lambda *given: [-change for change in with_readings(*given)],
        },
        context=own,
        computed=True,
    ),
}
