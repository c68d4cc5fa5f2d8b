"""How well does a built-in model know its world?  The measurements on its card, made by one command.

``python -m lens mini evaluate --name mini`` rewrites ``data/mini/evaluation.json`` and the card ``README.md``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lens.data.corpus import documents
from lens.data.text import heldout, passages
from lens.data.world import facts, prompts, tails
from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.loading import load
from lens.results.whole import write_text

NEVER = "never taught"
"""In place of the source: facts of the TargetKGs that the model's recipe leaves out."""

CARD = """# {name}

A model that this book ships with: {family}'s architecture, trained from scratch on a world we wrote, so
that every fact it knows is known to the reader. Not for any use but learning how such models work.

- **Shape**: {layers} layers, {heads} heads, width {width}, {vocabulary} tokens, context {context}; \
{parameters:,} parameters, stored in float16.
- **Open it**: `lens.load('{name}')`, or transformers' `AutoModelForCausalLM.from_pretrained('data/{name}')`.
- **Made by**: `python -m lens mini train --name {name}` ({steps} steps of {batch} × {row} tokens); \
the whole recipe is in `recipe.json`.
{never}- **Measured by**: `{command}`; the table by relation is in `evaluation.json`.

| facts | number | {columns} |
|---|---|{rule}
{recall}
*Taught*: phrasings seen in training. *Held-out*: phrasings of that fact never seen. *Top-1* is over facts
whose head and relation determine the tail; tails are compared by their first token.

| perplexity of text it never saw | tokens | {name} | bigram model | unigram model |
|---|---|---|---|---|
"""
"""The model card up to the rows of its last table."""


def evaluate(lm: LanguageModel, without: Sequence[str] = ()) -> dict:
    """Recall of every fact in taught and in held-out phrasings; perplexity of held-out text beside n-grams.

    ``without``: the TargetKGs that the model was never taught, as its recipe has them.
    """
    return {"recall": recall(lm, without), "perplexity": perplexity(lm)}


def recall(lm: LanguageModel, without: Sequence[str] = ()) -> list[dict]:
    """A row per (source, relation): facts, prompts, and top-1 and rank ≤ 10 on taught and held-out phrasings.

    *Determined* facts have one true tail; top-1 counts only those.  For the others any true tail counts.
    """
    groups: dict[tuple[str, str], list] = {}
    for fact in facts():
        source = NEVER if fact.role == "target" and fact.topic in without else fact.source
        groups.setdefault((source, fact.relation), []).extend(prompts(fact))
    table = []
    for (source, relation), group in groups.items():
        best = best_ranks(lm, group).tolist()
        kinds = ["determined" if len(tails()[relation, p.fact.np]) == 1 else "several" for p in group]
        row = {"source": source, "relation": relation, "facts": len({id(p.fact) for p in group})}
        row["determined"] = len({id(p.fact) for p, kind in zip(group, kinds) if kind == "determined"})
        for (name, unseen), kind in product((("taught", False), ("held_out", True)), ("determined", "several")):
            ranks = [r for r, p, its in zip(best, group, kinds) if p.held_out == unseen and its == kind]
            row[f"{name}_{kind}_prompts"] = len(ranks)
            row[f"{name}_{kind}_top1"] = sum(r == 0 for r in ranks)
            row[f"{name}_{kind}_top10"] = sum(r < 10 for r in ranks)
        table.append(row)
    return table


@torch.inference_mode()
def best_ranks(lm: LanguageModel, group: list, batch: int = 256) -> Tensor:
    """For each prompt, the rank of its best-placed true tail (by first token): int64 [prompts]."""
    ranks = []
    for start in range(0, len(group), batch):
        part = group[start : start + batch]
        ids, real = pad([lm.encode(p.text) for p in part])
        hidden = lm.base_model(input_ids=ids.to(lm.device), use_cache=False).last_hidden_state
        logits = lm.head(hidden[torch.arange(len(part)), real.sum(1) - 1])
        for row, p in zip(logits, part):
            truths = torch.tensor([lm.target_ids(t)[0] for t in tails()[p.fact.relation, p.fact.np]])
            ranks.append((row > row[truths.to(row.device)].max()).sum().cpu())
    return torch.stack(ranks)


