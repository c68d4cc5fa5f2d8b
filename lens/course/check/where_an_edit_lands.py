"""Checks of *Where an edit lands*: shares by hand and by segment, who hears an edit where, and a blind spot."""

from __future__ import annotations

from itertools import permutations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import NEGATED, Then
from lens.gradient import capture
from lens.readout.lenses import logit_lens
from lens.readout.segments import SEGMENTS, segments

X = torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 0.0]])  # two tokens, d_in = 3
DELTA = torch.tensor([[1.0, 1.0], [-1.0, 0.0]])  # d_out = 2


def _parts(x, delta, powers=None) -> torch.Tensor:
    """c_i = ⟨x_iᵀδ_i, G⟩ of every token, in float64; or the lengths of x and δ, to these powers, multiplied."""
    x, delta = x.double(), delta.double()
    if powers:
        return x.norm(dim=1) ** powers[0] * delta.norm(dim=1) ** powers[1]
    return ((x @ x.T) * (delta @ delta.T)).sum(1)


def _shares(c) -> torch.Tensor:
    return c / c.sum(0)


def _by_token(powers=None, of=_shares) -> torch.Tensor:
    return of(_parts(X, DELTA, powers))


by_hand = Value(
    _by_token,
    {
        "The tokens were treated as orthogonal: x₁·x₂ and δ₁·δ₂ are not zero, and each cᵢ has a part of the pair.": (
            dict(powers=(2, 2))
        ),
        "Lengths were shared out: it is ‖G‖², a sum over pairs of tokens, that the shares divide.": dict(powers=(1, 1)),
        "Only δ was measured: a token's part of the gradient is xᵢᵀδᵢ, with the length of both.": dict(powers=(0, 1)),
        "These are the cᵢ themselves: their shares of ‖G‖² are asked for.": dict(of=lambda c: c),
        "The cᵢ were divided by ‖G‖: they add up to its square.": dict(of=lambda c: c / c.sum() ** 0.5),
        "A share may be negative, and then another is more than one: no absolute values.": (
            dict(of=lambda c: _shares(c.abs()))
        ),
    },
    "One token carries more than all of it, since the other works against it.",
)


def _by_segment(lm, prompt, subject, target, powers=None, of=_shares, site="ff2", mean=False, space=True, tokens=1):
    """What ``_parts`` gives every token, summed over each segment: [segments, layers]."""
    trace = capture(lm, prompt, (lm.target_ids if space else lm.encode)(target)[:tokens], sites=[site])
    gradients = [trace.gradient(layer, site) for layer in trace.layers]
    values = of(torch.stack([_parts(g.x, g.delta, powers) for g in gradients], dim=1).cpu())  # [n, layers]
    places = torch.tensor([SEGMENTS.index(s) for s in segments(lm, prompt, subject)])
    out = torch.zeros(len(SEGMENTS), len(gradients), dtype=values.dtype).index_add_(0, places, values[: len(places)])
    return out / places.bincount(minlength=len(SEGMENTS)).clamp(min=1)[:, None] if mean else out


carriers = Function(
    _by_segment,
    lambda lm: [
        (lm, "The language of government in Sierra Leone is", "Sierra Leone", "Burmese"),
        (lm, "Lionel Messi is famous for success in the sport of", "Lionel Messi", "hockey and chess"),
        (lm, "In business directories, the home city of Ralph Lauren is given as", "Ralph Lauren", "Seoul"),
    ],
    {
        "The mean over a segment's tokens was taken: a segment carries the sum of what its tokens carry.": (
            dict(mean=True)
        ),
        "Each token was counted by ‖xᵢᵀδᵢ‖² alone: the products of different tokens are missing.": dict(powers=(2, 2)),
        "Lengths were shared out: they do not add up to ‖G‖, and their squares only nearly to ‖G‖².": (
            dict(powers=(1, 1))
        ),
        "A share can be negative, where a segment works against the rest: keep the sign.": Then(torch.abs),
        "Only ‖δ‖ was measured: it says how the loss reacts; what the matrix receives has x in it too.": (
            dict(powers=(0, 1))
        ),
        "Only ‖δ‖² was measured: it says how the loss reacts; what the matrix receives has x in it too.": (
            dict(powers=(0, 2))
        ),
        "These are the cᵢ, summed by segment: divide each layer's by its ‖G‖², so that its column adds up to one.": (
            dict(of=lambda c: c)
        ),
        "All layers were put on one scale: each layer's own ‖G‖² is shared out, so each column adds up to one.": (
            dict(of=lambda c: c / c.sum())
        ),
        "The rows add up to one here: within a layer the segments share, so it is the columns that have to.": (
            lambda *given: torch.nn.functional.normalize(_by_segment(*given, of=lambda c: c), p=1, dim=1)
        ),
        "The target's leading space is missing: another token has another gradient; lm.target_ids adds the space.": (
            dict(space=False)
        ),
        "The loss is that of all of the target's tokens: the first alone is asked for.": dict(tokens=None),
        "The last token was given everything: earlier tokens reach the loss through attention.": (
            dict(of=lambda c: torch.eye(len(c), dtype=c.dtype)[:, -1:].expand_as(c))
        ),
        "This is FF1's gradient; asked for is FF2's.": dict(site="ff1"),
    },
    "Your map shares out the whole of every layer's gradient, down to the last token.",
    tolerance=1e-3,
)

