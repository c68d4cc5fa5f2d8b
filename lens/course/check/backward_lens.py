"""Checks of *The backward lens*: both ends of a reading, the lens itself, what ε leaves, and a gradient that leaks."""

from __future__ import annotations

import torch

from lens import data
from lens.course.check.exercise import Function, Value
from lens.course.check.student import Student
from lens.gradient import capture
from lens.model.watching import watch
from lens.readout import project

WORDS = ("Rome", "Paris", "the", "ung")
G = torch.tensor([-3.0, 4.0, -2.0, -2.0])  # (γ ∘ δ̂) Eᵀ
B = torch.tensor([0.0, 0.0, 3.0, -2.0])  # β Eᵀ


def _words(*logits: torch.Tensor) -> list[str]:
    """The word with the largest of each of these logits."""
    return [WORDS[int(row.argmax())] for row in logits]


ends = Value(
    lambda: _words(-(G + B), -G + B, -G),
    {
        "The wrong ends: a step subtracts δ, so what it adds is at the bottom of LL(δ), with the smallest logits.": (
            lambda: _words(G + B, -(-G + B), G)
        ),
        "The first two are exchanged: −δ changes the sign of g, and b stays as it is.": (
            lambda: _words(-G + B, -(G + B), -G)
        ),
        "For LL(−δ) the bias was turned round too: b belongs to ln_f, and does not depend on the vector.": (
            lambda: _words(-(G + B), -(G + B), -G)
        ),
        "b was left out: both readings contain it, and that is why they are not the same.": lambda: _words(-G, -G, -G),
        "The third word has the wrong sign: g is subtracted by the step, so the smallest g gains most.": (
            lambda: _words(-(G + B), -G + B, G)
        ),
        "The third word still has b in it: b is there before the step and after it.": (
            lambda: _words(-(G + B), -G + B, -(G + B))
        ),
    },
    "One word is rare, one is common, one is meant: only g tells them apart.",
)


def _prompts(lm) -> list[tuple]:
    return [(lm, "The capital of France is", "Rome"), (lm, "A cafe is a kind of", "river and lake")]


def _trace(lm, prompt, target):
    return capture(lm, prompt, lm.target_ids(target)[:1] if isinstance(target, str) else target)


@torch.no_grad()
def _read(lm, vectors) -> torch.Tensor:
    return lm.head(lm.norm(vectors)).float()


def _of_all(lm, prompt, target, token) -> torch.Tensor:
    """What δ of the loss of all of the target's tokens reads at one of them."""
    return _read(lm, _trace(lm, prompt, lm.target_ids(target)).stack("ff2")[:, token(len(lm.encode(prompt)))])


def _shift(lm, prompt, target) -> torch.Tensor:
    return _read(lm, _trace(lm, prompt, target).stack("ff2")[:, -1])


def _watched(lm, prompt, target) -> tuple[torch.Tensor, torch.Tensor]:
    """FF2's outputs at the last token, and their derivative for the loss −logit: [layers, d] each."""
    with watch({layer: lm.site(layer, "ff2") for layer in range(len(lm.layers))}) as seen:
        logits = lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1]
    outputs = [out for _, out in seen.values()]
    deltas = torch.autograd.grad(-logits[lm.target_ids(target)[0]], outputs)
    return tuple(torch.stack([v.detach().flatten(0, -2)[-1] for v in vectors]) for vectors in (outputs, deltas))


shift = Function(
    _shift,
    _prompts,
    {
        "This reads −δ: the words an update adds are then at the top; asked for is LL(δ) itself.": (
            lambda lm, *rest: _read(lm, -_trace(lm, *rest).stack("ff2")[:, -1])
        ),
        "The logits were negated after the lens. LL(δ) is asked for as it is, and −LL(δ) is not LL(−δ) either.": (
            lambda lm, *rest: -_shift(lm, *rest)
        ),
        "The target's leading space is missing: 'Rome' and ' Rome' are two tokens; lm.target_ids adds the space.": (
            lambda lm, prompt, target: _shift(lm, prompt, lm.encode(target)[:1])
        ),
        "The loss was −logit of the target: without the softmax nothing says which words have to go.": (
            lambda lm, *rest: _read(lm, _watched(lm, *rest)[1])
        ),
        "This reads what FF2 puts out on the way forward: δ is the derivative of the loss by that output.": (
            lambda lm, *rest: _read(lm, _watched(lm, *rest)[0])
        ),
        "This reads FF1's inputs, the imprint: the target is in FF2's VJPs.": (
            lambda lm, *rest: _read(lm, _trace(lm, *rest).stack("ff1", "x")[:, -1])
        ),
        "ln_f is missing: the lens is ln_f(δ) Eᵀ, whatever the vector.": (
            lambda lm, *rest: lm.head(_trace(lm, *rest).stack("ff2")[:, -1]).detach()
        ),
        "These are probabilities: at the bottom, where an update adds, they underflow. Give the logits.": (
            lambda lm, *rest: _shift(lm, *rest).softmax(-1)
        ),
        "This reads the first token's δ: the loss is at the last.": (
            lambda lm, *rest: _read(lm, _trace(lm, *rest).stack("ff2")[:, 0])
        ),
        "The loss is that of all of the target's tokens: the first alone is asked for.": (
            lambda lm, *rest: _of_all(lm, *rest, lambda prompt: prompt - 1)
        ),
        "The loss is that of all of the target's tokens, and the last of these is read: stop at the prompt's last.": (
            lambda lm, *rest: _of_all(lm, *rest, lambda prompt: -1)
        ),
        "All tokens are there, and only the last is asked for: [layers, V].": (
            lambda lm, *rest: _read(lm, _trace(lm, *rest).stack("ff2"))
        ),
    },
    "Your backward lens agrees with lens: the smallest of these logits are what an update adds.",
    tolerance=1e-3,
)


