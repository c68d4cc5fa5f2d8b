"""How were mini and its siblings trained?  From scratch, in one file: packing, AdamW, checkpoints, export.

``python -m lens mini train`` runs this.  The order of the data and every initial weight follow from the seed, so a
machine repeats itself bit for bit; a killed run goes on from its last checkpoint and ends in the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lens.data.corpus import documents
from lens.results.checkpoint import resume, store
from lens.results.lock import held_alone
from lens.results.whole import whole, write_text
from lens.world.recipe import Recipe, new_model, record
from lens.world.tokenizer import save_tokenizer, train_tokenizer

IGNORE = -100
"""Label of padding: cross-entropy leaves it out."""


@held_alone("out", folders=("work",))
def train(out: Path, work: Path, recipe: Recipe = Recipe(), device: str | None = None, every: int = 200) -> Path:
    """Train a model and save it to ``out`` as a transformers folder; ``work`` keeps the checkpoint until it is done."""
    if recipe.steps < 1:
        raise ValueError(f"Training takes at least one step, and steps is {recipe.steps}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(recipe.vocabulary, recipe.seed)
    model = new_model(recipe).to(device)
    if device == "cpu":
        model.set_attn_implementation("eager")  # at 128 tokens the fused kernel costs a third of a step
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=(0.9, 0.98),
    )
    checkpoint = work / f"checkpoint-{_fingerprint(recipe, tokenizer)}.pt"

    def take(state: dict) -> int:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    start = resume(checkpoint, take, 0)
    batches = Batches(tokenizer, recipe)
    bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, unit="step", desc="training mini")
    # Only where the hardware multiplies bfloat16 itself: emulated, it would be slower than float32.
    bfloat16 = device == "cuda" or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    model.train()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * schedule(step, recipe)
        ids, labels = (t.to(device) for t in batches[step])
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{optimizer.param_groups[0]['lr']:.1e}")
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            store(checkpoint, state)
    export(model, tokenizer, out, recipe)
    checkpoint.unlink()
    return out


def schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / (recipe.steps - recipe.warmup)))


class Batches:
    """``batches[step]`` → (ids, labels), each [batch, row]: documents packed into rows, the same for the same step.

    A row begins where a document begins and holds whole documents, each followed by the end-of-text token.
    """

    def __init__(self, tokenizer, recipe: Recipe):
        self.tokenizer, self.recipe = tokenizer, recipe
        self.starts = [0]  # the first step of each epoch
        self.epoch, self.rows = -1, []

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        epoch = bisect_right(self.starts, step) - 1
        while True:
            if epoch != self.epoch:
                self.epoch, self.rows = epoch, self._pack(epoch)
            place = step - self.starts[epoch]
            if (place + 1) * self.recipe.batch <= len(self.rows):
                break
            if len(self.starts) == epoch + 1:
                self.starts.append(self.starts[epoch] + len(self.rows) // self.recipe.batch)
            epoch += 1
        rows = self.rows[place * self.recipe.batch : (place + 1) * self.recipe.batch]
        ids = torch.zeros(len(rows), self.recipe.row, dtype=torch.long)
        labels = torch.full_like(ids, IGNORE)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
        return ids, labels

    def _pack(self, epoch: int) -> list[list[int]]:
        texts = documents(epoch, self.recipe.seed, self.recipe.without)
        end, size = self.tokenizer.eos_token_id, self.recipe.row
        open_rows: list[list[list[int]]] = [[] for _ in range(size + 1)]  # by free space left
        rows: list[list[int]] = []
        for ids in self.tokenizer(texts)["input_ids"]:
            ids = ids[: size - 1] + [end]
            space = next((s for s in range(len(ids), size + 1) if open_rows[s]), None)
            row = open_rows[space].pop() if space is not None else []
            if space is None:
                rows.append(row)
            row += ids
            open_rows[size - len(row)].append(row)
        Random(f"{self.recipe.seed}/{epoch}/rows").shuffle(rows)
        return rows


def export(model, tokenizer, out: Path, recipe: Recipe) -> None:
    """Save weights (rounded to float16, loaded as float32), tokenizer and recipe, in transformers' own format."""
    from safetensors.torch import save

    out.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    config = model.config.to_dict() | {"dtype": "float32", "torch_dtype": "float32"}
    config.pop("_name_or_path", None)
    write_text(out / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
    save_tokenizer(tokenizer, out)
    weights = {
        name: w.detach().to("cpu", torch.float16).contiguous()
        for name, w in model.state_dict().items()
        if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    with whole(out / "model.safetensors") as temporary:
        temporary.write_bytes(save(weights, metadata={"format": "pt"}))
    write_text(out / "recipe.json", json.dumps(record(recipe), indent=1) + "\n")


def _fingerprint(recipe: Recipe, tokenizer) -> str:
    """A checkpoint continues only the run it came from: same recipe, same tokenizer, same corpus."""
    corpus = documents(0, recipe.seed, recipe.without)
    text = json.dumps(record(recipe)) + tokenizer.backend_tokenizer.to_str() + "\n".join(corpus)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