PLACES = ("subject last", "last token")


def _heard(lm, own, other, site="ff2", cosine=False, swap=False) -> torch.Tensor:
    """x′·x/‖x‖² at the two places, for pairs (text, subject): [places, layers]."""
    rows = []
    for text, subject in (own, other):
        cut = segments(lm, text, subject)
        x = capture(lm, text, 0, sites=[site]).stack(site, "x").double()  # [layers, n, d_in]
        rows.append(torch.stack([x[:, cut.index(place)] for place in PLACES]))
    x, other = rows[::-1] if swap else rows
    dot = (x * other).sum(-1)
    return dot / (x.norm(dim=-1) * other.norm(dim=-1)) if cosine else dot / (x * x).sum(-1)


def _gap(lm, texts, **options) -> torch.Tensor:
    own, paraphrase, other = texts
    return _heard(lm, own, paraphrase, **options) - _heard(lm, own, other, **options)


place = Value(
    _gap,
    {
        "The two rows are exchanged: the subject's last token comes first.": Then(lambda gap: gap.flip(0)),
        "This is what the paraphrase hears; what the other subject hears has to be subtracted.": (
            lambda lm, texts: _heard(lm, *texts[:2])
        ),
        "This is what the other subject hears; asked for is by how much the paraphrase is ahead of it.": (
            lambda lm, texts: _heard(lm, texts[0], texts[2])
        ),
        "The sign is reversed: the paraphrase minus the other subject.": NEGATED,
        "These are cosines: what an input hears also depends on its length, x′·x/‖x‖².": dict(cosine=True),
        "Divided by the wrong length: the x that was written is the edited prompt's, so ‖x‖² is its own.": (
            dict(swap=True)
        ),
        "These are FF1's inputs; asked for are FF2's.": dict(site="ff1"),
    },
    "A table to choose a place by: above zero the edit reaches its own fact first.",
    tolerance=1e-3,
)


def _said(lm, prompt) -> str:
    return logit_lens(lm, prompt, k=1).words[-1][-1][0].strip("· ").lower()


def _same_input(answer, lm) -> bool:
    """Whether one prompt hears all that is written at the other's last token of the subject, in every layer."""
    subject, *prompts = answer
    return (_heard(lm, *((prompt, subject) for prompt in prompts))[0] - 1).abs().max() < 1e-3


blind_spot = Claims(
    {
        "Three texts are asked for: the subject, and two prompts about it.": (
            lambda answer, lm: len(answer) == 3 and all(isinstance(text, str) and lm.encode(text) for text in answer)
        ),
        "Both prompts have to hold the subject, as it is written, and go on after it.": (
            lambda answer, lm: all("subject last" in segments(lm, prompt, answer[0]) for prompt in answer[1:])
        ),
        "One prompt is the beginning of the other: that is one question, asked further along.": (
            lambda answer, lm: not any(a.startswith(b) for a, b in permutations(map(str.strip, answer[1:])))
        ),
        "The model gives both prompts the same answer: ask two questions that have different ones.": (
            lambda answer, lm: len({_said(lm, prompt) for prompt in answer[1:]}) == 2
        ),
        "At the subject's last token the two inputs are not the same in all layers: what has been read by then?": (
            _same_input
        ),
    },
    "Whatever is written at that token, both questions hear all of it: the model has not read them yet.",
)
