"""Answers to the exercises of *Logit lens*."""

import torch
from library import Answers

import lens


def ids(lm, prompt):
    return torch.tensor([lm.encode(prompt)], device=lm.device)


@torch.no_grad()
def streams(lm, prompt):
    """What every layer puts out at the last token, by hooks: [layers, d]."""
    kept = []
    hooks = [
        layer.register_forward_hook(lambda m, a, out: kept.append(out[0] if isinstance(out, tuple) else out))
        for layer in lm.layers
    ]
    try:
        lm.model(ids(lm, prompt))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([k[0, -1] for k in kept])


@torch.no_grad()
def states(lm, prompt):
    """The last token's hidden states as transformers lists them: [1 + layers, d]."""
    return torch.stack([s[0, -1] for s in lm.model(ids(lm, prompt), output_hidden_states=True).hidden_states])


@torch.no_grad()
def by_hooks(lm, prompt):
    return lm.head(lm.norm(streams(lm, prompt))).float().softmax(-1)


@torch.no_grad()
def by_hidden_states(lm, prompt):
    inner = read(lm, states(lm, prompt)[1:-1])
    return torch.cat([inner, lm.model(ids(lm, prompt)).logits[0, -1:]]).softmax(-1).tolist()


@torch.no_grad()
def by_lens(lm, prompt):
    h = lens.logit_lens(lm, prompt).vectors[:, -1]
    logits = (lm.norm(h) @ lm.unembedding.T).double()
    return (logits - logits.logsumexp(-1, keepdim=True)).exp().numpy()


@torch.no_grad()
def one_scale(lm, prompt):
    h, final = streams(lm, prompt), lm.model.transformer.ln_f
    centered = h - h.mean(-1, keepdim=True)
    scale = (centered[-1].var(unbiased=False) + final.eps).sqrt()
    return ((centered / scale * final.weight + final.bias) @ lm.unembedding.T).softmax(-1)


def read(lm, h):
    return lm.norm(h) @ lm.unembedding.T


def settled(ranks):
    best = len(ranks)
    for layer in reversed(range(len(ranks))):
        if ranks[layer] != 0:
            break
        best = layer
    return best


def ranks(lm, record, target):
    request = record["requested_rewrite"]
    texts = request["prompt"].format(request["subject"]), record["paraphrase_prompts"][-1]
    return [lens.logit_lens(lm, text, target=target).ranks[:, -1].tolist() for text in texts]


def true(record):
    return record["requested_rewrite"]["target_true"]["str"]


def lost_and_found(lm):
    """A record whose answer takes first place, loses it and takes it again, and settles at two heights."""
    for record in lens.data.records():
        found = ranks(lm, record, true(record))
        first = [r.index(0) if 0 in r else len(r) for r in found]
        last = [settled(r) for r in found]
        if first != last and last[0] != last[1]:
            return lm, record


ANSWERS = {
    "by_hand": Answers(
        right=[[1, 4, 3, 0, 1], torch.tensor([1, 4, 3, 0, 1]), (1.0, 4.0, 3.0, 0.0, 1.0)],
        wrong={
            "order without ln_f": [0, 3, 1, 4, 2],
            "Upside down": [2, 0, 1, 4, 2],
            "Counted from one": [2, 5, 4, 1, 2],
            "equal logits, equal ranks": [1, 4, 3, 0, 2],
            "only strictly larger": [2, 4, 3, 0, 2],
            "lists the words from the top down": [3, 0, 4, 2, 1],
            "These are the logits": [2, -1, 0, 3, 2],
        },
    ),
    "probabilities": Answers(
        right=[by_hooks, by_hidden_states, by_lens],
        wrong={
            "ln_f twice": lambda lm, prompt: read(lm, states(lm, prompt)[1:]).softmax(-1),
            "One row too many": lambda lm, prompt: read(lm, states(lm, prompt)).softmax(-1),
            "leaves out the last layer": lambda lm, prompt: read(lm, states(lm, prompt)[:-1]).softmax(-1),
            "ln_f is missing": lambda lm, prompt: (streams(lm, prompt) @ lm.unembedding.T).softmax(dim=1),
            "last layer's scale": one_scale,
            "ran over the layers": lambda lm, prompt: read(lm, streams(lm, prompt)).softmax(0),
            "These are logits": lambda lm, prompt: read(lm, streams(lm, prompt)),
            "These are log-probabilities": lambda lm, prompt: read(lm, streams(lm, prompt)).log_softmax(1),
            "only the last is asked for": lambda lm, prompt: read(lm, lens.logit_lens(lm, prompt).vectors).softmax(-1),
            "first token's stream": lambda lm, prompt: read(lm, lens.logit_lens(lm, prompt).vectors[:, 0]).softmax(-1),
        },
        context=lambda lm: (lm,),
    ),
    "settles": Answers(
        right=[
            lambda lm, record: [settled(r) for r in ranks(lm, record, true(record))],
            lambda lm, record: torch.tensor([settled(r) for r in ranks(lm, record, true(record))]),
            lambda lm, record: tuple(
                max([i + 1 for i, rank in enumerate(found) if rank], default=0)
                for found in ranks(lm, record, " " + true(record))
            ),
        ],
        wrong={
            "loses it again": lambda lm, record: [r.index(0) for r in ranks(lm, record, true(record))],
            "one too high": lambda lm, record: [settled(r) + 1 for r in ranks(lm, record, true(record))],
            "Off by one": lambda lm, record: [settled(r) - 1 for r in ranks(lm, record, true(record))],
            "leading space": lambda lm, record: [settled(r) for r in ranks(lm, record, lm.encode(true(record))[:1])],
            "other way round": lambda lm, record: [settled(r) for r in ranks(lm, record, true(record))][::-1],
        },
        context=lost_and_found,
        computed=True,
    ),
    "sure_and_wrong": Answers(
        right=[
            "Among all sports, LeBron James is most closely associated with",
            "The traditional way of making ossobuco comes from",
            "Pirelli is a company whose headquarters city is",
        ],
        wrong={
            "not sure": "Once upon a",
            "no layer below the last is sure": "Little Dorrit was written by",
            "they are right, not wrong": "A cafe is a kind of",
            "A prompt is asked for": ["The capital of France is"],
        },
        context=lambda lm: (lm,),
    ),
}
