"""Answers to the exercises of *Where an edit lands*."""

import torch
from library import Answers

import lens

SEGMENTS = list(lens.SEGMENTS)


def factors(lm, prompt, target, site="ff2"):
    trace = lens.capture(lm, prompt, target, sites=[site])
    return [(trace.gradient(layer, site).x, trace.gradient(layer, site).delta) for layer in trace.layers]


def table(lm, prompt, subject, target, part, token=None, site="ff2", columns=True, mean=False):
    """part(x, delta) gives each token a number; added up by segment, layer by layer."""
    token = lm.target_ids(target)[0] if token is None else token
    places = lens.segments(lm, prompt, subject)
    out = torch.zeros(len(SEGMENTS), len(lm.layers))
    for layer, (x, delta) in enumerate(factors(lm, prompt, token, site)):
        parts = part(x, delta)
        parts = parts / parts.sum() if columns else parts
        for number, segment in zip(parts, places):
            out[SEGMENTS.index(segment), layer] += number / (places.count(segment) if mean else 1)
    return out


def with_pairs(x, delta):
    return ((x @ x.T) * (delta @ delta.T)).sum(0)


def with_the_matrix(x, delta):
    return torch.stack([(x[i] @ (x.T @ delta) * delta[i]).sum() for i in range(len(x))])


def by_dense(lm, prompt, subject, target):
    """⟨x_iᵀδ_i, G⟩ with the matrix itself, in lists."""
    return table(lm, prompt, subject, target, with_the_matrix).tolist()


def by_stack(lm, prompt, subject, target):
    trace = lens.capture(lm, prompt, lm.target_ids(target)[:1], sites=["ff2"])
    x, delta = trace.stack("ff2", "x").double(), trace.stack("ff2").double()
    c = ((x @ x.mT) * (delta @ delta.mT)).sum(-1)
    one_hot = torch.tensor([[float(s == segment) for s in lens.segments(lm, prompt, subject)] for segment in SEGMENTS])
    return one_hot.double() @ (c / c.sum(-1, keepdim=True)).T


def squares(x, delta):
    return (x**2).sum(1) * (delta**2).sum(1)


def pairs(name):
    """The three texts that the notebook gives the student of this name."""
    records = lens.data.records()
    me = lens.check.student(name)
    for record in me.records(len(records)):
        fact = record["requested_rewrite"]
        other = next(
            r["requested_rewrite"]
            for r in records
            if r["requested_rewrite"]["relation_id"] == fact["relation_id"]
            and r["requested_rewrite"]["target_true"] != fact["target_true"]
        )
        if fact["subject"] in record["paraphrase_prompts"][0] and not fact["prompt"].endswith("{}"):
            return (
                (fact["prompt"].format(fact["subject"]), fact["subject"]),
                (record["paraphrase_prompts"][0], fact["subject"]),
                (other["prompt"].format(other["subject"]), other["subject"]),
            )


def inputs(lm, text, subject, segment, site="ff2"):
    token = lens.segments(lm, text, subject).index(segment)
    return [x[token] for x, _ in factors(lm, text, 5, site)]


def heard(x, y):
    return x @ y / (x @ x)


def gaps(lm, texts, share=heard, weights=(1, -1), site="ff2", order=("subject last", "last token")):
    """A row for each of the two tokens: what the paraphrase hears, minus what the other subject hears."""
    rows = []
    for segment in order:
        own, paraphrase, other = (inputs(lm, *pair, segment, site) for pair in texts)
        rows.append(
            [float(weights[0] * share(x, p) + weights[1] * share(x, o)) for x, p, o in zip(own, paraphrase, other)]
        )
    return rows


def by_projection(lm, texts):
    """Ahead by as much as x hears of the difference of the two inputs."""
    rows = []
    for segment in ("subject last", "last token"):
        own, paraphrase, other = (torch.stack(inputs(lm, *pair, segment)).double() for pair in texts)
        rows.append(torch.einsum("ld,ld->l", own / own.norm(dim=1, keepdim=True) ** 2, paraphrase - other))
    return torch.stack(rows)


MESSI = "Lionel Messi"

