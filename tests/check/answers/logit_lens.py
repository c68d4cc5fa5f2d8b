"""Answers to the exercises of *Logit lens*."""

import torch
from library import Answers

import lens


def ids(lm, prompt):
    return torch.tensor([lm.encode(prompt)], device=lm.device)


@torch.no_grad()
def passing(lm, prompt, modules, entering=False, leave=False):
    """What enters modules or comes out of them, one a layer, by hooks: [layers, n, width]."""
    kept = []

    def keep(module, args, out):
        kept.append(args[0] if entering else out[0] if isinstance(out, tuple) else out)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        lm.model(ids(lm, prompt))
    finally:
        for hook in hooks:
            if not leave:
                hook.remove()
    return torch.stack([k.reshape(-1, k.shape[-1]) for k in kept[-len(modules) :]])


def at(lm, site):
    return [lm.site(layer, site) for layer in range(len(lm.layers))]


def between(lm, prompt, **options):
    return passing(lm, prompt, lm.layers) - passing(lm, prompt, at(lm, "ff2"), **options)


@torch.no_grad()
def states(lm, prompt):
    """The hidden states as transformers lists them: [1 + layers, n, d]."""
    return torch.stack([s[0] for s in lm.model(ids(lm, prompt), output_hidden_states=True).hidden_states])


@torch.no_grad()
def read(lm, h):
    return lm.norm(h) @ lm.unembedding.T


def by_subtracting(lm, prompt):
    return read(lm, between(lm, prompt)[:, -1]).softmax(-1)


def by_adding(lm, prompt):
    """What enters a layer and what its attention adds."""
    h = states(lm, prompt)[:-1] + passing(lm, prompt, at(lm, "attn_out"))
    return read(lm, h[:, -1]).softmax(-1).tolist()


def before_the_norm(lm, prompt):
    """What enters the norm in front of the MLP, as GPT-2 names it."""
    h = passing(lm, prompt, [layer.ln_2 for layer in lm.layers], entering=True)
    logits = read(lm, h[:, -1]).double()
    return (logits - logits.logsumexp(-1, keepdim=True)).exp().numpy()


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
        blind=[[1, 4, 3, 0, 0], [1, 4, 2, 0, 1], [0, 4, 3, 1, 1]],
    ),
    "after_attention": Answers(
        right=[by_subtracting, by_adding, before_the_norm],
        wrong={
            "end of each layer": lambda lm, prompt: read(lm, passing(lm, prompt, lm.layers)[:, -1]).softmax(-1),
            "beginning of each layer": lambda lm, prompt: read(lm, states(lm, prompt)[:-1, -1]).softmax(-1),
            "attention adds, alone": lambda lm, prompt: read(
                lm, passing(lm, prompt, at(lm, "attn_out"))[:, -1]
            ).softmax(-1),
            "MLP adds, alone": lambda lm, prompt: read(lm, passing(lm, prompt, at(lm, "ff2"))[:, -1]).softmax(-1),
            "FF1's input": lambda lm, prompt: read(lm, passing(lm, prompt, at(lm, "ff1"), True)[:, -1]).softmax(-1),
            "added once more": lambda lm, prompt: read(
                lm, (2 * passing(lm, prompt, lm.layers) - between(lm, prompt))[:, -1]
            ).softmax(-1),
            "ln_f too early": lambda lm, prompt: read(
                lm, (states(lm, prompt)[1:] - passing(lm, prompt, at(lm, "ff2")))[:, -1]
            ).softmax(-1),
            "ln_f is missing": lambda lm, prompt: (between(lm, prompt)[:, -1] @ lm.unembedding.T).softmax(dim=1),
            "went through ln_f twice": lambda lm, prompt: read(lm, states(lm, prompt)[1:, -1]).softmax(-1),
            "hidden_states[1:] without ln_f": lambda lm, prompt: lm.head(states(lm, prompt)[1:, -1]).softmax(-1),
            "a hook of yours": lambda lm, prompt: read(lm, between(lm, prompt, leave=True)[:, -1]).softmax(-1),
            "ran over the layers": lambda lm, prompt: read(lm, between(lm, prompt)[:, -1]).softmax(0),
            "These are logits": lambda lm, prompt: read(lm, between(lm, prompt)[:, -1]),
            "These are log-probabilities": lambda lm, prompt: read(lm, between(lm, prompt)[:, -1]).log_softmax(1),
            "only the last is asked for": lambda lm, prompt: read(lm, between(lm, prompt)).softmax(-1),
            "first token's stream": lambda lm, prompt: read(lm, between(lm, prompt)[:, 0]).softmax(-1),
        },
        context=lambda lm: (lm,),
        blind=[
            lambda lm, prompt: read(lm, between(lm, prompt)[:, -1]).softmax(-1).argmax(-1),
        ],
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
            "entries are not": lambda lm, record: [2 * settled(r) for r in ranks(lm, record, true(record))],
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
