"""What would four tables of the two papers cost?  GPU-hours, computed from shapes; each assumption stands in its row.

Nothing here was measured.  Operations come from ``lens.cost.flops``; the hours assume a share of a GPU's peak and of
its bandwidth (``Operations.hours``).  Loading, tokenizing and a process's start are left out, and so is MEND's own
training.  What the papers do not say, or this book does not have, is assumed in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lens.mask.config import Config
from lens.scale.cost.machines import MACHINES, Machine, Operations
from lens.scale.cost.memory import flops
from lens.scale.cost.shapes import shape

PROMPT = 12
"""Tokens of a CounterFact prompt, and of a prompt of a knowledge graph: an assumption."""

EVALUATION = "a record alone: 13 prompts, 10 texts to 100 tokens, perplexity of 1,000 tokens"


@dataclass(frozen=True)
class Item:
    """One row of one table: what runs, how often, the operations of all of it, and what was assumed."""

    table: str
    what: str
    model: str
    operations: Operations
    assumed: str
    dtype: str = "float32"

    def hours(self, machine: Machine, utilization: float = 0.3) -> float:
        return self.operations.hours(machine, self.dtype, utilization)


def backward_lens_table_1(records: int = 1000, model: str = "gpt2-xl") -> list[Item]:
    """*Backward Lens*, Table 1: six editors and the model as it is on CounterFact; its full set has 21,919 records."""
    s, sizes = shape(model), ((13, PROMPT, 1), (10, 100, 90), (1, 1000, 1000))
    ask = Operations(0, 90 * 4 * s.parameters)  # each new token reads all weights
    for rows, tokens, scored in sizes:
        ask += flops(s, "forward", batch=rows, tokens=tokens, scored=scored)
    prompt = flops(s, "forward", tokens=PROMPT)
    tuning = {
        layer: 25 * flops(s, "finetune", tokens=PROMPT, layers=(layer,), sites=("ff2",))
        + Operations(-25 * 2 * PROMPT * s.matrices * layer // s.layers)  # what lies below is run once
        for layer in (0, 35)
    }
    rome, memit = (20 * flops(model, name, tokens=PROMPT + 10) for name in ("rome", "memit"))
    edits = {
        "unedited": (Operations(0), ""),
        "fine-tuning, layer 0": (prompt + tuning[0], "25 steps"),
        "fine-tuning, layer 35": (prompt + tuning[35], "25 steps"),
        "MEND": (flops(model, "lens", tokens=PROMPT), "one backward pass; its network's training left out"),
        "ROME": (22 * prompt + rome, "20 steps over 21 contexts; C over 100,000 tokens"),
        "MEMIT": (7 * 6 * prompt + memit, "20 steps over 6 contexts, 5 layers; C over 100,000 tokens"),
        "forward-pass shift": (prompt, "one forward pass"),
    }
    texts = flops(model, "statistics", batch=200, tokens=500)  # one pass takes all layers' second moments
    items = []
    for name, (edit, said) in edits.items():
        done = records * (edit + ask) + (texts if name in ("ROME", "MEMIT") else Operations(0))
        assumed = "; ".join(filter(None, (said, EVALUATION)))
        items.append(Item("Backward Lens, Table 1", f"{name}, {records:,} records", model, done, assumed))
    return items


def knowledge_subnetworks(
    published: bool = False, kgs: int = 10, seeds: int = 3, config: Config | None = None
) -> list[Item]:
    """*Knowledge-Critical Subnetworks*, Tables 2, 6 and 16, by ``lens.mask`` or by the ``published`` formulation."""
    c = config or Config()
    step = "published" if published else "mask"
    batch = f"{c.targets} + {c.controls} prompts and {c.texts} texts of {c.tokens} tokens a step"
    what = f"weight masks, {kgs} KGs × {seeds} seeds × {c.steps:,} steps"
    assumed = f"{batch}: this book's; every run to the last step"
    items = []
    for table, model in (("2", "gpt2"), ("16", "gpt2-medium"), ("16", "gpt2-large"), ("16", "gpt2-xl")):
        done = kgs * seeds * c.steps * flops(model, step, config=c, tokens=PROMPT)
        items.append(Item(f"Subnetworks, Table {table}", what, model, done, assumed))
    if published:
        return items
    text = dict(batch=32, tokens=64)
    every = flops("gpt2", "finetune", **text) + flops("gpt2", "lora", **text) + flops("gpt2", "forward", **text)
    steps = 3 * 5 * 9741 // 32 * 5  # three models, five choices a question, five epochs
    what = f"full, LoRA, head × 3 models × {seeds} seeds"
    said = "CommonsenseQA's 9,741 questions × 5 choices of 64 tokens, 5 epochs, batches of 32; masks are Table 2's"
    return [items[0], Item("Subnetworks, Table 6", what, "gpt2", seeds * steps * every, said), *items[1:]]


def every_table(records: int = 1000) -> list[Item]:
    """All of them."""
    rows = backward_lens_table_1(records) + backward_lens_table_1(21_919)
    ours = knowledge_subnetworks()
    theirs = [replace(item, table=f"{item.table}, as published") for item in knowledge_subnetworks(published=True)]
    return rows + ours + theirs


def markdown(items: Iterable[Item], machine: Machine | str = "A100", utilization: float = 0.3) -> str:
    """The items as a Markdown table, hours on ``machine``.

    >>> "computed" in markdown(backward_lens_table_1(10))
    True
    """
    m = MACHINES[machine] if isinstance(machine, str) else machine
    head = f"| table | what | model | {m.name}-hours, computed at {utilization:.0%} of peak | assumed |"
    rows = (f"| {i.table} | {i.what} | {i.model} | {i.hours(m, utilization):,.2f} | {i.assumed} |" for i in items)
    return "\n".join([head, "|---|---|---|--:|---|", *rows])
