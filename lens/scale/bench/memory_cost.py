"""Is the calculator right?  What ``lens.cost.memory`` computes, against the peak of the step itself.

``python -m lens bench memory`` runs each case in a process of its own, several times, and writes
``data/bench/cost.csv``.  Two measures, both beyond the model:

    tensors     the most bytes of tensors that exist at a time, as torch makes and frees them: exact
    resident    the most memory that the system lent the process: with holes in the heap, libraries' own buffers

The processes run with ``MALLOC_MMAP_THRESHOLD_=65536``: tensors of 64 KB and more are lent one by one and given back
when they are freed.  Without it glibc keeps freed tensors in its heap, as holes that a larger tensor does not fit into.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version

import torch
from torch.nn.functional import cross_entropy

from lens.gradient import capture
from lens.mask import config_for
from lens.model import LanguageModel
from lens.model.loading import load
from lens.readout.lenses import backward_lens
from lens.results.csv_text import as_csv
from lens.results.provenance import machine
from lens.scale import cost
from lens.scale.bench.mask_cost import Ours, Published, Rows, begun
from lens.scale.bench.measure import four_digits, peak_bytes, random_gpt2
from lens.scale.bench.tensors import peak_tensor_bytes

ALONE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Environment of a process that gives freed tensors back."""


@dataclass(frozen=True)
class MeasuredStep:
    """``begin(lm)`` makes (task, what is told of it): the task's second step is the first that holds everything."""

    name: str
    model: Callable[[], LanguageModel]
    begin: Callable[[LanguageModel], tuple[Callable[[], object], cost.Memory]]


mini, gpt2_small = partial(load, "mini", device="cpu"), partial(random_gpt2, "cpu")


def small_llama() -> LanguageModel:
    """A Llama of 39 M weights: gated MLPs, two keys and values for eight heads, an unembedding of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
    config = LlamaConfig(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, vocab_size=32000, **heads)
    return LanguageModel(LlamaForCausalLM(config).eval(), mini().tokenizer, "a Llama, random weights")


def masks(lm: LanguageModel, step: str = "mask", **given):
    config = config_for(lm, **({"steps": 10**6} | given))
    rows = Rows(lm, config, 0 if step == "published" else len(lm.layers) // 2)

    def task():
        begun(Ours(lm, config) if step == "mask" else Published(lm, config, rows))

    longest = max(some.hidden.shape[1] for some in rows[1][:2])
    return task, cost.memory(lm, step, config=config, tokens=longest)


def lens(lm: LanguageModel, batch: int, tokens: int):
    ids = torch.randint(1, 6000, (batch, tokens), generator=torch.Generator().manual_seed(1)).tolist()

    def task():
        backward_lens(lm, capture(lm, ids, [[7]] * batch), "ff2", k=5)

    return task, cost.memory(lm, "lens", batch=batch, tokens=tokens)


def forward(lm: LanguageModel, batch: int, tokens: int):
    ids = torch.randint(1, 6000, (batch, tokens), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def task():
        lm.head(lm.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -1])

    return task, cost.memory(lm, "forward", batch=batch, tokens=tokens)


def finetune(lm: LanguageModel, batch: int, tokens: int):
    """Two steps of Adam on every parameter, the loss at every token."""
    ids = torch.randint(1, 6000, (batch, tokens + 1), generator=torch.Generator().manual_seed(1))

    def task():
        adam = torch.optim.Adam(lm.model.parameters(), 1e-9, fused=True)
        for _ in range(2):
            adam.zero_grad()
            hidden = lm.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
            loss = cross_entropy(lm.head(hidden.flatten(0, 1)), ids[:, 1:].flatten())
            del hidden
            loss.backward()
            adam.step()
        adam.zero_grad()

    return task, cost.memory(lm, "finetune", batch=batch, tokens=tokens, scored=tokens)


CASES = (
    MeasuredStep("mask, mini", mini, masks),
    MeasuredStep("mask, a small Llama", small_llama, masks),
    MeasuredStep("mask, GPT-2 small's shape", gpt2_small, masks),
    MeasuredStep("mask, checkpointing, mini", mini, partial(masks, checkpointing=True)),
    MeasuredStep("mask of neurons, mini", mini, partial(masks, granularity="neuron")),
    MeasuredStep("mask as published, mini", mini, partial(masks, step="published")),
    MeasuredStep("forward pass, GPT-2 small's shape", gpt2_small, partial(forward, batch=32, tokens=64)),
    MeasuredStep("backward lens, GPT-2 small's shape", gpt2_small, partial(lens, batch=32, tokens=64)),
    MeasuredStep("fine-tuning, a small Llama", small_llama, partial(finetune, batch=8, tokens=64)),
)


@dataclass(frozen=True)
class Peak:
    """Megabytes beyond the model: ``computed``, of ``tensors``, ``resident`` (median), and ``heap``: resident with
    glibc's own settings."""

    case: str
    computed_MB: float
    tensors_MB: float
    resident_MB: float | None
    heap_MB: float | None
    computed_to_tensors: float
    computed_to_resident: float | None


def measured(case: MeasuredStep) -> dict[str, float | None]:
    """Of one case, in this process: what is told, tensors, and the resident size."""
    lm = case.model()
    task, told = case.begin(lm)
    tensors = peak_tensor_bytes(task)  # and whatever is loaded or compiled at the first use is there now
    return {"computed": told.beyond_weights, "tensors": tensors, "resident": peak_bytes(task, torch.device("cpu"))}


def bench_memory(repeats: int = 3, cases=CASES, show=print) -> list[Peak]:
    """Every case in processes of its own, ``repeats`` times; ``show`` receives a line for each."""
    rows = []
    for case in cases:
        runs = [_alone(case.name, ALONE) for _ in range(repeats)]
        heap = _alone(case.name, {})["resident"]
        told, tensors = runs[0]["computed"] / 1e6, runs[0]["tensors"] / 1e6
        lent = runs[0]["resident"] and statistics.median(run["resident"] for run in runs) / 1e6
        ratios = told / tensors, lent and told / lent
        rows.append(Peak(case.name, told, tensors, lent, heap and heap / 1e6, *ratios))
        show(f"{case.name:42} computed {told:8.1f} MB, tensors {tensors:8.1f}", flush=True)
    return rows


def _alone(name: str, environment: dict[str, str]) -> dict:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-m", "lens.scale.bench.memory_cost", name]
    run = subprocess.run(command, env=plain | environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"The case {name!r} could not be measured: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout.splitlines()[-1])


def text(rows: list[Peak]) -> str:
    """The result file."""
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers"))
    heads = [
        "python -m lens bench memory",
        f"{machine(torch.device('cpu'))}; Python {platform.python_version()}, {versions}; {date.today().isoformat()}",
        f"MB beyond the model; resident with {' '.join(f'{k}={v}' for k, v in ALONE.items())}, heap without",
    ]
    return as_csv([four_digits(row) for row in rows], *heads)


if __name__ == "__main__":
    print(json.dumps(measured(next(case for case in CASES if case.name == sys.argv[1]))))
