"""Checks of *The backward lens*: both ends of a reading, the lens itself, what ε leaves, and a gradient that leaks."""

from __future__ import annotations

from functools import partial

import torch

from lens import data
from lens.course.check.exercise import Function, Value
from lens.course.check.mistakes import COMPLEMENT, NEGATED, NO_SPACE, SWAPPED, Then
from lens.course.check.seeded import seeded
from lens.course.check.student import Student
from lens.edit import Request
from lens.gradient import capture
from lens.model.watching import watch
from lens.readout import project

WORDS = ("Rome", "Paris", "the", "ung")
G = torch.tensor([-3.0, 4.0, -2.0, -2.0])  # (γ ∘ δ̂) Eᵀ
B = torch.tensor([0.0, 0.0, 3.0, -2.0])  # β Eᵀ


def _ends(first=-(G + B), second=B - G, third=-G) -> list[str]:
    """The word with the largest of each of these logits."""
    return [WORDS[int(logits.argmax())] for logits in (first, second, third)]


ends = Value(
    _ends,
    {
        "The wrong ends: a step subtracts δ, so what it adds is at the bottom of LL(δ), with the smallest logits.": (
            lambda: _ends(G + B, G - B, G)
        ),
        "The first two are exchanged: −δ changes the sign of g, and b stays as it is.": lambda: _ends(B - G, -(G + B)),
        "For LL(−δ) the bias was turned round too: b belongs to ln_f, and does not depend on the vector.": (
            dict(second=-(G + B))
        ),
        "b was left out: both readings contain it, and that is why they are not the same.": dict(first=-G, second=-G),
        "The third word has the wrong sign: g is subtracted by the step, so the smallest g gains most.": dict(third=G),
        "The third word still has b in it: b is there before the step and after it.": dict(third=-(G + B)),
    },
    "One word is rare, one is common, one is meant: only g tells them apart.",
)


def _read(lm, vectors, norm=True) -> torch.Tensor:
    with torch.no_grad():
        return lm.head(lm.norm(vectors) if norm else vectors).float()


def _shift(lm, prompt, target, factor=("ff2", "delta"), sign=1, norm=True, space=True, tokens=1, at=None):
    """What the lens reads, in every layer, from a site's factor at a token (the prompt's last): [layers, V]."""
    trace = capture(lm, prompt, (lm.target_ids if space else lm.encode)(target)[:tokens])
    at = len(lm.encode(prompt)) - 1 if at is None else at
    return _read(lm, sign * trace.stack(*factor)[:, at], norm)


def _watched(lm, prompt, target, forward=False) -> torch.Tensor:
    """What it reads from FF2's outputs (``forward``), or from their derivatives for the loss −logit."""
    with watch({layer: lm.site(layer, "ff2") for layer in range(len(lm.layers))}) as seen:
        logits = lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1]
    outputs = [out for _, out in seen.values()]
    vectors = outputs if forward else torch.autograd.grad(-logits[lm.target_ids(target)[0]], outputs)
    return _read(lm, torch.stack([v.flatten(0, -2)[-1] for v in vectors]))


shift = Function(
    _shift,
    lambda lm: [(lm, "The capital of France is", "Rome"), (lm, "A cafe is a kind of", "river and lake")],
    {
        "This reads −δ: the words an update adds are then at the top; asked for is LL(δ) itself.": dict(sign=-1),
        "The logits were negated after the lens. LL(δ) is asked for as it is, and −LL(δ) is not LL(−δ) either.": (
            NEGATED
        ),
        NO_SPACE: dict(space=False),
        "The loss was −logit of the target: without the softmax nothing says which words have to go.": _watched,
        "This reads what FF2 puts out on the way forward: δ is the derivative of the loss by that output.": (
            partial(_watched, forward=True)
        ),
        "This reads FF1's inputs, the imprint: the target is in FF2's VJPs.": dict(factor=("ff1", "x")),
        "ln_f is missing: the lens is ln_f(δ) Eᵀ, whatever the vector.": dict(norm=False),
        "These are probabilities: at the bottom, where an update adds, they underflow. Give the logits.": (
            Then(lambda logits: logits.softmax(-1))
        ),
        "This reads the first token's δ: the loss is at the last.": dict(at=0),
        "The loss is that of all of the target's tokens: the first alone is asked for.": dict(tokens=None),
        "The loss is that of all of the target's tokens, and the last of these is read: stop at the prompt's last.": (
            dict(tokens=None, at=-1)
        ),
        "All tokens are there, and only the last is asked for: [layers, V].": dict(at=slice(None)),
    },
    "Your backward lens agrees with lens: the smallest of these logits are what an update adds.",
    tolerance=1e-3,
)


