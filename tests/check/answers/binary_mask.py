"""Answers to the exercises of *Learning a binary mask*."""

import torch
from library import Answers

import lens


class Through(torch.autograd.Function):
    """Straight-through by hand."""

    @staticmethod
    def forward(ctx, W, score, u, tau):
        ctx.save_for_backward(W, score, u)
        ctx.tau = tau
        return torch.where(u > torch.sigmoid(-score), torch.zeros_like(W), W)

    @staticmethod
    def backward(ctx, arriving):
        W, score, u = ctx.saved_tensors
        s = ((score + u.log() - (1 - u).log()) / ctx.tau).sigmoid()
        return None, -arriving * W * s * (1 - s) / ctx.tau, None, None


def with_gumbels(W, score, u, tau):
    """The same noise, written as the paper writes a difference of two logarithms."""
    s = torch.sigmoid((score + torch.log(u / (1 - u))) / tau)
    return W - W * (s + ((s >= 0.5).float() - s).detach())


def in_double(W, score, u, tau):
    s = 1 / (1 + torch.exp(-(score.double() + torch.logit(u.double())) / tau))
    hard = torch.round(s.detach())
    return (1 - (hard - s.detach() + s)) * W.double()


def soft(score, u, tau):
    return torch.sigmoid((score + torch.logit(u)) / tau)


def straight(W, score, u, tau, keep=lambda m: 1 - m, soft=soft):
    s = soft(score, u, tau)
    return W * keep(s + ((s > 0.5).float() - s).detach())


def known(lm):
    kg = lens.data.knowledge("building")
    fact = next(p.fact for p in kg.target if p.fact.head == "cafe")
    return lm, 3 * len(lm.layers) // 4, fact, list(kg.control_held_out[::30])


def again(lm, layer, fact, others, rounds=6, budget=3000, sign=1):
    """Sorting in several rounds, the matrix restored at the end."""
    weight, matrix = lm.site(layer, "ff2").weight, lm.weight(layer, "ff2").detach()
    gone, kept = torch.zeros(matrix.shape, dtype=torch.bool), matrix.clone()
    for _ in range(rounds):
        asked = [p.text for p in lens.data.knowledge("building").target if p.fact == fact]
        logits = torch.stack([lm.model(torch.tensor([lm.encode(text)])).logits[0, -1] for text in asked])
        (slope,) = torch.autograd.grad((logits.logsumexp(-1) - logits.mean(-1)).mean(), weight)
        promised = (sign * matrix * slope).masked_fill(gone, -torch.inf)
        gone.view(-1)[promised.flatten().topk(budget // rounds).indices] = True
        matrix[gone] = 0
    matrix.copy_(kept)
    return gone


ANSWERS = {
    "one_draw": Answers(
        right=[
            [[1, 0, 1], [0, 4, 0], [-0.75, -0.75, 0.75]],
            torch.tensor([[1, 0, 1], [0, 4, 0], [-0.75, -0.75, 0.75]]),
            (torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 4.0, 0.0]), torch.tensor([-3.0, -3.0, 3.0]) / 4),
        ],
        wrong={
            "sign is reversed": [[1, 0, 1], [0, 4, 0], [0.75, 0.75, -0.75]],
            "holds the weights in the mask": [[1, 0, 1], [4, 0, 2], [-0.75, -0.75, 0.75]],
            "hard mask is used": [[1, 0, 1], [1, 3, 0.5], [-0.75, -0.75, 0.75]],
            "taken at σ(l)": [[1, 0, 1], [0, 4, 0], [-1, -1, 0.75]],
            "outside the mask has a slope too": [[1, 0, 1], [0, 4, 0], [-0.75, 0, 0.75]],
            "derivative is zero": [[1, 0, 1], [0, 4, 0], [0, 0, 0]],
        },
        blind=[[[1, 0, 1], [0, 4, 0], [-1, -1, 1]], [[0, 1, 0], [0, 4, 0], [-0.75, -0.75, 0.75]]],
    ),
    "masked": Answers(
        right=[straight, Through.apply, with_gumbels, in_double],
        wrong={
            "nothing comes back": lambda W, score, u, tau: W * (1 - (soft(score, u, tau) > 0.5).float()),
            "soft on the way up": lambda W, score, u, tau: W * (1 - soft(score, u, tau)),
            "keeps the weights in the mask": lambda *given: straight(*given, keep=lambda m: m),
            "wrong sign: it must come back": lambda W, score, u, tau: (
                straight(W, score, u, tau).detach() + W * (soft(score, u, tau) - soft(score, u, tau).detach())
            ),
            "ignores τ": lambda W, score, u, tau: straight(W, score, u, 1.0),
            "that of σ(l/τ)": lambda W, score, u, tau: (
                straight(W, score, u, tau).detach() - W * ((score / tau).sigmoid() - (score / tau).sigmoid().detach())
            ),
            "u was added as it is": lambda *given: straight(
                *given, soft=lambda score, u, tau: torch.sigmoid((score + u) / tau)
            ),
            "noise is missing": lambda *given: straight(*given, soft=lambda score, u, tau: torch.sigmoid(score / tau)),
            "noise has the wrong sign": lambda W, score, u, tau: straight(W, score, 1 - u, tau),
            "taken as one": lambda W, score, u, tau: straight(W, score, u, tau).detach() - W * (score - score.detach()),
        },
    ),
    "trapezoid": Answers(
        right=[[1, 1, 3 / 2, 0, -1], torch.tensor([1, 1, 1.5, 0, -1]), (1.0, 1.0, 1.5, 0.0, -1.0)],
        wrong={
            "slopes at m = 1 alone": [1, 2, 3, 0, -2],
            "were added": [2, 2, 3, 0, -2],
            "Half the slope at m = 1": [0.5, 1, 1.5, 0, -1],
            "in the middle": [1, 1, 0.75, 1.5, 2],
            "last one's sign": [1, 1, 1.5, 0, 1],
        },
        blind=[[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]],
    ),
    "sorted_again": Answers(
        right=[
            again,
            lambda *given: again(*given, rounds=5),
            lambda *given: again(*given, rounds=10, budget=2900),
        ],
        wrong={
            "bool tensor": lambda *given: again(*given, rounds=1).float(),
            "transposed": lambda *given: again(*given, rounds=1).T,
            "than the budget allows": lambda *given: again(*given, rounds=1, budget=9000),
            "Sorting once does better": lambda *given: again(*given, rounds=1, sign=-1),
            "Hardly better": lambda *given: again(*given, rounds=1),
        },
        context=known,
        computed=True,
    ),
}
