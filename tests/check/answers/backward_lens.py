"""Answers to the exercises of *The backward lens*."""

import torch
from library import Answers

import lens


def outputs_of(lm, prompt, site="ff2"):
    """What a site puts out in every layer, still attached to the graph, and the last token's logits."""
    kept = []
    hooks = [
        lm.site(layer, site).register_forward_hook(lambda module, args, z: kept.append(z))
        for layer in range(len(lm.layers))
    ]
    try:
        logits = lm.model(torch.tensor([lm.encode(prompt)], device=lm.device)).logits[0, -1].float()
    finally:
        for hook in hooks:
            hook.remove()
    return kept, logits


def by_hooks(lm, prompt, target, token=None, sign=1, position=-1, softmax=True, norm=True):
    kept, logits = outputs_of(lm, prompt)
    token = lm.target_ids(target)[0] if token is None else token
    loss = -(logits.log_softmax(-1) if softmax else logits)[token]
    delta = sign * torch.stack([d[0, position] for d in torch.autograd.grad(loss, kept)])
    return lm.head(lm.norm(delta) if norm else delta)


def by_capture(lm, prompt, target):
    delta = lens.capture(lm, prompt, lm.target_ids(target)[0], sites=["ff2"]).stack("ff2")
    return (lm.norm(delta[:, -1]) @ lm.unembedding.T).tolist()


def by_stream(lm, prompt, target):
    """The derivative by the stream after each layer is FF2's VJP, where FF2 writes straight into it."""
    embeddings = lm.model.get_input_embeddings()(torch.tensor([lm.encode(prompt)])).detach().requires_grad_()
    kept = []
    hooks = [
        layer.register_forward_hook(lambda m, a, out: kept.append(out[0] if isinstance(out, tuple) else out))
        for layer in lm.layers
    ]
    try:
        logits = lm.model(inputs_embeds=embeddings).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(lm.target_ids(target)[0]))
    return torch.stack([lm.head(lm.norm(d[0, -1])) for d in torch.autograd.grad(loss, kept)])


def of_all_tokens(token):
    """By the whole target, read at the token that is counted from the prompt's length."""

    def answer(lm, prompt, target):
        delta = lens.capture(lm, prompt, target, sites=["ff2"]).stack("ff2")
        return lm.head(lm.norm(delta[:, token(len(lm.encode(prompt)))]))

    return answer


def hook_left(lm, prompt, target):
    lm.site(0, "ff2").register_forward_hook(lambda module, args, z: None)
    return by_hooks(lm, prompt, target)


def forward(lm, prompt, target):
    return lm.head(lm.norm(torch.stack([z[0, -1] for z in outputs_of(lm, prompt)[0]])))


def inputs(lm, prompt, target):
    return lm.head(lm.norm(lens.capture(lm, prompt, target).stack("ff1", "x")[:, -1]))


def by_two_norms(v, eps):
    """LayerNorm with and without its ε, compared entry by entry."""
    with_eps = torch.nn.functional.layer_norm(v.double(), v.shape[-1:], eps=eps)
    without = torch.nn.functional.layer_norm(v.double(), v.shape[-1:], eps=0.0)
    return with_eps.norm(dim=-1) / without.norm(dim=-1)


def by_lists(v, eps):
    shares = []
    for row in v.tolist():
        mean = sum(row) / len(row)
        variance = sum((entry - mean) ** 2 for entry in row) / len(row)
        shares.append((1 + eps / variance) ** -0.5)
    return shares


def ends_of(lm, vector):
    return [lens.project(lm, vector, k=1, largest=largest).words[0] for largest in (False, True)]


def one_by_one(lm, me):
    logits = lm.head(lm.norm(lens.check.backward_lens.found(lm, me)[1][-1]))
    return lm.word(logits.argmin()), lm.word(logits.argmax())


def with_spaces(lm, me):
    return [word.replace("·", " ") for word in ends_of(lm, lens.check.backward_lens.found(lm, me)[1][-1])]


