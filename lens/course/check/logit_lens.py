"""Checks of *Logit lens*: a reading by hand, the lens itself, when a fact settles, a layer sure and wrong."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
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
    """The residual stream after each layer at the last token, [layers, d]."""
    return logit_lens(lm, prompt, k=1).vectors[:, -1]


@torch.no_grad()
def _probabilities(lm, prompt) -> torch.Tensor:
    return lm.head(lm.norm(_stream(lm, prompt))).float().softmax(-1)


@torch.no_grad()
def _last_twice(lm, prompt) -> torch.Tensor:
    normed = lm.norm(_stream(lm, prompt))
    normed[-1] = lm.norm(normed[-1])
    return lm.head(normed).float().softmax(-1)


@torch.no_grad()
def _hidden_states(lm, prompt) -> torch.Tensor:
    ids = torch.tensor([lm.encode(prompt)], device=lm.device)
    states = lm.model(ids, output_hidden_states=True).hidden_states
    return lm.head(lm.norm(torch.stack([s[0, -1] for s in states]))).float().softmax(-1)


@torch.no_grad()
def _one_scale(lm, prompt) -> torch.Tensor:
    h = _stream(lm, prompt)
    shift = lm.norm(torch.zeros_like(h))  # ln_f's bias, if it has one
    centered = h - h.mean(-1, keepdim=True) if lm.norm(torch.ones_like(h)).allclose(shift, atol=1e-3) else h
    length = centered.float().norm(dim=-1, keepdim=True)
    normed = (lm.norm(h) - shift) * (length / length[-1]).to(h) + shift
    return lm.head(normed).float().softmax(-1)


@torch.no_grad()
def _at_all_tokens(lm, prompt) -> torch.Tensor:
    return lm.head(lm.norm(logit_lens(lm, prompt, k=1).vectors)).float().softmax(-1)


@torch.no_grad()
def _logits_of(lm, prompt) -> torch.Tensor:
    return lm.head(lm.norm(_stream(lm, prompt))).float()


@torch.no_grad()
def _without_norm(lm, prompt) -> torch.Tensor:
    return lm.head(_stream(lm, prompt)).float().softmax(-1)


probabilities = Function(
    _probabilities,
    lambda lm: [(lm, "The capital of France is"), (lm, "A cafe is a kind of")],
    {
        "The last layer went through ln_f twice: the last of transformers' hidden_states has it behind it already.": (
            _last_twice
        ),
        "One row too many: the first of transformers' hidden_states is the embedding.": _hidden_states,
        "This leaves out the last layer and begins with the embedding: row 0 is what layer 0 puts out.": (
            lambda lm, prompt: _hidden_states(lm, prompt)[:-1]
        ),
        "ln_f is missing: the unembedding expects normalized vectors, whatever layer they come from.": _without_norm,
        "All rows were divided by the last layer's scale: ln_f is computed for every row on its own.": _one_scale,
        "The softmax ran over the layers: in each layer the probabilities of all words must add up to one.": (
            lambda lm, prompt: _logits_of(lm, prompt).softmax(0)
        ),
        "These are logits: the softmax over the words is missing.": _logits_of,
        "These are log-probabilities: what is asked for is the softmax itself.": (
            lambda lm, prompt: _logits_of(lm, prompt).log_softmax(-1)
        ),
        "This reads the first token's stream: what comes next is in the last token's.": (
            lambda lm, prompt: _at_all_tokens(lm, prompt)[:, 0]
        ),
        "All tokens are there, and only the last is asked for: [layers, V].": _at_all_tokens,
    },
    "Your lens reads what lens.logit_lens reads, and its last layer is the model itself.",
    tolerance=1e-3,
)


def _ranks(lm, record) -> list[list[int]]:
    request = record["requested_rewrite"]
    texts = request["prompt"].format(request["subject"]), record["paraphrase_prompts"][-1]
    return [logit_lens(lm, t, target=request["target_true"]["str"], k=1).ranks[:, -1].tolist() for t in texts]


def _settled(ranks: list[list[int]]) -> list[int]:
    """For each list of ranks, the first index from which all are 0; its length if the last is not."""
    return [next((i for i in range(len(r)) if not any(r[i:])), len(r)) for r in ranks]


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
    [
        (_is_text, "A prompt is asked for: one text of at least one word."),
        (
            _sure_at_the_end,
            "The model itself is not sure after this prompt: its first word has less than half. Try a fact it knows.",
        ),
        (
            _sure_before,
            "The model is sure at the end, but of the upper half no layer below the last is sure of any word.",
        ),
        (
            _changes_its_mind,
            "Layers of the upper half are sure here, but of the word that the model says: they are right, not wrong.",
        ),
    ],
    "A layer sure of one word under a model that says another: a reading is not yet an output.",
)
