"""Answers to the exercises of *Is it real?*."""

from functools import cache
from math import log

import torch
from library import Answers

import lens
from lens import kernels


def by_permutation(m, share, generator):
    pool = (m if share < 0 else ~m).flatten().nonzero()[:, 0]
    order = pool[torch.randperm(len(pool), generator=generator)]
    changed = m.flatten().clone()
    changed[order[: round(abs(share) * int(m.sum()))]] = share > 0
    return changed.view(m.shape)


def by_noise(m, share, generator):
    """The largest of a random number for each weight, where it may be chosen."""
    noise = torch.rand(m.shape, generator=generator)
    count = round((1 + share) * int(m.sum()))
    if share < 0:
        noise[~m] = -1
        return torch.zeros_like(m).flatten().index_fill_(0, noise.flatten().topk(count).indices, True).view(m.shape)
    noise[m] = 2
    return noise >= noise.flatten().topk(count).values[-1]


def by_random_sample(m, share, generator):
    """With the standard library, and lists."""
    from random import Random

    random = Random(int(torch.randint(10**9, (1,), generator=generator)))
    flat = m.flatten().tolist()
    inside, outside = [i for i, v in enumerate(flat) if v], [i for i, v in enumerate(flat) if not v]
    if share <= 0:
        for i in random.sample(inside, round(-share * len(inside))):
            flat[i] = False
    else:
        for i in random.sample(outside, round(share * len(inside))):
            flat[i] = True
    width = m.shape[1]
    return [flat[i : i + width] for i in range(0, len(flat), width)]


def coin(m, share, generator):
    noise = torch.rand(m.shape, generator=generator)
    return m & (noise > -share) if share < 0 else m | (noise < share)


def kept_for_given(m, share, generator):
    return by_permutation(m, -1 - share if share < 0 else share, generator)


def of_the_matrix(m, share, generator):
    return by_permutation(m, share * m.numel() / int(m.sum()) if share > 0 else share, generator)


def from_everywhere(m, share, generator):
    if share < 0:
        return by_permutation(m, share, generator)
    places = torch.randperm(m.numel(), generator=generator)[: round(share * int(m.sum()))]
    more = m.flatten().clone()
    more[places] = True
    return more.view(m.shape)


def truncating(m, share, generator):
    count = int(m.sum())
    return by_permutation(m, int(share * count + (1e-6 if share > 0 else -1e-6)) / count, generator)


def the_first_ones(m, share, generator):
    pool = (m if share < 0 else ~m).flatten().nonzero()[:, 0]
    changed = m.flatten().clone()
    changed[pool[: round(abs(share) * int(m.sum()))]] = share > 0
    return changed.view(m.shape)


def in_place(m, share, generator):
    m[:] = by_permutation(m, share, generator)
    return m


def unseeded(m, share, generator):
    return by_permutation(m, share, None)


def fresh_for_removed(m, share, generator):
    """A new random mask of the right size, in place of the subnetwork and some more."""
    if share <= 0:
        return by_permutation(m, share, generator)
    order = torch.randperm(m.numel(), generator=generator)
    return (order < round((1 + share) * int(m.sum()))).view(m.shape)


def by_capture(lm, subnetwork, prompt, tail, layer):
    with subnetwork.removed(lm):
        gradient = lens.capture(lm, prompt, tail, layers=[layer]).gradient(layer, "ff2").dense()
    return -gradient * lm.weight(layer, "ff2").detach() * subnetwork.mask(layer, "ff2").to(gradient.device)


def by_autograd(lm, subnetwork, prompt, tail, layer):
    weight = lm.weight(layer, "ff2")
    before = weight.detach().clone()
    with subnetwork.removed(lm):
        after = weight.detach().clone()
        parameter = lm.site(layer, "ff2").weight
        logits = lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1]
        log_p = logits.double().log_softmax(-1)[lm.target_ids(tail)[0]]
        (slope,) = torch.autograd.grad(log_p, parameter)
    slope = slope if slope.shape == before.shape else slope.T
    return (before - after) * slope


def rise_of_p(lm, subnetwork, prompt, tail, layer):
    with subnetwork.removed(lm):
        logits = lm.model(torch.tensor([lm.encode(prompt)])).logits[0, -1]
    return by_capture(lm, subnetwork, prompt, tail, layer) * logits.softmax(-1)[lm.target_ids(tail)[0]].detach()


def at_the_last_token(lm, subnetwork, prompt, tail, layer):
    with subnetwork.removed(lm):
        g = lens.capture(lm, prompt, tail, layers=[layer]).gradient(layer, "ff2")
    step = lm.weight(layer, "ff2").detach() * subnetwork.mask(layer, "ff2")
    return -torch.outer(g.x[-1], g.delta[-1]) * step


def by_factors(lm, subnetwork, prompt, tail, layer):
    with subnetwork.removed(lm):
        g = lens.capture(lm, prompt, tail).gradient(layer, "ff2")
    found = -torch.einsum("na,nb->ab", g.x.double(), g.delta.double())
    mask = subnetwork.mask(layer, "ff2")
    return torch.where(mask, found.cpu() * lm.weight(layer, "ff2").detach().cpu().double(), 0.0).numpy()


def in_the_block(lm, subnetwork, prompt, tail, layer):
    with subnetwork.removed(lm):
        gradient = lens.capture(lm, prompt, tail).gradient(layer, "ff2").dense()
        return -gradient * lm.weight(layer, "ff2").detach() * subnetwork.mask(layer, "ff2")


