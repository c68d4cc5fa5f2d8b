"""Checks of *Logit lens*: a reading by hand, the lens itself, when a fact settles, a layer sure and wrong."""

from __future__ import annotations

import torch

from lens import data
from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.student import Student
from lens.readout.lenses import logit_lens

E = [[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, -3.0], [1.0, -1.0]]  # five words, d = 2
V = [5.0, 1.0]


def _logits(vector) -> torch.Tensor:
    return torch.tensor(E) @ torch.as_tensor(vector)


def _normed() -> torch.Tensor:
    v = torch.tensor(V)
    return (v - v.mean()) / v.std(correction=0)


def _above(logits: torch.Tensor) -> torch.Tensor:
    """How many logits are strictly larger, for each."""
    return (logits[None] > logits[:, None]).sum(1)


by_hand = Value(
    lambda: _above(_logits(_normed())),
    {
        "This is the order without ln_f, or with one that only rescales: LayerNorm first subtracts the mean.": (
            lambda: _above(_logits(V))
        ),
        "Upside down: the rank counts the words with a strictly larger logit, so that the top has rank 0.": (
            lambda: _above(-_logits(_normed()))
        ),
        "Counted from one: a rank is the number of words above, and above the top word there is none.": (
            lambda: _above(_logits(_normed())) + 1
        ),
        "Two words have the same logit, and neither is above the other: equal logits, equal ranks.": (
            lambda: _logits(_normed()).argsort(descending=True, stable=True).argsort()
        ),
        "Both words of the tie were counted against each other: only strictly larger logits count.": (
            lambda: (_logits(_normed())[None] >= _logits(_normed())[:, None]).sum(1) - 1
        ),
        "This lists the words from the top down; asked for is the rank of each word, in the order of the table.": (
            lambda: _logits(_normed()).argsort(descending=True, stable=True)
        ),
        "These are the logits: for each of them count how many are strictly larger.": lambda: _logits(_normed()),
    },
    "Centered, scaled, multiplied, counted: that is the whole lens, ties included.",
)


@torch.no_grad()
def _stream(lm, prompt) -> torch.Tensor:
    """The residual stream after each layer, [layers, n, d]."""
    return logit_lens(lm, prompt, k=1).vectors


@torch.no_grad()
def _passing(lm, prompt, site, entering=False) -> torch.Tensor:
    """What a site of each layer puts out, or what enters it: [layers, n, width]."""
    seen = []
    hooks = [
        lm.site(layer, site).register_forward_hook(
            lambda module, args, z: seen.append((args[0] if entering else z).flatten(0, -2))
        )
        for layer in range(len(lm.layers))
    ]
    try:
        lm.model(torch.tensor([lm.encode(prompt)], device=lm.device))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen)


def _between(lm, prompt) -> torch.Tensor:
    """The residual stream between the attention and the MLP of each layer, [layers, n, d]."""
    return _stream(lm, prompt) - _passing(lm, prompt, "ff2")


@torch.no_grad()
def _states(lm, prompt) -> torch.Tensor:
    """What transformers calls hidden states: the embedding, each layer's output, the last one normalized."""
    ids = torch.tensor([lm.encode(prompt)], device=lm.device)
    return torch.stack([s[0] for s in lm.model(ids, output_hidden_states=True).hidden_states])


@torch.no_grad()
def _said(lm, h, normed=True, token=-1) -> torch.Tensor:
    """The logits that the lens reads from streams [layers, n, d], at a token."""
    h = h if token is None else h[:, token]
    return lm.head(lm.norm(h) if normed else h).float()


def _reading(stream, **options):
    """The probabilities of all words, read from a stream that is a function of the model and the prompt."""
    return lambda lm, prompt: _said(lm, stream(lm, prompt), **options).softmax(-1)


_probabilities = _reading(_stream)

