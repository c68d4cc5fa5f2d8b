"""What does a model say without a subnetwork, without one part of it, or with one part given back?

    W ← W ∘ (1 − m),      m the whole mask, or m in one layer or at one site and 0 elsewhere,
                          or the whole mask but for one layer or one head, where it is 0

The layers below the lowest mask run once; of the rest, every variant runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lens.course.widgets.answers import Answers, answers, next_words
from lens.course.widgets.explorer import Words
from lens.data import Knowledge, Prompt
from lens.kernels.bits import pack
from lens.mask import Subnetwork
from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.tokens import first_token
from lens.model.upper import UpperLayers

COUNTS = {"target": 2, "unseen": 1, "control_held_out": 2}
"""How many prompts of each set of a TargetKG are shown."""

BEGINNING = 9
"""So many words of a text are a prompt."""


@dataclass(frozen=True)
class AskedFact:
    """A prompt: the set it is of, its text, and the token that its fact has next (of a text, that the model says)."""

    of: str
    text: str
    token: int


def questions(lm: LanguageModel, kg: Knowledge) -> tuple[AskedFact, ...]:
    """Some facts of the target's sets and of the control's, and one beginning of a text, the same ones every time.

    Facts are spread over a set, and of those that the model knows where it knows enough.
    """
    found = []
    for name, count in COUNTS.items():
        facts = list({prompt.fact: prompt for prompt in reversed(getattr(kg, name))}.values())
        some = facts[:: max(1, len(facts) // (4 * count))]
        said = answers(lm, [p.text for p in some], [_first(lm, p) for p in some], 1).said.tolist() if some else []
        some = [some[i] for i in sorted(range(len(some)), key=lambda i: not said[i])]
        found += [AskedFact(name, p.text, _first(lm, p)[0]) for p in some[:count]]
    for text in kg.text_held_out[:1]:
        found.append(AskedFact("text_held_out", *typed(lm, " ".join(text.split()[:BEGINNING]))))
    return tuple(found)


def typed(lm: LanguageModel, text: str) -> tuple[str, int]:
    """A prompt of the reader's, and what the model says behind it."""
    return text, int(answers(lm, [text], [0], 1).ids[0, 0])


def _first(lm: LanguageModel, prompt: Prompt) -> list[int]:
    return [first_token(lm.tokenizer, lm.target_ids(prompt.target))]


def parts(subnetwork: Subnetwork) -> list[Subnetwork]:
    """The whole, then each layer's part, then each site's, then, of several layers, the whole but for each layer."""
    layers, sites = layers_and_sites(subnetwork)
    bits = subnetwork.bits
    some = [{key: b for key, b in bits.items() if key[0] == layer} for layer in layers]
    some += [{key: b for key, b in bits.items() if key[1] == site} for site in sites]
    if len(layers) > 1:
        some += [{key: b for key, b in bits.items() if key[0] != layer} for layer in layers]
    return [subnetwork, *(subnetwork.with_bits(part, "a part") for part in some)]


def heads(subnetwork: Subnetwork) -> dict[int, int]:
    """Layer → number of its heads, of the layers whose attention is masked."""
    found: dict[int, int] = {}
    for layer, _, head in subnetwork.density("head"):
        found[layer] = max(found.get(layer, 0), head + 1)
    return found


def but_for_head(subnetwork: Subnetwork, layer: int, head: int) -> Subnetwork:
    """The whole but for one head: its outputs of q, k and v (shared where heads share them), its inputs of attn_out."""
    bits, every = dict(subnetwork.bits), heads(subnetwork)[layer]
    for key in [key for key in bits if key[0] == layer and key[1].startswith("attn_")]:
        m = subnetwork.mask(*key).clone()
        by_head = (m if key[1] == "attn_out" else m.T).unflatten(0, (-1, subnetwork.head_dim))  # [heads, head_dim, …]
        by_head[head * len(by_head) // every] = False
        bits[key] = pack(m)
    return subnetwork.with_bits(bits, "all but a head")


def layers_and_sites(subnetwork: Subnetwork) -> tuple[list[int], list[str]]:
    """What is masked, in the model's order."""
    keys = subnetwork.bits
    return list(dict.fromkeys(layer for layer, _ in keys)), list(dict.fromkeys(site for _, site in keys))


def said(lm: LanguageModel, asked: Sequence[AskedFact], removed: Sequence[Subnetwork], k: int) -> dict:
    """Plain JSON: the ``questions``, what is said ``before`` [questions] and ``after`` [removed][questions]."""
    words = Words()
    rows = [lm.encode(q.text) for q in asked]
    ids, real = pad(rows)
    with torch.no_grad():
        upper = UpperLayers(lm, ids, min(layer for one in removed for layer, _ in one.bits))
        last = torch.arange(len(rows)), real.sum(1) - 1

        def read(normed) -> Answers:
            return next_words(lm, normed[last], [q.token for q in asked], k)

        before, after = read(upper.normed), []
        for part in removed:
            with part.removed(lm):
                after.append(read(upper()))
    return {
        "questions": [[q.of, q.text, lm.word(q.token).removeprefix("·")] for q in asked],
        "before": before.plain(lm, words),
        "after": [found.plain(lm, words) for found in after],
        "words": words.table,
    }


def densities(subnetwork: Subnetwork) -> dict:
    """Plain JSON: the share of weights in the mask, of all, by layer, by site, of ``modules`` [layers][sites] and of
    their ``heads`` (None where there are none); ``weights``: how many are in it, and of how many."""
    layers, sites = layers_and_sites(subnetwork)
    modules, heads = subnetwork.density("module"), {}
    for (layer, site, head), share in subnetwork.density("head").items():
        heads.setdefault((layer, site), []).append(share)
    total, density = sum(rows * columns for rows, columns in subnetwork.shapes.values()), subnetwork.density()
    found = {"density": density, "weights": [round(total * density), total], "layers": layers, "sites": sites}
    found |= {f"by_{what}": list(subnetwork.density(what).values()) for what in ("layer", "site")}
    for name, some in (("modules", modules), ("heads", heads)):
        found[name] = [[some.get((layer, site)) for site in sites] for layer in layers]
    return found
