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


def by_token(lm, request, layer, eta, late=0, mean=False):
    """A hooked pass for each token of the target, behind the tokens before it."""
    prompt, target = lm.encode(request.text), lm.target_ids(request.target_new)
    update, kept = 0, []
    hook = lm.site(layer, "ff2").register_forward_hook(lambda module, args, z: kept.append(args[0].squeeze(0)))
    try:
        for i, token in enumerate(target):
            with torch.no_grad():
                lm.model(torch.tensor([prompt + target[: i + max(late, 0)]], device=lm.device))
            a = kept[-1][-1 if late >= 0 else -1 + late]
            update = update + eta * a[:, None] * lm.unembedding[token].detach()
    finally:
        hook.remove()
    return update / len(target) if mean else update


def left_in_the_weights(lm, request, layer, eta):
    update = by_token(lm, request, layer, eta)
    lm.weight(layer, "ff2").detach().add_(update)
    return update


def hook_left(lm, request, layer, eta):
    lm.site(layer, "ff2").register_forward_hook(lambda module, args, z: None)
    return by_token(lm, request, layer, eta)


def rows_of_all(lm, request, layer, eta):
    return sum(hooked(lm, request, layer, eta, token=token) for token in lm.target_ids(request.target_new))


def by_capture(lm, request, layer, eta):
    target = lm.target_ids(request.target_new)
    x = lens.capture(lm, request.text, target, layers=[layer], sites=["ff2"]).gradient(layer, "ff2").x
    return torch.einsum("ia,ib->ab", x[-len(target) :], eta * lm.unembedding[target].detach())


def by_change(lm, request, layer, eta):
    """The package's own thin factors, multiplied out."""
    target, prompt = lm.target_ids(request.target_new), lm.encode(request.text)
    x = lens.capture(lm, request.text, request.target_new, layers=[layer], sites=["ff2"]).gradient(layer, "ff2").x
    rows = [x[len(prompt) - 1 + i] for i in range(len(target))]
    return lens.edit.Change(layer, "ff2", torch.stack(rows), eta * lm.toward(torch.tensor(target))).dense().double()


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
        blind=[[[3, -6], [0, 0], [2, -4]], [[3, -6], [1, -2], [-2, 4]]],
    ),
    "shift": Answers(
        right=[by_token, by_capture, by_change],
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
            "not at the one before it": lambda *given: by_token(*given, late=-1),
            "one place before its own": lambda *given: by_token(*given, late=1),
            "the first alone": hooked,
            "mean over the target": lambda *given: by_token(*given, mean=True),
            "first token's input": lambda *given: hooked(*given, position=0),
            "the word that is true": lambda lm, request, layer, eta: hooked(
                lm, request, layer, eta, token=lm.target_ids(request.target_true)[0]
            ),
            "stayed in the weights": left_in_the_weights,
            "a hook of yours": hook_left,
            "the last of them alone": lambda lm, request, layer, eta: hooked(
                lm, request, layer, eta, token=lm.target_ids(request.target_new)[-1]
            ),
            "the prompt's last input": rows_of_all,
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
        blind=[
            lambda a, others: least_squares(a, others) / 2,
            lambda a, others: torch.linalg.pinv(others) @ others @ a,
        ],
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
