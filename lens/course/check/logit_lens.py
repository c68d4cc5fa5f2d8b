"""Checks of *Logit lens*: a reading by hand, the lens itself, when a fact settles, a layer sure and wrong."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from lens import data
from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import SWAPPED, Then
from lens.course.check.student import Student
from lens.edit import Request
from lens.model.watching import watch
from lens.readout.lenses import logit_lens

E = [[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, -3.0], [1.0, -1.0]]  # five words, d = 2
V = [5.0, 1.0]


def _logits(normed=True) -> torch.Tensor:
    v = torch.tensor(V)
    return torch.tensor(E) @ ((v - v.mean()) / v.std(correction=0) if normed else v)


def _above(logits: torch.Tensor) -> torch.Tensor:
    """How many logits are strictly larger, for each."""
    return (logits[None] > logits[:, None]).sum(1)


by_hand = Value(
    lambda: _above(_logits()),
    {
        "This is the order without ln_f, or with one that only rescales: LayerNorm first subtracts the mean.": (
            lambda: _above(_logits(normed=False))
        ),
        "Upside down: the rank counts the words with a strictly larger logit, so that the top has rank 0.": (
            lambda: _above(-_logits())
        ),
        "Counted from one: a rank is the number of words above, and above the top word there is none.": (
            Then(lambda ranks: ranks + 1)
        ),
        "Two words have the same logit, and neither is above the other: equal logits, equal ranks.": (
            lambda: _logits().argsort(descending=True, stable=True).argsort()
        ),
        "Both words of the tie were counted against each other: only strictly larger logits count.": (
            lambda: (_logits()[None] >= _logits()[:, None]).sum(1) - 1
        ),
        "This lists the words from the top down; asked for is the rank of each word, in the order of the table.": (
            lambda: _logits().argsort(descending=True, stable=True)
        ),
        "These are the logits: for each of them count how many are strictly larger.": _logits,
    },
    "Centered, scaled, multiplied, counted: that is the whole lens, ties included.",
)


def _inside(lm, prompt) -> SimpleNamespace:
    """[layers, n, width] each: the stream behind every layer; transformers' hidden states, of which the first is the
    embedding and the last is normalized; what attention and MLP put out; and FF1's input."""
    depth, ids = range(len(lm.layers)), torch.tensor([lm.encode(prompt)], device=lm.device)
    with watch({(site, i): lm.site(i, site) for site in ("attn_out", "ff1", "ff2") for i in depth}) as seen:
        states = torch.stack([s[0] for s in lm.model(ids, output_hidden_states=True).hidden_states])
    sides = {"attention": ("attn_out", 1), "mlp": ("ff2", 1), "normed": ("ff1", 0)}
    parts = {k: torch.stack([seen[site, i][side].flatten(0, -2) for i in depth]) for k, (site, side) in sides.items()}
    return SimpleNamespace(stream=logit_lens(lm, prompt, k=1).vectors, states=states, **parts)


@torch.no_grad()
def _read(lm, prompt, h=lambda at: at.stream - at.mlp, norm=True, token=-1, of=lambda z: z.softmax(-1)):
    """What the lens reads at a token, in the middle of each layer or elsewhere: [layers, V]."""
    vectors = h(_inside(lm, prompt))
    vectors = vectors if token is None else vectors[:, token]
    return of(lm.head(lm.norm(vectors) if norm else vectors).float())


