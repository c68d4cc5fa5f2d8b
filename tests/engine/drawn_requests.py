"""More than a hundred requests, good and bad, such as readers make, and the explorers that are asked."""

from __future__ import annotations

import random

import lens
from lens.course.widgets import EditExplorer, LensExplorer, MaskExplorer, OverlapExplorer
from lens.data import paths
from lens.mask import load, shipped
from lens.model import tokens

FRANCE = {"prompt": "The capital of France is", "subject": "France", "target": "Rome"}
SUBNETWORKS = ("building-weight-0", "building-neuron-0", "short/building-last-layer")
TARGETS = (
    "Rome",
    "Berlin",
    "Buenos Aires is far",
    ",",
    "##s",
    "東京",
    "🙂",
    " the",
    "'s",
    "<script>",
    "x<|endoftext|>y",
)

STRANGE = (
    "", " ", "\n\t ", "\u3000\x1c", "{}", "word " * 300, "</script><script>alert(1)</script>", "🙂👩‍👩‍👧‍👦 emoji",
    "a \ud800 b", "don't \"say\" \\ it", "\u202egnirts\u202c", "e\u0301 é", "The capital of France is ",
    "\x00\x7f\x85\xa0", "日本語", "<|endoftext|>", "constructor", "__proto__",
)  # fmt: skip
"""Texts that a field may hold, in the place of a good one."""


def subnetwork(name: str):
    return load(paths.root() / "runs" / "mini" / f"{name}.safetensors")


def explorers(mini) -> dict:
    """Small ones of every kind, by name."""
    requests = [
        lens.Request("The capital of {} is", "France", "Rome"),
        lens.Request("The capital of {} is", "Italy", "Buenos Aires is far", "Rome"),
        next(r for r in lens.data.records() if len(mini.target_ids(r["requested_rewrite"]["target_new"]["str"])) == 1),
    ]
    prompts = [("The capital of France is", "Rome")]
    return {
        "lenses": LensExplorer(mini, prompts, ("stream", "ff1", "ff2"), k=5),
        "stream": LensExplorer(mini, prompts, "stream", k=10, layers=[0, 5, 7]),
        "attention": LensExplorer(mini, prompts, ("attn_out", "attn_q", "stream"), k=3, layers=[3, 6]),
        "edits": EditExplorer(mini, requests, ("shift", "sgd_step"), layers=[4, 7], sizes=[0.5, 1], neighbors=2),
        "shifts": EditExplorer(mini, requests[:1], "shift", layers=[6], sizes=[1], k=2),
        "masks": MaskExplorer(mini, {name: subnetwork(name) for name in SUBNETWORKS}, _facts()),
        "overlap": OverlapExplorer(
            [*(shipped("building", seed) for seed in range(3)), subnetwork("building-neuron-0")], mini, k=3
        ),
        "neurons": OverlapExplorer([shipped(name, granularity="neuron") for name in ("building", "fruit", "sun")]),
    }


def _facts() -> dict:
    return {name: lens.data.knowledge("building") for name in SUBNETWORKS}


def requests(mini) -> list[tuple[str, dict]]:
    """(explorer, request): prompts of 1 to 40 tokens out of text, each kind of request, and whatever is bad."""
    text = (paths.root() / "world" / "heldout.txt").read_text(encoding="utf-8")
    ids, draw, found = tokens.bare(mini.tokenizer, text[:60_000]), random.Random(5), []

    def cut(length: int) -> str:
        start = draw.randrange(len(ids) - 50)
        return mini.tokenizer.decode(ids[start : start + length])

    for i in range(40):
        prompt, target = cut(1 + i), TARGETS[i % len(TARGETS)]
        found.append((("lenses", "attention")[i % 8 == 7], {"prompt": prompt, "target": target}))
        if i % 3 == 0:
            found.append(("stream", {"prompt": cut(1 + i), "target": target if i % 2 else ""}))
            found.append(("masks", {"mask": i // 3 % 3, "prompt": cut(1 + i)}))
        if i % 4 == 0:
            words = cut(2 + i // 2).split() or ["x"]
            fact = {"prompt": " ".join(words), "subject": draw.choice(words).strip(".,'\"") or "x", "target": target}
            found.append(("edits", fact))
            found.append(("shifts", FRANCE | {"free": cut(1 + i), "layer": i % 8, "eta": 0.1 + i / 20}))
    edits = [
        FRANCE, FRANCE | {"prompt": "France is a country in"}, FRANCE | {"prompt": "My aunt in France likes"},
        FRANCE | {"prompt": "The author of France is", "target": "Homer"}, FRANCE | {"target": "Paris"}, FRANCE | {"subject": "Paris"}, FRANCE | {"prompt": "{} has the capital"},
        FRANCE | {"target": "Buenos Aires is far", "free": "The capital of Spain is"}, {"fact": 1},
        {"fact": 2, "free": "A cafe is a kind of"}, {"fact": 0, "layer": 5, "eta": 0.3},
        {"fact": 2, "layer": -1, "eta": 0, "editor": 1}, FRANCE | {"layer": 2, "eta": 0.2, "editor": 1},
        {"fact": 9}, {"fact": "0"}, {"fact": None}, {"fact": 0, "layer": 8, "eta": 1},
        {"fact": 0, "layer": -9, "eta": 1},
        {"fact": 0, "layer": 7}, {"fact": 0, "layer": "7", "eta": 1}, {"fact": 0, "layer": 7, "eta": "1"},
        {"fact": 0, "layer": 7, "eta": 1, "editor": 2}, {"fact": 0, "layer": True, "eta": 1}, {},
    ]  # fmt: skip
    found += [("edits", one) for one in edits]
    for text in STRANGE:
        found += [("lenses", {"prompt": text, "target": "Rome"}), ("lenses", {"prompt": "The capital", "target": text})]
        found += [("stream", {"prompt": "The capital", "target": text}), ("masks", {"mask": 1, "prompt": text})]
        found += [("shifts", FRANCE | {name: text}) for name in ("prompt", "subject", "target", "free")]
    found += [("masks", {"mask": number, "prompt": "x"}) for number in (3, -1, None, "0", [1])]
    found += [("masks", {"mask": 0, "layer": layer}) for layer in (4, 7, 3, "4", None, True)]
    found += [("masks", {"mask": number, "layer": 7}) for number in (1, 2, 3)]
    found += [("overlap", {"of": of}) for of in ([0, 1], [3, 1], [2, 0, 1], [1, 3, 2], [0, 99, 1])]
    found += [("overlap", {"of": of, "prompt": cut(7)}) for of in ([0, 1], [3, 1], [0, 1, 2], [1, 3, 2], [0])]
    found += [("overlap", {"of": [0, 1], "prompt": text}) for text in STRANGE]
    found += [("neurons", {"of": [0, 1], "prompt": "A cafe is"}), ("masks", {"mask": 1, "layer": 7, "prompt": ""})]
    found += [("neurons", {"of": of}) for of in ([0, 2], [0, 1, 2], [], [1], [1, 1], ["0", None], [[0], 1], None, 3)]
    found += [("lenses", {}), ("masks", {}), ("overlap", {}), ("lenses", {"prompt": 7, "target": None})]
    return found