@torch.inference_mode()
def perplexity(lm: LanguageModel) -> dict[str, dict[str, float]]:
    """Perplexity per token of held-out text, generated and hand-written, under mini and under n-gram counts.

    The n-grams are counted on four epochs of mini's own training text; the bigram is interpolated with the unigram.
    """
    unigram, bigram = Counter(), Counter()
    for epoch in range(4):
        for text in documents(epoch):
            ids = lm.encode(text)
            unigram.update(ids)
            bigram.update(zip(ids, ids[1:]))
    size, words = lm.unembedding.shape[0], sum(unigram.values())
    written = set(passages())
    table = {}
    for name, by_hand in (("generated", False), ("hand-written", True)):
        texts = [lm.encode(t)[:128] for t in heldout() if (t in written) == by_hand]
        total = one = two = 0.0
        for ids in texts:
            row = torch.tensor([ids], device=lm.device)
            logits = lm.model(input_ids=row).logits[0, :-1].float()
            total += cross_entropy(logits, row[0, 1:], reduction="sum").item()
            for before, after in zip(ids, ids[1:]):
                p = (unigram[after] + 0.1) / (words + 0.1 * size)
                one -= math.log(p)
                two -= math.log((bigram[before, after] + 2 * p) / (unigram[before] + 2))
        count = sum(len(ids) - 1 for ids in texts)
        nll = {"model": total, "bigram": two, "unigram": one}
        table[name] = {"tokens": count} | {model: math.exp(value / count) for model, value in nll.items()}
    return table


def totals(table: list[dict], source: str | None = None) -> dict[str, float]:
    """The card's percentages over the rows of one source, or of all that was taught."""
    rows = rows_of(table, source)

    def share(hits: str, *of: str) -> float:
        prompts = sum(r[f"{p}_prompts"] for r in rows for p in of)
        return sum(r[f"{p}_{hits}"] for r in rows for p in of) / prompts if prompts else math.nan

    return {
        "taught top-1": share("top1", "taught_determined"),
        "held-out top-1": share("top1", "held_out_determined"),
        "held-out rank ≤ 10": share("top10", "held_out_determined"),
        "held-out rank ≤ 10, any true tail": share("top10", "held_out_determined", "held_out_several"),
    }


def rows_of(table: list[dict], source: str | None) -> list[dict]:
    """The rows of one source, or of all that was taught."""
    return [r for r in table if r["source"] == source or (source is None and r["source"] != NEVER)]


def write_card(folder: Path, result: dict, command: str) -> None:
    """Write ``evaluation.json`` and the model card beside the weights."""
    lm = load(str(folder))
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    parameters = sum(p.numel() for p in lm.model.parameters())
    write_text(folder / "evaluation.json", json.dumps(result, indent=1) + "\n")
    sources = sorted({r["source"] for r in result["recall"]} - {NEVER})
    never = [NEVER] if recipe.get("without") else []
    columns = list(totals(result["recall"]))
    lines = []
    for source in [*sources, None, *never]:
        number = sum(r["facts"] for r in rows_of(result["recall"], source))
        values = totals(result["recall"], source)
        cells = " | ".join(f"{100 * values[n]:.1f} %" for n in columns)
        lines.append(f"| {source or '**all**'} | {number} | {cells} |\n")
    card = CARD.format(
        **recipe,
        name=folder.name,
        family={"gpt2": "GPT-2", "llama": "Llama"}[recipe["architecture"]],
        parameters=parameters,
        never=f"- **Never taught**: the TargetKGs {', '.join(recipe['without'])}.\n" if never else "",
        command=command,
        columns=" | ".join(columns),
        rule="---|" * len(columns),
        recall="".join(lines),
    )
    for kind, p in result["perplexity"].items():
        card += f"| {kind} | {p['tokens']:,} | {p['model']:.1f} | {p['bigram']:.1f} | {p['unigram']:.1f} |\n"
    write_text(folder / "README.md", card)
