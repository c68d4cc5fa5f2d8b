"""Answers to the exercises of *Forward-pass shift*."""

import torch
from library import Answers

import lens


def hooked(lm, request, layer, eta, token=None, position=-1, output=False, site="ff2", sign=1):
    """The outer product, with a forward hook of its own."""
    kept = {}
    hook = lm.site(layer, site).register_forward_hook(lambda module, args, z: kept.update(x=args[0], z=z))
    try:
        with torch.no_grad():
            lm.model(torch.tensor([lm.encode(request.text)], device=lm.device))
    finally:
        hook.remove()
    a = kept["z" if output else "x"].squeeze(0)[position]
    t = lm.target_ids(request.target_new)[0] if token is None else token
    return sign * eta * a[:, None] @ lm.unembedding[t].detach()[None]


def by_capture(lm, request, layer, eta):
    x = lens.capture(lm, request.text, request.target_new, layers=[layer], sites=["ff2"]).gradient(layer, "ff2").x
    t = lm.target_ids(request.target_new)[0]
    return torch.einsum("a,b->ab", x[-1], eta * lm.unembedding[t].detach())


def by_package(lm, request, layer, eta):
    return lens.edit.shift(lm, request, layer=layer, eta=eta).changes[0].dense()


def all_tokens(lm, request, layer, eta):
    x = lens.capture(lm, request.text, request.target_new, layers=[layer], sites=["ff2"]).gradient(layer, "ff2").x
    t = lm.target_ids(request.target_new)[0]
    return eta * x.T @ lm.unembedding[t].detach().expand(len(x), -1)


def least_squares(a, others):
    rest = a - others.T @ torch.linalg.lstsq(others.T, a[:, None]).solution[:, 0]
    return rest * (a @ a) / (rest @ rest)


def constrained(a, others):
    """The shortest solution of all conditions at once."""
    rows = torch.cat([a[None], others])
    wanted = torch.zeros(len(rows))
    wanted[0] = a @ a
    return torch.linalg.pinv(rows.double()) @ wanted.double()


def in_turn(a, others):
    k = a.clone()
    for x in others:
        k -= (k @ x) / (x @ x) * x
    return k * (a @ a) / (k @ a)


def qr(a, others):
    q = torch.linalg.qr(others.T).Q
    return a - q @ q.T @ a


def fact(lm):
    record = next(r for r in lens.data.records() if r["requested_rewrite"]["relation"] == "headquarters")
    return lm, record


def same_words(record, count=20, skip=0):
    """The record's wording with subjects of other records that are not its neighbors."""
    rewrite = record["requested_rewrite"]
    reserved = " ".join(record["neighborhood_prompts"]) + rewrite["subject"]
    others = [r["requested_rewrite"] for r in lens.data.records()]
    subjects = [o["subject"] for o in others if o["relation"] == rewrite["relation"] and o["subject"] not in reserved]
    return [rewrite["prompt"].format(s) for s in subjects[skip : skip + count]]


ANSWERS = {
    "heard": Answers(
        right=[
            [[3, -6], [0, 0], [-2, 4]],
            torch.tensor([[3.0, -6.0], [0.0, 0.0], [-2.0, 4.0]]),
            [torch.tensor([3.0, -6.0]), torch.tensor([0.0, 0.0]), torch.tensor([-2.0, 4.0])],
        ],
        wrong={
            "added, not subtracted": [[-3, 6], [0, 0], [2, -4]],
            "η times the share": [[1 / 3, -2 / 3], [0, 0], [-2 / 9, 4 / 9]],
            "step η is missing": [[9, -18], [0, 0], [-6, 12]],
            "shares times E[t]": [[1, -2], [0, 0], [-2 / 3, 4 / 3]],
            "like the edited one": [[3, -6], [3, -6], [3, -6]],
            "transposed": [[3, 0, -2], [-6, 0, 4]],
        },
    ),
    "shift": Answers(
        right=[hooked, by_capture, by_package],
        wrong={
            "sign is reversed": lambda *given: hooked(*given, sign=-1),
            "leading space": lambda lm, request, layer, eta: hooked(
                lm, request, layer, eta, token=lm.encode(request.target_new)[0]
            ),
            "but for η": lambda lm, request, layer, eta: hooked(lm, request, layer, 1.0),
            "transposed": lambda *given: hooked(*given).T,
            "before the activation function": lambda *given: hooked(*given, site="ff1", output=True),
            "FF2's output": lambda *given: hooked(*given, output=True),
            "All tokens": all_tokens,
            "Off by one token": lambda *given: hooked(*given, position=-2),
            "first token's input": lambda *given: hooked(*given, position=0),
            "the word that is true": lambda lm, request, layer, eta: hooked(
                lm, request, layer, eta, token=lm.target_ids(request.target_true)[0]
            ),
        },
        context=lambda lm: (lm,),
    ),
    "spare": Answers(
        right=[least_squares, constrained, lambda a, others: qr(a, others) * (a @ a) / (a @ qr(a, others))],
        wrong={
            "moves less than before": qr,
            "a's length": lambda a, others: torch.nn.functional.normalize(qr(a, others), dim=0) * a.norm(),
            "one by one": in_turn,
            "each as if it were alone": lambda a, others: a - sum((a @ x) / (x @ x) * x for x in others),
            "mean of the inputs": lambda a, others: least_squares(a, others.mean(0)[None]),
            "the others do hear": lambda a, others: a - qr(a, others),
            "key is a itself": lambda a, others: a,
        },
    ),
    "protected": Answers(
        right=[
            lambda lm, record: same_words(record),
            lambda lm, record: tuple(same_words(record, skip=2)),
            lambda lm, record: same_words(record, count=18)[::-1],
        ],
        wrong={
            "A list of prompts": lambda lm, record: same_words(record)[0],
            "More than twenty": lambda lm, record: same_words(record, count=21),
            "neighbors are the test": lambda lm, record: list(record["neighborhood_prompts"]),
            "cannot edit it": lambda lm, record: record["paraphrase_prompts"],
            "Fewer than a fifth": lambda lm, record: ["The capital of France is", "A cafe is a kind of"],
        },
        context=fact,
        computed=True,
    ),
}
