"""How well does mini know its world?  The measurements on its card, made by one command.

``python -m lens mini evaluate`` measures and rewrites ``data/mini/evaluation.json`` and the card ``README.md``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lens.data.manifest import write_text
from lens.data.text import heldout
from lens.data.world import facts, prompts, tails
from lens.mini.corpus import documents
from lens.model import LanguageModel, load


def evaluate(lm: LanguageModel) -> dict:
    """Recall of every fact in taught and in held-out phrasings, by source; perplexity of held-out text beside n-grams."""
    return {"recall": recall(lm), "perplexity": perplexity(lm)}


def recall(lm: LanguageModel) -> list[dict]:
    """A row per (source, relation): facts, prompts, and top-1 and rank ≤ 10 on taught and held-out phrasings.

    *Determined* facts have one true tail; top-1 counts only those.  For the others any true tail counts.
    """
    groups: dict[tuple[str, str], list] = {}
    for fact in facts():
        groups.setdefault((fact.source, fact.relation), []).extend(prompts(fact))
    table = []
    for (source, relation), group in groups.items():
        best = best_ranks(lm, group)
        row = {"source": source, "relation": relation, "facts": len({id(p.fact) for p in group})}
        row["determined"] = len({id(p.fact) for p in group if len(tails()[p.fact.relation, p.fact.np]) == 1})
        for name, unseen in (("taught", False), ("held_out", True)):
            for kind, only in (("determined", True), ("several", False)):
                ranks = [
                    r
                    for r, p in zip(best.tolist(), group)
                    if p.held_out == unseen and (len(tails()[relation, p.fact.np]) == 1) == only
                ]
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
        rows = [lm.encode(p.text) for p in part]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in zip(ids, rows):
            row[: len(tokens)] = torch.tensor(tokens)
        last = torch.tensor([len(r) - 1 for r in rows])
        hidden = lm.model.base_model(input_ids=ids.to(lm.device), use_cache=False).last_hidden_state
        logits = lm.head(hidden[torch.arange(len(rows)), last])
        for row, p in zip(logits, part):
            truths = torch.tensor([lm.target_ids(t)[0] for t in tails()[p.fact.relation, p.fact.np]])
            ranks.append((row > row[truths.to(row.device)].max()).sum().cpu())
    return torch.stack(ranks)


@torch.inference_mode()
def perplexity(lm: LanguageModel) -> dict:
    """Perplexity per token of the held-out text under mini, and under unigram and bigram counts of its training text."""
    texts = [ids for ids in (lm.encode(t)[:128] for t in heldout()) if len(ids) > 1]
    total, count = 0.0, 0
    for ids in texts:
        ids = torch.tensor([ids], device=lm.device)
        logits = lm.model(input_ids=ids).logits[0, :-1].float()
        total += cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    unigram, bigram = Counter(), Counter()
    for epoch in range(4):
        for text in documents(epoch):
            ids = lm.encode(text)
            unigram.update(ids)
            bigram.update(zip(ids, ids[1:]))
    size, words = lm.unembedding.shape[0], sum(unigram.values())
    one = two = 0.0
    for ids in texts:
        for before, after in zip(ids, ids[1:]):
            p = (unigram[after] + 0.1) / (words + 0.1 * size)
            # Interpolated with the unigram: absolute discounting would say the same to the second digit.
            q = (bigram[before, after] + 2.0 * p) / (unigram[before] + 2.0)
            one, two = one - math.log(p), two - math.log(q)
    return {
        "tokens": count,
        "mini": math.exp(total / count),
        "bigram": math.exp(two / count),
        "unigram": math.exp(one / count),
    }


def totals(table: list[dict], source: str | None = None) -> dict[str, float]:
    """The card's percentages over the rows of one source, or of all."""
    rows = [r for r in table if source in (None, r["source"])]

    def share(hits: str, *of: str) -> float:
        prompts = sum(r[f"{p}_prompts"] for r in rows for p in of)
        return sum(r[f"{p}_{hits}"] for r in rows for p in of) / prompts if prompts else math.nan

    return {
        "taught top-1": share("top1", "taught_determined"),
        "held-out top-1": share("top1", "held_out_determined"),
        "held-out rank ≤ 10": share("top10", "held_out_determined"),
        "held-out rank ≤ 10, any true tail": share("top10", "held_out_determined", "held_out_several"),
    }


def write_card(folder: Path, result: dict, command: str) -> None:
    """Write ``evaluation.json`` and the model card beside the weights."""
    lm = load(str(folder))
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    parameters = sum(p.numel() for p in lm.model.parameters())
    write_text(folder / "evaluation.json", json.dumps(result, indent=1) + "\n")
    sources = sorted({r["source"] for r in result["recall"]})
    names = list(totals(result["recall"]))
    lines = [
        "# mini",
        "",
        "The model this book ships with: GPT-2's architecture, trained from scratch on a world we wrote, so that every",
        "fact it knows is known to the reader. Not for any use but learning how such models work.",
        "",
        f"- **Shape**: {recipe['layers']} layers, {recipe['heads']} heads, width {recipe['width']}, "
        f"{recipe['vocabulary']} tokens, context {recipe['context']}; {parameters:,} parameters, stored in float16.",
        "- **Open it**: `lens.load('mini')`, or transformers' `AutoModelForCausalLM.from_pretrained('data/mini')`.",
        f"- **Made by**: `python -m lens mini train` ({recipe['steps']} steps of {recipe['batch']} × {recipe['row']} "
        "tokens); the whole recipe is in `recipe.json`.",
        f"- **Measured by**: `{command}`; the table by relation is in `evaluation.json`.",
        "",
        "| facts | number | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for source in [*sources, None]:
        number = sum(r["facts"] for r in result["recall"] if source in (None, r["source"]))
        values = totals(result["recall"], source)
        cells = " | ".join(f"{100 * values[n]:.1f} %" for n in names)
        lines.append(f"| {source or '**all**'} | {number} | {cells} |")
    ppl = result["perplexity"]
    lines += [
        "",
        "*Taught*: phrasings seen in training. *Held-out*: phrasings of that fact never seen. *Top-1* is over facts whose",
        "head and relation determine the tail; tails are compared by their first token.",
        "",
        f"Perplexity on {ppl['tokens']:,} tokens of text it never saw: **{ppl['mini']:.1f}**; "
        f"a bigram model {ppl['bigram']:.1f}, a unigram model {ppl['unigram']:.1f}.",
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")
