"""Answers to the exercises of *Imprint and shift*."""

import torch
from library import Answers

import lens


def rows(change):
    """The rows of E, weighted by ``change(p, p0)``."""
    return lambda v, E, p0: change(torch.softmax(E @ v, dim=0), p0) @ E


def by_autograd(v, E, p0, reverse=False):
    v = v.clone().requires_grad_()
    log_p = (E @ v).log_softmax(0)
    loss = (log_p.exp() * (log_p - p0.log())).sum() if reverse else torch.nn.functional.cross_entropy(E @ v, p0)
    return torch.autograd.grad(loss, v)[0]


def target_by_target(v, E, p0):
    """The lemma once for every word, each as often as the teacher says it."""
    p = (E @ v).softmax(0)
    total = torch.zeros_like(v)
    for t, share in enumerate(p0.tolist()):
        coefficient = p.clone()
        coefficient[t] -= 1
        total += share * (coefficient @ E)
    return total.tolist()


def hard(p, p0):
    coefficient = p.clone()
    coefficient[int(p0.argmax())] -= 1
    return coefficient


def ids(lm, prompt):
    return torch.tensor([lm.encode(prompt)], device=lm.device)


def log_p(lm, prompt):
    with torch.no_grad():
        return lm.model(ids(lm, prompt)).logits[0, -1].log_softmax(-1)


def by_weights(lm, prompt, target, layer, sign=-1, power=2, restore=True, sites=("ff2",), token=None, scale=None):
    token = lm.target_ids(target)[:1] if token is None else token
    trace = lens.capture(lm, prompt, token, layers=[layer], sites=sites)
    gradients = [trace.gradient(layer, site) for site in sites]
    length = sum(g.norm() ** 2 for g in gradients) ** 0.5
    eta = float(trace.loss / length**power) if scale is None else scale(trace.loss, length)
    weights = [lm.weight(layer, site).detach() for site in sites]
    kept = [w.clone() for w in weights]
    for w, g in zip(weights, gradients):
        w += sign * eta * g.dense()
    try:
        return log_p(lm, prompt)
    finally:
        if restore:
            for w, k in zip(weights, kept):
                w.copy_(k)


def by_hook(lm, prompt, target, layer, rows=slice(None)):
    trace = lens.capture(lm, prompt, lm.target_ids(target)[0])
    g = trace.gradient(layer, "ff2")
    eta = float(trace.loss) / float(g.norm()) ** 2
    hook = lm.site(layer, "ff2").register_forward_hook(
        lambda module, args, z: z - eta * args[0] @ (g.x[rows].T @ g.delta[rows])
    )
    try:
        return log_p(lm, prompt)
    finally:
        hook.remove()


def hook_left(lm, prompt, target, layer):
    g = lens.capture(lm, prompt, lm.target_ids(target)[:1]).gradient(layer, "ff2")
    lm.site(layer, "ff2").register_forward_hook(lambda module, args, z: z)
    return by_hook(lm, prompt, target, layer, rows=slice(len(g.x)))


def logits_after(lm, prompt, target, layer):
    """What comes out of the head, never normalized."""
    g = lens.capture(lm, prompt, lm.target_ids(target)[:1])
    loss, g = float(g.loss), g.gradient(layer, "ff2")
    hook = lm.site(layer, "ff2").register_forward_hook(
        lambda module, args, z: z - loss / float(g.norm()) ** 2 * args[0] @ g.dense()
    )
    try:
        return lm.model(ids(lm, prompt)).logits[0, -1].detach()
    finally:
        hook.remove()


def by_backward(lm, prompt, target, layer):
    """Dense gradient from autograd, weights exchanged as a whole."""
    weight = lm.site(layer, "ff2").weight
    loss = -lm.model(ids(lm, prompt)).logits[0, -1].log_softmax(-1)[lm.target_ids(target)[0]]
    (g,) = torch.autograd.grad(loss, weight)
    before = weight.data
    weight.data = before - loss.detach() / g.square().sum() * g
    try:
        return log_p(lm, prompt).tolist()
    finally:
        weight.data = before


def forgets_to_run_again(lm, prompt, target, layer):
    before = log_p(lm, prompt)
    by_weights(lm, prompt, target, layer)
    return before


def undone_by_adding(lm, prompt, target, layer):
    trace = lens.capture(lm, prompt, lm.target_ids(target)[0])
    g, weight = trace.gradient(layer, "ff2"), lm.weight(layer, "ff2").detach()
    update = float(trace.loss) / float(g.norm()) ** 2 * g.dense()
    weight -= update
    after = log_p(lm, prompt)
    weight += update
    return after


def share(lm, record, text):
    request, layer = record["requested_rewrite"], 3 * len(lm.layers) // 4
    prompt = request["prompt"].format(request["subject"])
    g = lens.capture(lm, prompt, lm.target_ids(request["target_new"]["str"])[0]).gradient(layer, "ff2")
    a = lens.capture(lm, text, "Rome").gradient(layer, "ff2").x[-1]
    m = g.dense().T @ g.x[-1]
    return float(m @ (g.dense().T @ a) / (m @ m))


