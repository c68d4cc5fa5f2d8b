"""Answers to the exercises of *Knowledge-critical subnetworks*."""

import math

import numpy as np
import torch
from library import Answers
from torch.nn.functional import kl_div

import lens


def with_kl_div(target, control, before, scores, lam):
    """torch's own divergence, whose arguments go the other way round."""
    flat = torch.full_like(target, 1 / target.shape[-1])
    suppress = kl_div(target.log_softmax(-1), flat, reduction="batchmean")
    maintain = kl_div(control.log_softmax(-1), before.log_softmax(-1), reduction="batchmean", log_target=True)
    return 1.5 * suppress + maintain + lam * scores.sigmoid().mean()


def row_by_row(target, control, before, scores, lam):
    def log_p(z):
        return z - z.max() - (z - z.max()).exp().sum().log()

    suppress = [-log_p(z).mean() - math.log(len(z)) for z in target]
    maintain = [(log_p(z0).exp() * (log_p(z0) - log_p(z))).sum() for z0, z in zip(before, control)]
    density = (1 / (1 + torch.exp(-scores))).mean()
    return 1.5 * sum(suppress) / len(suppress) + sum(maintain) / len(maintain) + lam * density


def three(target, control, before, scores, lam, suppress=None, maintain=None, density=None, reduce=torch.mean, dim=-1):
    """The loss, with parts that can be done otherwise."""
    q, p0, p = target.log_softmax(dim), before.log_softmax(dim), control.log_softmax(dim)
    a = suppress(q) if suppress else (-q.mean(dim) - math.log(target.shape[dim]))
    b = maintain(p0, p) if maintain else (p0.exp() * (p0 - p)).sum(dim)
    c = density(scores) if density else scores.sigmoid().mean()
    return 1.5 * reduce(a) + reduce(b) + lam * c


def naive(target, control, before, scores, lam):
    """Right on paper, and not for large logits."""
    p, q, r = target.softmax(-1), control.softmax(-1), before.softmax(-1)
    suppress = (-p.log().mean(-1) - math.log(p.shape[-1])).mean()
    return 1.5 * suppress + (r * (r / q).log()).sum(-1).mean() + lam * scores.sigmoid().mean()


def shuffled(masks, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: m.flatten()[torch.randperm(m.numel(), generator=generator)].view(m.shape) for name, m in masks.items()
    }


def reseeded(masks, seed):
    """A generator of its own for each module, and one seed for all of them."""
    drawn = {}
    for name, m in masks.items():
        chosen = torch.randperm(m.numel(), generator=torch.Generator().manual_seed(seed))[: int(m.sum())]
        drawn[name] = torch.zeros(m.numel(), dtype=torch.bool).index_fill(0, chosen, True).view(m.shape)
    return drawn


def by_noise(masks, seed):
    """The largest of as many random numbers."""
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for name, m in masks.items():
        noise = torch.rand(m.shape, generator=generator)
        drawn[name] = noise > noise.flatten().sort(descending=True).values[int(m.sum())]
    return drawn


def in_numpy(masks, seed):
    rng, drawn = np.random.default_rng(seed), {}
    for name, m in masks.items():
        flat = np.zeros(m.numel(), dtype=bool)
        flat[rng.choice(m.numel(), int(m.sum()), replace=False)] = True
        drawn[name] = torch.from_numpy(flat.reshape(tuple(m.shape)))
    return drawn