ANSWERS = {
    "by_hand": Answers(
        right=[[1.2, -0.2], torch.tensor([6.0, -1.0]) / 5, (6 / 5, -1 / 5)],
        wrong={
            "treated as orthogonal": [8 / 9, 1 / 9],
            "Lengths were shared out": [8**0.5 / (8**0.5 + 1), 1 / (8**0.5 + 1)],
            "Only δ was measured": [2**0.5 / (2**0.5 + 1), 1 / (2**0.5 + 1)],
            "the cᵢ themselves": [6, -1],
            "divided by ‖G‖": [6 / 5**0.5, -1 / 5**0.5],
            "no absolute values": [6 / 7, 1 / 7],
        },
        blind=[[0.8, 0.2], [1.2, 0.2]],
    ),
    "carriers": Answers(
        right=[by_stack, lambda *given: table(*given, with_pairs), by_dense],
        wrong={
            "mean over a segment's tokens": lambda *given: table(*given, with_pairs, mean=True),
            "‖xᵢᵀδᵢ‖² alone": lambda *given: table(*given, squares),
            "Lengths were shared out": lambda *given: table(*given, lambda x, delta: squares(x, delta).sqrt()),
            "Only ‖δ‖ was": lambda *given: table(*given, lambda x, delta: delta.norm(dim=1)),
            "Only ‖δ‖² was": lambda *given: table(*given, lambda x, delta: (delta**2).sum(1)),
            "keep the sign": lambda *given: table(*given, with_pairs).abs(),
            "its column adds up to one": lambda *given: table(*given, with_pairs, columns=False),
            "put on one scale": lambda *given: (
                table(*given, with_pairs, columns=False) / table(*given, with_pairs, columns=False).sum()
            ),
            "leading space": lambda lm, prompt, subject, target: table(
                lm, prompt, subject, target, with_pairs, token=lm.encode(target)[0]
            ),
            "FF1's gradient": lambda *given: table(*given, with_pairs, site="ff1"),
            "transposed": lambda *given: table(*given, with_pairs).T,
            "the first alone is asked for": lambda lm, prompt, subject, target: table(
                lm, prompt, subject, target, with_pairs, token=target
            ),
            "given everything": lambda *given: table(*given, lambda x, delta: torch.arange(len(x)) == len(x) - 1),
        },
        context=lambda lm: (lm,),
        blind=[
            lambda *given: 100 * table(*given, with_pairs),
        ],
    ),
    "place": Answers(
        right=[gaps, by_projection, lambda lm, texts: torch.tensor(gaps(lm, texts)).numpy()],
        wrong={
            "rows are exchanged": lambda lm, texts: gaps(lm, texts, order=("last token", "subject last")),
            "what the paraphrase hears": lambda lm, texts: gaps(lm, texts, weights=(1, 0)),
            "what the other subject hears": lambda lm, texts: gaps(lm, texts, weights=(0, 1)),
            "sign is reversed": lambda lm, texts: gaps(lm, texts, weights=(-1, 1)),
            "These are cosines": lambda lm, texts: gaps(
                lm, texts, share=lambda x, y: torch.cosine_similarity(x, y, dim=0)
            ),
            "the wrong length": lambda lm, texts: gaps(lm, texts, share=lambda x, y: x @ y / (y @ y)),
            "FF1's inputs": lambda lm, texts: gaps(lm, texts, site="ff1"),
            "transposed": lambda lm, texts: torch.tensor(gaps(lm, texts)).T,
        },
        context=lambda lm: (lm, pairs("ada")),
        computed=True,
    ),
    "blind_spot": Answers(
        right=[
            (MESSI, f"{MESSI} is famous for success in the sport of", f"{MESSI} was born in the country of"),
            ["France", "France is a country in", "France uses a currency called the"],
            ("Portugal", "Portugal uses one main language for its laws, namely", "Portugal is one of the countries of"),
        ],
        wrong={
            "Three texts": (f"{MESSI} won lasting sporting fame in", f"{MESSI} was born in the country of"),
            "go on after it": (MESSI, f"The sport of {MESSI}", f"{MESSI} was born in the country of"),
            "one question": (
                MESSI,
                f"{MESSI} is famous for success in the sport of",
                f"{MESSI} is famous for success in the sport of football and",
            ),
            "the same answer": (MESSI, f"{MESSI} is famous for success in the sport of", f"The sport of {MESSI} is"),
            "what has been read by then": (MESSI, f"The sport of {MESSI} is", f"{MESSI} was born in the country of"),
        },
        context=lambda lm: (lm,),
    ),
}
