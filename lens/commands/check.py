"""``python -m lens check MODEL``: will a reader's own model do?  A line a question: ✓, or what to do.

Every question is asked of the model as it is, on one short prompt, and leaves it as it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.nn.functional import cross_entropy

from lens.commands.arguments import command
from lens.edit import Request, sgd_step
from lens.gradient import capture
from lens.model import loading
from lens.model.tokens import start
from lens.readout import logit_lens
from lens.scale import cost

PROMPT, TARGET = "The capital of France is", "Rome"
LONGER = "The quick brown fox jumps over the lazy dog and the capital of Italy is"
STEPS = {
    "forward": "the logit lens",
    "lens": "the chapters on gradients",
    "shift": "forward-pass shift",
    "rome": "the arena",
    "memit": "the arena",
    "mask": "the chapters on masks",
    "lora": "relearning",
}
"""A step of ``lens.cost`` → where the book runs it."""


class Remedy(Exception):
    """What was found instead, and what to do."""


def add(commands) -> None:
    """Add the command ``check`` to the parser's ``commands``."""
    option = command(commands, "check", run, "will a model of yours do? one line a question: ✓ or what to do")
    option("model", help="a name, a hub id, a folder or a GGUF file")
    option("--device")
    option("--dtype", help="load its weights as this (default: as they are stored)")


def run(args) -> int:
    """Exit status 0 where every line has its ✓, else 1; never a traceback."""
    opened = []

    def open_it() -> str:
        opened.append(loading.load(args.model, device=args.device, dtype=args.dtype))
        return f"{opened[0]}"

    fine = [answer("opened", open_it)]
    for lm in opened:
        fine += [answer(name, question) for name, question in questions(lm)]
    return 0 if all(fine) else 1


def answer(name: str, question: Callable[[], str]) -> bool:
    """Print the line of one question; whether it has its ✓."""
    try:
        found, mark = question(), "✓"
    except Exception as error:  # whatever a stranger's model, tokenizer or machine raises is a finding
        found, mark = " ".join(str(error).split()) or type(error).__name__, "✗"
    print(f"{mark} {name}: {found}", flush=True)
    return mark == "✓"