def all_together(masks, seed):
    """One draw over all modules."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.cat([m.flatten() for m in masks.values()])
    parts = flat[torch.randperm(len(flat), generator=generator)].split([m.numel() for m in masks.values()])
    return {name: part.view(m.shape) for (name, m), part in zip(masks.items(), parts)}


def tossed(masks, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(m.shape, generator=generator) < m.float().mean() for name, m in masks.items()}


def rows_moved(masks, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: m[torch.randperm(len(m), generator=generator)] for name, m in masks.items()}


def avoiding(masks, seed):
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for name, m in masks.items():
        free = (~m).flatten().nonzero()[:, 0]
        drawn[name] = torch.zeros_like(m)
        drawn[name].view(-1)[free[torch.randperm(len(free), generator=generator)[: int(m.sum())]]] = True
    return drawn


def in_place(masks, seed):
    drawn = shuffled(masks, seed)
    for name in masks:
        masks[name].copy_(drawn[name])
    return masks


def building(lm):
    return lm, lens.data.knowledge("building"), lens.mask.shipped("building")


@torch.no_grad()
def read(lm, kg, critical, prompts=None, space=True, alone=True):
    """One prompt at a time, in the remaining model."""
    tails = sorted({p.fact.tail for p in kg.target})
    columns = [lm.target_ids(t)[0] if space else lm.encode(t)[0] for t in tails]
    right = 0
    prompts = prompts or kg.unseen
    with critical.removed(lm):
        for p in prompts:
            z = lm.model(torch.tensor([lm.encode(p.text)])).logits[0, -1]
            best = columns[int(z[columns].argmax())] if alone else int(z.argmax())
            right += best == columns[tails.index(p.fact.tail)]
    return right / len(prompts)


def read_the_whole(lm, kg, critical):
    tails = {lm.target_ids(p.fact.tail)[0] for p in kg.target}
    ranks = []
    for p in kg.unseen:
        z = lens.logit_lens(lm, p.text).words[-1][-1][0]
        ranks.append(lm.target_ids(p.fact.tail)[0] in tails and z == lm.word(lm.target_ids(p.fact.tail)[0]))
    return sum(ranks) / len(ranks)


ANSWERS = {
    "nothing": Answers(
        right=[
            math.log(8) - math.log(5) / 4 - math.log(4),
            sum(0.25 * math.log(0.25 / p) for p in (1 / 8, 1 / 8, 1 / 8, 5 / 8)),
            torch.tensor(2.0).log() - torch.tensor(5.0).log() / 4,
        ],
        wrong={
            "KL(p ‖ uniform)": sum(p * math.log(p / 0.25) for p in (1 / 8, 1 / 8, 1 / 8, 5 / 8)),
            "sign is reversed": math.log(4) + math.log(5) / 4 - math.log(8),
            "bits": 1 - math.log2(5) / 4,
            "mean over words": sum(math.log(0.25 / p) for p in (1 / 8, 1 / 8, 1 / 8, 5 / 8)),
            "log V is missing": math.log(8) - math.log(5) / 4,
            "entropy of p": -sum(p * math.log(p) for p in (1 / 8, 1 / 8, 1 / 8, 5 / 8)),
        },
        blind=[math.log(5) / 4, (math.log(8) - math.log(5) / 4 - math.log(4)) / math.log(10)],
    ),
    "loss": Answers(
        right=[three, with_kl_div, row_by_row],
        wrong={
            "Maintain is the wrong way round": lambda *given: three(
                *given, maintain=lambda p0, p: (p.exp() * (p - p0)).sum(-1)
            ),
            "Suppress is the wrong way round": lambda *given: three(
                *given, suppress=lambda q: (q.exp() * q).sum(-1) + math.log(q.shape[-1])
            ),
            "sum over rows": lambda *given: three(*given, reduce=torch.sum),
            "mean over the words": lambda *given: three(*given, maintain=lambda p0, p: (p0.exp() * (p0 - p)).mean(-1)),
            "over rows: it has to go": lambda *given: three(
                *given,
                suppress=lambda q: -q.mean(-1) - math.log(q.shape[-1]),
                maintain=lambda p0, p: (p0.exp() * (p0 - p)).sum(-1),
                dim=0,
            ),
            "sparsity": lambda *given: three(*given, density=lambda score: 1 - score.sigmoid().mean()),
            "hard mask": lambda *given: three(*given, density=lambda score: (score > 0).float().mean()),
            "scores themselves": lambda *given: three(*given, density=torch.mean),
            "NaN": naive,
            "log V is missing in suppress": lambda *given: three(*given, suppress=lambda q: -q.mean(-1)),
            "no slope comes back": lambda *given: three(*given).item(),
            "or to the scores": lambda *given: three(*given, density=lambda score: score.detach().sigmoid().mean()),
        },
        blind=[
            lambda *given: three(*given) / 3,
            lambda *given: three(*given, maintain=lambda p0, p: (p0 - p).square().sum(-1)),
        ],
    ),
    "control": Answers(
        right=[shuffled, by_noise, in_numpy],
        wrong={
            "on average only": tossed,
            "not in each module": all_together,
            "Rows move as a whole": rows_moved,
            "avoid the subnetwork": avoiding,
            "masks that were given are changed": in_place,
            "of one shape": reseeded,
            "Different seeds": lambda masks, seed: shuffled(masks, 0),
            "two different draws": lambda masks, seed: {
                name: m.flatten()[np.random.default_rng().permutation(m.numel())].view(m.shape)
                for name, m in masks.items()
            },
        },
    ),
    "choice": Answers(
        right=[read, lambda *given: torch.tensor(read(*given)), lambda *given: np.float64(read(*given))],
        wrong={
            "the whole model": read_the_whole,
            "leading space": lambda *given: read(*given, space=False),
            "beat all words": lambda *given: read(*given, alone=False),
            "guessing": lambda lm, kg, critical: 1 / len({p.fact.tail for p in kg.target}),
            "percentage": lambda *given: 100 * read(*given),
        },
        context=building,
        computed=True,
    ),
}
