"""Records short enough for the tiny models, whose tokenizer spells byte by byte, and editors made for the tests."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

import lens
from lens.edit import Change, Edit


def record(case: int, subject: str, new: str, true: str, **changes) -> dict:
    return {
        "case_id": case,
        "requested_rewrite": {
            "prompt": "The sea of {} is",
            "subject": subject,
            "target_new": {"str": new, "id": "new"},
            "target_true": {"str": true, "id": "true"},
        },
        "paraphrase_prompts": [f"{subject} is on the", f"Near {subject}, the water is"],
        "neighborhood_prompts": ["The sea of Oran is", "Genoa is on the", "Split is on the"],
        "generation_prompts": [f"In {subject} there", f"{subject} is", "On"],
    } | changes


@pytest.fixture
def few():
    """Five records; targets of one and of several tokens, of equal and of different lengths."""
    return [
        record(0, "Nice", "a", "t"),
        record(7, "Oslo", "is", "the"),
        record(3, "Bergen", "abc", "t"),
        record(11, "Rome", "a", "thera"),
        record(12, "Bari", "onion", "tiara"),
    ]


@pytest.fixture
def rank_one():
    """An editor that writes one outer product into FF2 of layer 1, strong and different for each subject."""

    def rank_one(lm, request, strength: float = 3.0) -> Edit:
        generator = torch.Generator().manual_seed(sum(map(ord, request.subject)))
        w = lm.weight(1, "ff2")
        x, delta = (
            torch.randn(1, size, generator=generator, dtype=torch.float64).to(
                w.dtype if w.itemsize > 2 else torch.float32
            )
            for size in w.shape
        )
        change = Change(1, "ff2", x / x.norm(), strength * delta / delta.norm())
        return Edit("rank_one", (request,), (change,), {"strength": strength}, 0.0, lm)

    return rank_one


@pytest.fixture
def dense(rank_one):
    """The same edit as one matrix: no branch, it has to be put into the weights."""

    def dense(lm, request) -> Edit:
        (change,) = rank_one(lm, request).changes
        return Edit("dense", (request,), (Change(1, "ff2", None, change.dense()),), {}, 0.0, lm)

    return dense


@pytest.fixture
def one_at_a_time():
    """The six shares as they are defined: edit applied, one prompt at a time, all logits, no batch and no branch."""

    @torch.no_grad()
    def measure(lm, record: dict, edit: Edit | None) -> dict:
        def scores(prompt: str, target: str) -> tuple[float, bool]:
            ids, wanted = lm.encode(prompt), lm.target_ids(target)
            log_p = lm.model(torch.tensor([ids + wanted])).logits[0].double().log_softmax(-1)
            rows = log_p[len(ids) - 1 : -1]
            mean = sum(float(row[t]) for row, t in zip(rows, wanted)) / len(wanted)
            return mean, rows.argmax(-1).tolist() == wanted

        rewrite = record["requested_rewrite"]
        new, true = rewrite["target_new"]["str"], rewrite["target_true"]["str"]
        found = {}
        with ExitStack() as stack:
            if edit is not None:
                stack.enter_context(edit)
            for name, prompts, say, other in [
                ("efficacy", [rewrite["prompt"].replace("{}", rewrite["subject"])], new, true),
                ("paraphrase", record["paraphrase_prompts"], new, true),
                ("neighborhood", record["neighborhood_prompts"], true, new),
            ]:
                both = [(scores(p, say), scores(p, other)) for p in prompts]
                found[f"{name}_accuracy"] = sum(correct for (_, correct), _ in both) / len(both)
                found[f"{name}_success"] = sum(a > b for (a, _), (b, _) in both) / len(both)
        return found

    return measure


@pytest.fixture
def run():
    """``counterfact`` without its bar, on texts that the tiny models can read."""

    def run(lm, records, editor, **options):
        options = {"texts": ["A ship in the harbor.", "The theater on the other side is older."]} | options
        return lens.evaluate.counterfact(lm, records, editor, progress=False, **options)

    return run