def questions(lm) -> Iterator[tuple[str, Callable[[], str]]]:
    """(name, question) in the order they are asked; a question returns what it found, or raises."""
    asked = {"family": family, "space": space, "BOS": bos, "EOS": eos, "pad": pad, "dtype": dtype}
    for name, question in (asked | {"head(norm(h))": head}).items():
        yield name, partial(question, lm)
    depth = len(lm.layers)
    for layer, site in ((depth // 2, "ff2"), (depth // 4, "attn_out")):
        yield f"factors, layer {layer} {site}", partial(factors, lm, layer, site)
    yield "edit undone", partial(undone, lm)
    for step, where in STEPS.items():
        yield f"memory, {step} ({where})", partial(memory, lm, step)


def family(lm) -> str:
    return f"{lm.model.config.model_type}, {len(lm.layers)} layers, sites {', '.join(lm.sites)}"


def space(lm) -> str:
    """Do a prompt and its target read as running text?"""
    ids = lm.encode(PROMPT) + lm.target_ids(TARGET)
    text = lm.tokenizer.decode(ids)
    if not text.endswith(f"{PROMPT} {TARGET}"):
        raise Remedy(
            f"prompt and target together read {text!r}: give targets as token ids, the tokenizer has no space rule"
        )
    return f"{TARGET!r} is {' '.join(lm.words(lm.target_ids(TARGET)))}"


def bos(lm) -> str:
    first = start(lm.tokenizer)
    if first:
        return f"{' '.join(lm.words(first))} before every text"
    return f"none before a text (the tokenizer names {lm.tokenizer.bos_token})"


def eos(lm) -> str:
    end = lm.tokenizer.eos_token_id
    if end is None:
        raise Remedy("the tokenizer names no end of text: set lm.tokenizer.eos_token before you generate")
    if lm.encode(PROMPT)[-1] == end:
        raise Remedy("the tokenizer puts its end of text behind a prompt: load it with add_eos_token=False")
    return f"{lm.tokenizer.eos_token}, never behind a prompt"


def pad(lm) -> str:
    """Does a prompt read the same in a batch that is padded to a longer one?"""
    chosen = {"layers": [len(lm.layers) // 2], "sites": ["ff2"]}
    alone = capture(lm, PROMPT, TARGET, **chosen).stack("ff2")
    batched = capture(lm, [PROMPT, LONGER], TARGET, **chosen)[0].stack("ff2")
    _same(lm, batched, alone, "a padded batch changes δ of its shorter prompt", "capture one prompt at a time")
    return "a shorter prompt of a batch reads as it does alone"


def dtype(lm) -> str:
    digits = {torch.float16: 3, torch.bfloat16: 2}.get(lm.dtype)
    name = str(lm.dtype).removeprefix("torch.")
    return f"{name}, {digits} digits: identities hold to so many; --dtype float32 for all" if digits else name


def head(lm) -> str:
    """Are the logits that lens reads off the last layer's vector those of the model?"""
    vector = logit_lens(lm, PROMPT, k=1).vectors[-1, -1]
    with torch.no_grad():
        own = lm.model(torch.tensor([lm.encode(PROMPT)], device=lm.device)).logits[0, -1]
        read = lm.head(lm.norm(vector.to(lm.dtype)))
    wrong = "lens would read other logits than the model's own"
    error = _same(lm, read, own, wrong, "teach LanguageModel.head its family")
    return f"the model's own logits, to {error:.0e}"


def factors(lm, layer: int, site: str) -> str:
    """Is xᵀδ what autograd finds for the whole weight?"""
    ours = capture(lm, PROMPT, TARGET, layers=[layer], sites=[site]).gradient(layer, site).dense()
    weight, target = lm.site(layer, site).weight, lm.target_ids(TARGET)
    learns = weight.requires_grad
    weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            ids = torch.tensor([lm.encode(PROMPT) + target[:-1]], device=lm.device)
            logits = lm.model(ids).logits[0, -len(target) :].float()
            (full,) = torch.autograd.grad(cross_entropy(logits, torch.tensor(target, device=logits.device)), weight)
    finally:
        weight.requires_grad_(learns)
    full = full if type(lm.site(layer, site)).__name__ == "Conv1D" else full.T
    full = lm.family.sites[site].slice(full, lm.model.config)
    error = _same(lm, ours, full, "xᵀδ is another gradient than autograd's", "report it with the model's config")
    return f"xᵀδ is autograd's gradient, to {error:.0e}"


def undone(lm) -> str:
    """Does an edit change its weight, and does undoing it bring back every bit?"""
    edit = sgd_step(lm, Request(PROMPT.replace("France", "{}"), "France", TARGET))
    weights = [change.weight(lm) for change in edit.changes]
    before = [weight.clone() for weight in weights]
    with edit:
        changed = any(not weight.equal(kept) for weight, kept in zip(weights, before))
    if not changed:
        raise Remedy("a step of gradient descent changed no weight: load the model with --dtype float32")
    if not all(weight.equal(kept) for weight, kept in zip(weights, before)):
        raise Remedy("undoing an edit left other bits: report it with the model's config")
    return f"bit for bit, layer {edit.changes[0].layer} {edit.changes[0].site}"


def memory(lm, step: str) -> str:
    """Does the step of a chapter fit this machine?  Computed, not run."""
    needed, here = cost.memory(lm, step, dtype=lm.dtype).total, _memory_here(lm.device)
    size = f"{needed / 1e9:.2g} GB, computed"
    if here is None:
        return size
    if needed > here:
        larger = "a GPU" if lm.dtype.itemsize == 2 else "--dtype bfloat16, or a machine"
        raise Remedy(f"needs {size}, and there are {here / 1e9:.2g} GB: take {larger} with more memory")
    return f"{size}, of {here / 1e9:.2g} GB"


def _memory_here(device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _same(lm, found, wanted, what: str, remedy: str) -> float:
    """The relative error of ``found``, where rounding in the model's dtype explains it; else ``Remedy``."""
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    error = float((found - wanted).norm() / wanted.norm().clamp_min(1e-300))
    if not error <= max(1e-3, 16 * torch.finfo(lm.dtype).eps):
        raise Remedy(f"{what} (relative error {error:.1g}): {remedy}")
    return error