def in_the_whole_model(lm, subnetwork, prompt, tail, layer):
    gradient = lens.capture(lm, prompt, tail).gradient(layer, "ff2").dense()
    return -gradient * lm.weight(layer, "ff2").detach() * subnetwork.mask(layer, "ff2")


def slope_of(lm, subnetwork, prompt, tail, layer):
    with subnetwork.removed(lm):
        return -lens.capture(lm, prompt, tail).gradient(layer, "ff2").dense()


@cache
def own_model(name):
    """Not the tests' shared model: a removal puts all weights back bit for bit, but torch counts each write."""
    return lens.load(name)


def removal(shared):
    lm = own_model(shared.name)
    weights = zip(lm.model.parameters(), shared.model.parameters())
    assert all(torch.equal(*pair) for pair in weights), "a check left the model changed"
    kg, found = lens.data.knowledge("building"), lens.mask.shipped("building")
    (fact,) = lens.check.student("").choose(list(dict.fromkeys(p.fact for p in kg.target)), 1)
    return lm, found, kg, fact


def promises(lm, found, prompts):
    total = dict.fromkeys(found.bits, 0)
    with found.removed(lm):
        for p in prompts:
            trace = lens.capture(lm, p.text, p.target)
            total = {key: t - trace.gradient(*key).dense() for key, t in total.items()}
    return {key: lm.weight(*key).detach() * t for key, t in total.items()}


def opened(found, gain, share, by_site=False):
    """``found`` without the share of its weights of largest gain, over all sites or in each."""
    masks = {key: found.mask(*key) for key in found.bits}
    bits = {}
    for key, m in masks.items():
        pool = gain[key][m] if by_site else torch.cat([gain[k][masks[k]] for k in masks])
        edge = pool.topk(max(1, int(share * len(pool)))).values[-1]
        bits[key] = kernels.pack(m & (gain[key] < edge))
    return found.with_bits(bits, "a key")


def of_fact(kg, fact):
    return [p for p in kg.target if p.fact == fact]


def key(lm, found, kg, fact):
    return opened(found, promises(lm, found, of_fact(kg, fact)), 0.01)


def the_rest(lm, found, kg, fact):
    bits = key(lm, found, kg, fact).bits
    return found.with_bits({k: b & ~bits[k] for k, b in found.bits.items()}, "what to give back")


ANSWERS = {
    "share_back": Answers(
        right=[1 / 4, torch.tensor(0.25), log(20_000 / 2_000) / log(20_000 / 2)],
        wrong={
            "share of the perplexity": 0.9,
            "still missing": 0.75,
            "The whole model has a loss too": 1 - log(2_000) / log(20_000),
        },
        blind=[0.1, 0.5],
    ),
    "varied": Answers(
        right=[by_permutation, by_noise, by_random_sample],
        wrong={
            "a coin for each weight": coin,
            "Kept and given back are exchanged": kept_for_given,
            "taken of all weights of the matrix": of_the_matrix,
            "that are removed already": from_everywhere,
            "the first ones may be special": the_first_ones,
            "changed m itself": in_place,
            "draw with the generator": unseeded,
            "no longer removed": fresh_for_removed,
            "weights that m does not": lambda m, share, generator: by_permutation(m, abs(share), generator),
            "nearest whole number": truncating,
            "it stopped": lambda m, share: m,
        },
        blind=[
            lambda m, share, generator: m,
            lambda m, share, generator: torch.zeros_like(m),
        ],
    ),
    "promise": Answers(
        right=[by_capture, by_autograd, by_factors],
        wrong={
            "sign is reversed": lambda *given: -by_capture(*given),
            "that of the whole model": in_the_whole_model,
            "read W outside": in_the_block,
            "Only weights that were taken": lambda lm, m, *rest: (
                slope_of(lm, m, *rest) * lm.weight(rest[-1], "ff2").detach()
            ),
            "weights that stayed": lambda lm, m, *rest: (
                slope_of(lm, m, *rest) * lm.weight(rest[-1], "ff2").detach() * ~m.mask(rest[-1], "ff2")
            ),
            "slope alone": lambda lm, m, *rest: slope_of(lm, m, *rest) * m.mask(rest[-1], "ff2"),
            "leading space": lambda lm, m, prompt, tail, layer: by_capture(lm, m, prompt, lm.encode(tail)[:1], layer),
            "transposed": lambda *given: by_capture(*given).T,
            "how much p rises": rise_of_p,
            "last token's part": at_the_last_token,
        },
        context=lambda lm: removal(lm)[:2],
    ),
    "key": Answers(
        right=[
            key,
            lambda lm, found, kg, fact: opened(found, promises(lm, found, of_fact(kg, fact)), 0.01, by_site=True),
            lambda lm, found, kg, fact: opened(found, promises(lm, found, of_fact(kg, fact)[:2]), 0.008),
        ],
        wrong={
            "Your fact has less than half": lambda lm, found, kg, fact: lens.mask.shrunk(found, 0.01),
            "More than one percent": lambda lm, found, kg, fact: opened(
                found, promises(lm, found, of_fact(kg, fact)), 0.1
            ),
            "The other way round": the_rest,
            "even less probable": lambda lm, found, kg, fact: opened(
                found, {k: -g for k, g in promises(lm, found, of_fact(kg, fact)).items()}, 0.01
            ),
            "Nothing was given back": lambda lm, found, kg, fact: found,
            "weights that found does not": lambda lm, found, kg, fact: lens.mask.grown(found, 0.01),
            "A subnetwork is asked for": lambda lm, found, kg, fact: {k: found.mask(*k) for k in found.bits},
        },
        context=removal,
        computed=True,
    ),
}