after_attention = Function(
    _reading(_between),
    lambda lm: [(lm, "The capital of France is"), (lm, "A cafe is a kind of")],
    {
        "This reads the end of each layer: the MLP has added its part, and has to be left out.": _probabilities,
        "This reads the beginning of each layer: its attention has not added anything yet.": (
            _reading(lambda lm, prompt: _states(lm, prompt)[:-1])
        ),
        "This reads what the attention adds, alone: the stream also carries all that was there before.": (
            _reading(lambda lm, prompt: _passing(lm, prompt, "attn_out"))
        ),
        "This reads what the MLP adds, alone: asked for is the stream without it.": (
            _reading(lambda lm, prompt: _passing(lm, prompt, "ff2"))
        ),
        "This reads FF1's input: the layer's own norm has changed it, and the lens has another norm.": (
            _reading(lambda lm, prompt: _passing(lm, prompt, "ff1", entering=True))
        ),
        "The MLP's part was added once more: it is in the layer's output already, so take it away.": (
            _reading(lambda lm, prompt: _stream(lm, prompt) + _passing(lm, prompt, "ff2"))
        ),
        "The last layer went through ln_f too early: the last of transformers' hidden_states has it behind it.": (
            _reading(lambda lm, prompt: _states(lm, prompt)[1:] - _passing(lm, prompt, "ff2"))
        ),
        "ln_f is missing: the unembedding expects normalized vectors, wherever in the layer they come from.": (
            _reading(_between, normed=False)
        ),
        "These are transformers' hidden_states[1:]: each is a layer's end, and the last went through ln_f twice.": (
            _reading(lambda lm, prompt: _states(lm, prompt)[1:])
        ),
        "These are transformers' hidden_states[1:] without ln_f: each is the end of a layer, not the middle.": (
            _reading(lambda lm, prompt: _states(lm, prompt)[1:], normed=False)
        ),
        "The softmax ran over the layers: in each layer the probabilities of all words must add up to one.": (
            lambda lm, prompt: _said(lm, _between(lm, prompt)).softmax(0)
        ),
        "These are logits: the softmax over the words is missing.": (
            lambda lm, prompt: _said(lm, _between(lm, prompt))
        ),
        "These are log-probabilities: what is asked for is the softmax itself.": (
            lambda lm, prompt: _said(lm, _between(lm, prompt)).log_softmax(-1)
        ),
        "This reads the first token's stream: what comes next is in the last token's.": _reading(_between, token=0),
        "All tokens are there, and only the last is asked for: [layers, V].": _reading(_between, token=None),
    },
    "That is the stream between attention and MLP: now see which of the two brings the answer to the top.",
    tolerance=1e-3,
)


def _ranks(lm, record) -> list[list[int]]:
    request = record["requested_rewrite"]
    texts = request["prompt"].format(request["subject"]), record["paraphrase_prompts"][-1]
    return [logit_lens(lm, t, target=request["target_true"]["str"], k=1).ranks[:, -1].tolist() for t in texts]


def _settled(ranks: list[list[int]]) -> list[int]:
    """For each list of ranks, the first index from which all are 0; its length if the last is not."""
    return [next((i for i in range(len(r)) if not any(r[i:])), len(r)) for r in ranks]


def told(lm, me: Student) -> dict:
    """The first record in this student's order whose fact settles at two heights in its two phrasings."""
    records = me.choose(data.records(), 40)
    return next((r for r in records if len(set(_settled(_ranks(lm, r)))) == 2), records[0])


settles = Value(
    lambda lm, record: _settled(_ranks(lm, record)),
    {
        "That is where the answer first reaches first place; later it loses it again. Settled means: for good.": (
            lambda lm, record: [r.index(0) if 0 in r else len(r) for r in _ranks(lm, record)]
        ),
        "Layers are counted from zero here: yours are all one too high.": (
            lambda lm, record: [layer + 1 for layer in _settled(_ranks(lm, record))]
        ),
        "Off by one: this is the last layer in which the answer is not yet first.": (
            lambda lm, record: [layer - 1 for layer in _settled(_ranks(lm, record))]
        ),
        "It does settle. Did you follow target_true, and with its leading space (lm.target_ids adds it)?": (
            lambda lm, record: [len(lm.layers)] * 2
        ),
        "Right, but the other way round: the short phrasing comes first.": (
            lambda lm, record: _settled(_ranks(lm, record))[::-1]
        ),
    },
    "So one fact settles at two heights: where it becomes visible is a matter of the wording too.",
)


def _top(lm, prompt) -> tuple[list[int], list[float]]:
    """The word that comes first in each layer after the prompt, and its probability."""
    best = _probabilities(lm, prompt).max(-1)
    return best.indices.tolist(), best.values.tolist()


def _is_text(answer, lm) -> bool:
    return isinstance(answer, str) and bool(lm.encode(answer))


def _sure_at_the_end(answer, lm) -> bool:
    return _top(lm, answer)[1][-1] > 0.5


def _sure_before(answer, lm) -> bool:
    return any(p > 0.5 for p in _top(lm, answer)[1][len(lm.layers) // 2 : -1])


def _changes_its_mind(answer, lm) -> bool:
    words, p = _top(lm, answer)
    return any(p[i] > 0.5 and words[i] != words[-1] for i in range(len(words) // 2, len(words) - 1))


sure_and_wrong = Claims(
    {
        "A prompt is asked for: one text of at least one word.": _is_text,
        "The model itself is not sure after this prompt: its first word has less than half. Try a fact it knows.": (
            _sure_at_the_end
        ),
        "The model is sure at the end, but of the upper half no layer below the last is sure of any word.": (
            _sure_before
        ),
        "Layers of the upper half are sure here, but of the word that the model says: they are right, not wrong.": (
            _changes_its_mind
        ),
    },
    "A layer sure of one word under a model that says another: a reading is not yet an output.",
)