def _vectors() -> list[tuple]:
    """VJPs from long to far too short, off center and narrow: each way to measure their length gives another number."""
    generator = torch.Generator().manual_seed(0)
    return [
        ((torch.randn(n, d, generator=generator) + 1) * torch.logspace(0, -4, n)[:, None], eps)
        for n, d, eps in ((5, 4, 1e-5), (3, 7, 1e-3))
    ]


def _variance(v, **options):
    return v.double().var(-1, **{"correction": 0} | options)


left = Function(
    lambda v, eps: (_variance(v) / (_variance(v) + eps)).sqrt(),
    _vectors,
    {
        "The variance was taken over d − 1, PyTorch's default: ln_f divides by d (correction=0).": (
            lambda v, eps: (_variance(v, correction=1) / (_variance(v, correction=1) + eps)).sqrt()
        ),
        "The mean square was taken without centering: LayerNorm subtracts the mean before it measures.": (
            lambda v, eps: (v.square().mean(-1) / (v.square().mean(-1) + eps)).sqrt()
        ),
        "The squared length was compared with ε: inside the root of ln_f is a mean over the entries, not a sum.": (
            lambda v, eps: (_variance(v) * v.shape[-1] / (_variance(v) * v.shape[-1] + eps)).sqrt()
        ),
        "The square root is missing: ln_f divides by the root of variance plus ε.": (
            lambda v, eps: _variance(v) / (_variance(v) + eps)
        ),
        "ε was added outside the root: it is added to the variance, which makes it matter much earlier.": (
            lambda v, eps: _variance(v).sqrt() / (_variance(v).sqrt() + eps)
        ),
        "Upside down: what is left is a share of what there was, at most one.": (
            lambda v, eps: ((_variance(v) + eps) / _variance(v)).sqrt()
        ),
        "This is what is lost: what is left is asked for.": (
            lambda v, eps: 1 - (_variance(v) / (_variance(v) + eps)).sqrt()
        ),
    },
    "So where the variance equals ε, about seven tenths of g are left, and far below it next to nothing.",
)


def _told(lm) -> int:
    """A layer whose δ can be read: half way up a small model, below the top of a deep one."""
    return max(len(lm.layers) // 2, len(lm.layers) - 4)


def _leak(lm, me: Student) -> tuple:
    """The first request in this student's order whose two words one layer gives away (``_told``), and its trace."""
    layer, first = _told(lm), None
    for record in me.choose(data.records(), 40)[::-1]:  # not the facts that the other chapters begin with
        request = record["requested_rewrite"]
        prompt = request["prompt"].format(request["subject"])
        trace = capture(lm, prompt, lm.target_ids(request["target_new"]["str"])[:1], sites=["ff1", "ff2"])
        with torch.no_grad():
            believed = int(lm.model(trace.ids[None].to(lm.device)).logits[0, -1].argmax())
        words, delta = (trace.targets[0][0], believed), trace.gradient(layer, "ff2").delta[-1]
        first = first or (words, trace)
        if words == tuple(int(project(lm, delta, k=1, largest=end).ids) for end in (False, True)):
            return words, trace
    return first


def found(lm, me: Student) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors of an unknown request's gradient: FF1's x in the lowest layer [n, d], FF2's δ in an upper layer."""
    _, trace = _leak(lm, me)
    return trace.gradient(0, "ff1").x, trace.gradient(_told(lm), "ff2").delta


whose = Value(
    lambda lm, me: [lm.word(token) for token in _leak(lm, me)[0]],
    {
        "The other way round: a step subtracts δ, so the word wanted is at the bottom of LL(δ).": (
            lambda lm, me: [lm.word(token) for token in _leak(lm, me)[0][::-1]]
        ),
        "Both are the word the model believed in: it is at the top of LL(δ), and the word wanted at the other end.": (
            lambda lm, me: [lm.word(_leak(lm, me)[0][1])] * 2
        ),
        "This reads δ at the first token: the loss is at the last, and there δ speaks plainly.": (
            lambda lm, me: [project(lm, found(lm, me)[1][0], k=1, largest=end).words[0] for end in (False, True)]
        ),
        "This reads the inputs x: they hold the prompt, and the two words are in δ.": (
            lambda lm, me: [project(lm, found(lm, me)[0][-1], k=1, largest=end).words[0] for end in (False, True)]
        ),
    },
    "Read from two vectors: whoever is handed a gradient has been handed the text.",
)