def named(lm, record):
    return min(record["generation_prompts"], key=lambda text: share(lm, record, text))


def unnamed(lm, record):
    return max(record["neighborhood_prompts"], key=lambda text: share(lm, record, text))


def subject(record):
    return record["requested_rewrite"]["subject"]


ANSWERS = {
    "by_hand": Answers(
        right=[
            [[-2.5, 7.5], [-1.5, 4.5]],
            torch.tensor([[-2.5, 7.5], [-1.5, 4.5]]),
            (torch.tensor([-2.5, 7.5]), torch.tensor([-1.5, 4.5])),
        ],
        wrong={
            "sign is reversed": [[2.5, -7.5], [1.5, -4.5]],
            "η is missing": [[-5, 15], [-3, 9]],
            "used once to write": [[-0.5 * 5**0.5, 1.5 * 5**0.5], [-1.5 / 5**0.5, 4.5 / 5**0.5]],
            "hear the same": [[-2.5, 7.5], [-2.5, 7.5]],
            "its own length": [[-2.5, 7.5], [-9, 27]],
            "not the cosine": [[-2.5, 7.5], [-1.5 / 90**0.5, 4.5 / 90**0.5]],
            "other way round": [[-1.5, 4.5], [-2.5, 7.5]],
        },
        blind=[[[-2.5, 7.5], [-3, 9]], [[-5, 15], [-1.5, 4.5]]],
    ),
    "top": Answers(
        right=[rows(lambda p, p0: p - p0), by_autograd, target_by_target],
        wrong={
            "what a step adds": rows(lambda p, p0: p0 - p),
            "Only the words wanted": lambda v, E, p0: -(p0 @ E),
            "Only the words expected": rows(lambda p, p0: p),
            "Only the teacher's first word": rows(hard),
            "p is weighted by p₀ too": rows(lambda p, p0: p0 * p - p0),
            "expected alike": lambda v, E, p0: E.mean(0) - p0 @ E,
            "derivatives by p": rows(lambda p, p0: -p0 / p),
            "p₀ weighs the logarithms": lambda *given: by_autograd(*given, reverse=True),
            "coefficients are logits": lambda v, E, p0: E.T @ (E @ v) - E.T @ p0,
            "derivatives by the logits": lambda v, E, p0: torch.softmax(E @ v, 0) - p0,
            "stopped with RuntimeError": lambda v, E, p0: (v @ E).softmax(0) @ E - p0 @ E,
        },
        blind=[
            rows(lambda p, p0: (p - p0) / len(p)),
            rows(lambda p, p0: (p - p0).abs()),
        ],
    ),
    "step": Answers(
        right=[by_hook, by_weights, by_backward],
        wrong={
            "without the step": forgets_to_run_again,
            "uphill": lambda *given: by_weights(*given, sign=1),
            "has its square": lambda *given: by_weights(*given, power=1),
            "size η = 1": lambda *given: by_weights(*given, scale=lambda loss, length: 1.0),
            "loss is missing": lambda *given: by_weights(*given, scale=lambda loss, length: float(1 / length**2)),
            "last token's outer product": lambda *given: by_hook(*given, rows=slice(-1, None)),
            "both matrices": lambda *given: by_weights(*given, sites=("ff1", "ff2")),
            "in FF1": lambda *given: by_weights(*given, sites=("ff1",)),
            "leading space": lambda lm, prompt, target, layer: by_weights(
                lm, prompt, target, layer, token=lm.encode(target)[:1]
            ),
            "These are probabilities": lambda *given: by_weights(*given).exp(),
            "stayed in the weights": lambda *given: by_weights(*given, restore=False),
            "arithmetic, which rounds": undone_by_adding,
            "all of the target's tokens": lambda lm, prompt, target, layer: by_weights(
                lm, prompt, target, layer, token=lm.target_ids(target)
            ),
            "These are logits": logits_after,
            "a hook of yours": hook_left,
        },
        context=lambda lm: (lm,),
    ),
    "hearers": Answers(
        right=[
            lambda lm, record: (named(lm, record), unnamed(lm, record)),
            lambda lm, record: [f"{subject(record)} and", unnamed(lm, record)],
            lambda lm, record: (f"In the story of {subject(record)}, the", unnamed(lm, record)),
        ],
        wrong={
            "Two prompts": lambda lm, record: named(lm, record),
            "has to name the subject": lambda lm, record: (unnamed(lm, record), named(lm, record)),
            "names the subject too": lambda lm, record: (named(lm, record), record["paraphrase_prompts"][0]),
            "a tenth of the step or more": lambda lm, record: (record["paraphrase_prompts"][0], unnamed(lm, record)),
            "hears too little": lambda lm, record: (named(lm, record), "My favorite game is"),
        },
        context=lambda lm: (lm, lens.check.student("ada").records()[0]),
        computed=True,
    ),
}