def _vectors() -> list[tuple]:
    """VJPs from long to far too short, off center and narrow: each way to measure their length gives another number."""
    draw, sizes = seeded(), ((5, 4, 1e-5), (3, 7, 1e-3))
    return [((draw(n, d) + 1) * torch.logspace(0, -4, n)[:, None], eps) for n, d, eps in sizes]


def _variance(v, correction=0):
    return v.double().var(-1, correction=correction)


def _left(v, eps, size=_variance, share=lambda size, eps: (size / (size + eps)).sqrt()):
    return share(size(v), eps)


left = Function(
    _left,
    _vectors,
    {
        "The variance was taken over d − 1, PyTorch's default: ln_f divides by d (correction=0).": (
            dict(size=lambda v: _variance(v, correction=1))
        ),
        "The mean square was taken without centering: LayerNorm subtracts the mean before it measures.": (
            dict(size=lambda v: v.double().square().mean(-1))
        ),
        "The squared length was compared with ε: inside the root of ln_f is a mean over the entries, not a sum.": (
            dict(size=lambda v: _variance(v) * v.shape[-1])
        ),
        "The square root is missing: ln_f divides by the root of variance plus ε.": Then(torch.square),
        "ε was added outside the root: it is added to the variance, which makes it matter much earlier.": (
            dict(share=lambda size, eps: size.sqrt() / (size.sqrt() + eps))
        ),
        "Upside down: what is left is a share of what there was, at most one.": Then(torch.reciprocal),
        "This is what is lost: what is left is asked for.": COMPLEMENT,
    },
    "So where the variance equals ε, about seven tenths of g are left, and far below it next to nothing.",
)


def _told(lm) -> int:
    """A layer whose δ can be read: half way up a small model, below the top of a deep one."""
    return max(len(lm.layers) // 2, len(lm.layers) - 4)


def _meant(lm, vector) -> list[int]:
    """The words at both ends of a reading: the one wanted, and the one believed in."""
    return [int(project(lm, vector, k=1, largest=end).ids) for end in (False, True)]


def _leak(lm, me: Student) -> tuple:
    """The first request in this student's order whose two words one layer gives away (``_told``), and its trace."""
    first = None
    for record in me.choose(data.records(), 40)[::-1]:  # not the facts that the other chapters begin with
        request = Request.from_record(record)
        target = lm.target_ids(request.target_new)[:1]
        trace = capture(lm, request.text, target, sites=["ff1", "ff2"])
        with torch.no_grad():
            believed = int(lm.model(trace.ids[None].to(lm.device)).logits[0, -1].argmax())
        found = [*target, believed], trace
        if found[0] == _meant(lm, trace.gradient(_told(lm), "ff2").delta[-1]):
            return found
        first = first or found
    return first


def found(lm, me: Student) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors of an unknown request's gradient: FF1's x in the lowest layer [n, d], FF2's δ in an upper layer."""
    _, trace = _leak(lm, me)
    return trace.gradient(0, "ff1").x, trace.gradient(_told(lm), "ff2").delta


whose = Value(
    lambda lm, me: lm.words(_leak(lm, me)[0]),
    {
        "The other way round: a step subtracts δ, so the word wanted is at the bottom of LL(δ).": SWAPPED,
        "Both are the word the model believed in: it is at the top of LL(δ), and the word wanted at the other end.": (
            Then(lambda words: [words[1]] * 2)
        ),
        "This reads δ at the first token: the loss is at the last, and there δ speaks plainly.": (
            lambda lm, me: lm.words(_meant(lm, found(lm, me)[1][0]))
        ),
        "This reads the inputs x: they hold the prompt, and the two words are in δ.": (
            lambda lm, me: lm.words(_meant(lm, found(lm, me)[0][-1]))
        ),
    },
    "Read from two vectors: whoever is handed a gradient has been handed the text.",
)