ANSWERS = {
    "ends": Answers(
        right=[["ung", "the", "Rome"], ("ung", "the", "Rome"), [["Rome", "Paris", "the", "ung"][i] for i in (3, 2, 0)]],
        wrong={
            "The wrong ends": ["Paris", "Paris", "Paris"],
            "first two are exchanged": ["the", "ung", "Rome"],
            "bias was turned round": ["ung", "ung", "Rome"],
            "b was left out": ["Rome", "Rome", "Rome"],
            "third word has the wrong sign": ["ung", "the", "Paris"],
            "still has b in it": ["ung", "the", "ung"],
        },
        blind=[["ung", "the", "the"], ["the", "Paris", "Rome"]],
    ),
    "shift": Answers(
        right=[by_hooks, by_capture, by_stream],
        wrong={
            "This reads −δ": lambda *given: by_hooks(*given, sign=-1),
            "negated after the lens": lambda *given: -by_hooks(*given),
            "leading space": lambda lm, prompt, target: by_hooks(lm, prompt, target, token=lm.encode(target)[0]),
            "−logit of the target": lambda *given: by_hooks(*given, softmax=False),
            "on the way forward": forward,
            "FF1's inputs": inputs,
            "ln_f is missing": lambda *given: by_hooks(*given, norm=False),
            "These are probabilities": lambda *given: by_hooks(*given).softmax(-1),
            "first token's δ": lambda *given: by_hooks(*given, position=0),
            "only the last is asked for": lambda *given: by_hooks(*given, position=slice(None)),
            "the first alone is asked for": of_all_tokens(lambda length: length - 1),
            "the last of these is read": of_all_tokens(lambda length: -1),
            "a hook of yours": hook_left,
        },
        context=lambda lm: (lm,),
    ),
    "left": Answers(
        right=[
            lambda v, eps: (v.var(-1, correction=0) / (v.var(-1, correction=0) + eps)).sqrt(),
            by_two_norms,
            by_lists,
        ],
        wrong={
            "over d − 1": lambda v, eps: v.std(-1) / (v.var(-1) + eps).sqrt(),
            "without centering": lambda v, eps: ((v**2).mean(-1) / ((v**2).mean(-1) + eps)) ** 0.5,
            "a mean over the entries": lambda v, eps: (
                ((v - v.mean(-1, keepdim=True)) ** 2).sum(-1) / (((v - v.mean(-1, keepdim=True)) ** 2).sum(-1) + eps)
            ).sqrt(),
            "square root is missing": lambda v, eps: v.var(-1, correction=0) / (v.var(-1, correction=0) + eps),
            "outside the root": lambda v, eps: v.std(-1, correction=0) / (v.std(-1, correction=0) + eps),
            "Upside down": lambda v, eps: (1 + eps / v.var(-1, correction=0)).sqrt(),
            "what is lost": lambda v, eps: 1 - (1 + eps / v.var(-1, correction=0)).rsqrt(),
        },
        blind=[
            lambda v, eps: v.var(-1, correction=0) / (v.norm(dim=-1) + eps),
            lambda v, eps: 1 / (v.var(-1, correction=0) + eps).sqrt(),
        ],
    ),
    "whose": Answers(
        right=[
            lambda lm, me: ends_of(lm, lens.check.backward_lens.found(lm, me)[1][-1]),
            one_by_one,
            with_spaces,
        ],
        wrong={
            "The other way round": lambda lm, me: ends_of(lm, -lens.check.backward_lens.found(lm, me)[1][-1]),
            "Both are the word the model believed": lambda lm, me: (
                lens.project(lm, lens.check.backward_lens.found(lm, me)[1][-1], k=1).words * 2
            ),
            "reads δ at the first token": lambda lm, me: ends_of(lm, lens.check.backward_lens.found(lm, me)[1][0]),
            "reads the inputs x": lambda lm, me: ends_of(lm, lens.check.backward_lens.found(lm, me)[0][-1]),
            "space in front": lambda lm, me: [
                word.strip("·") for word in ends_of(lm, lens.check.backward_lens.found(lm, me)[1][-1])
            ],
        },
        context=lambda lm: (lm, lens.check.student("ada")),
        computed=True,
    ),
}