after_attention = Function(
    _read,
    lambda lm: [(lm, "The capital of France is"), (lm, "A cafe is a kind of")],
    {
        "This reads the end of each layer: the MLP has added its part, and has to be left out.": (
            dict(h=lambda at: at.stream)
        ),
        "This reads the beginning of each layer: its attention has not added anything yet.": (
            dict(h=lambda at: at.states[:-1])
        ),
        "This reads what the attention adds, alone: the stream also carries all that was there before.": (
            dict(h=lambda at: at.attention)
        ),
        "This reads what the MLP adds, alone: asked for is the stream without it.": dict(h=lambda at: at.mlp),
        "This reads FF1's input: the layer's own norm has changed it, and the lens has another norm.": (
            dict(h=lambda at: at.normed)
        ),
        "The MLP's part was added once more: it is in the layer's output already, so take it away.": (
            dict(h=lambda at: at.stream + at.mlp)
        ),
        "The last layer went through ln_f too early: the last of transformers' hidden_states has it behind it.": (
            dict(h=lambda at: at.states[1:] - at.mlp)
        ),
        "ln_f is missing: the unembedding expects normalized vectors, wherever in the layer they come from.": (
            dict(norm=False)
        ),
        "These are transformers' hidden_states[1:]: each is a layer's end, and the last went through ln_f twice.": (
            dict(h=lambda at: at.states[1:])
        ),
        "These are transformers' hidden_states[1:] without ln_f: each is the end of a layer, not the middle.": (
            dict(h=lambda at: at.states[1:], norm=False)
        ),
        "The softmax ran over the layers: in each layer the probabilities of all words must add up to one.": (
            dict(of=lambda z: z.softmax(0))
        ),
        "These are logits: the softmax over the words is missing.": dict(of=lambda z: z),
        "These are log-probabilities: what is asked for is the softmax itself.": dict(of=lambda z: z.log_softmax(-1)),
        "This reads the first token's stream: what comes next is in the last token's.": dict(token=0),
        "All tokens are there, and only the last is asked for: [layers, V].": dict(token=None),
    },
    "That is the stream between attention and MLP: now see which of the two brings the answer to the top.",
    tolerance=1e-3,
)


def _ranks(lm, record) -> list[list[int]]:
    request = Request.from_record(record)
    texts = request.text, record["paraphrase_prompts"][-1]
    return [logit_lens(lm, text, target=request.target_true, k=1).ranks[:, -1].tolist() for text in texts]


def _settled(lm, record) -> list[int]:
    """For each phrasing, the first layer from which all ranks are 0; the number of layers if the last is not."""
    return [next((i for i in range(len(r)) if not any(r[i:])), len(r)) for r in _ranks(lm, record)]


def told(lm, me: Student) -> dict:
    """The first record in this student's order whose fact settles at two heights in its two phrasings."""
    records = me.choose(data.records(), 40)
    return next((record for record in records if len(set(_settled(lm, record))) == 2), records[0])


settles = Value(
    _settled,
    {
        "That is where the answer first reaches first place; later it loses it again. Settled means: for good.": (
            lambda lm, record: [r.index(0) if 0 in r else len(r) for r in _ranks(lm, record)]
        ),
        "Layers are counted from zero here: yours are all one too high.": Then(lambda layers: [i + 1 for i in layers]),
        "Off by one: this is the last layer in which the answer is not yet first.": (
            Then(lambda layers: [i - 1 for i in layers])
        ),
        "It does settle. Did you follow target_true, and with its leading space (lm.target_ids adds it)?": (
            lambda lm, record: [len(lm.layers)] * 2
        ),
        "Right, but the other way round: the short phrasing comes first.": SWAPPED,
    },
    "So one fact settles at two heights: where it becomes visible is a matter of the wording too.",
)


def _sure(prompt, lm) -> list[int | None]:
    """In each layer of the upper half, the word that has more than half of the probability."""
    read = logit_lens(lm, prompt, k=1, position=-1)
    found = zip(read.ids.flatten().tolist(), read.probabilities.flatten().tolist())
    return [word if p > 0.5 else None for word, p in found][len(lm.layers) // 2 :]


sure_and_wrong = Claims(
    {
        "A prompt is asked for: one text of at least one word.": (
            lambda answer, lm: isinstance(answer, str) and lm.encode(answer)
        ),
        "The model itself is not sure after this prompt: its first word has less than half. Try a fact it knows.": (
            lambda answer, lm: _sure(answer, lm)[-1] is not None
        ),
        "The model is sure at the end, but of the upper half no layer below the last is sure of any word.": (
            lambda answer, lm: any(word is not None for word in _sure(answer, lm)[:-1])
        ),
        "Layers of the upper half are sure here, but of the word that the model says: they are right, not wrong.": (
            lambda answer, lm: not {*_sure(answer, lm)} <= {None, _sure(answer, lm)[-1]}
        ),
    },
    "A layer sure of one word under a model that says another: a reading is not yet an output.",
)
