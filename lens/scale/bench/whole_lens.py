"""What do the lens and an edit cost?  Times against the floor: a forward pass, and an input-only backward pass.

``python -m lens bench lens`` and ``bench edit`` print the ratios.  The models have GPT-2's shapes and random weights:
times mean what they would mean on the real ones, and nothing has to be downloaded.  An edit's floor is the pass that
says what the model would answer: every layer, and the head at the last token.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from lens.edit import Request, shift
from lens.gradient import capture
from lens.model import LanguageModel
from lens.model.watching import as_a_function
from lens.readout.lenses import backward_lens
from lens.scale.bench.measure import interleaved, peak_bytes, random_gpt2

TOKENS = 8
PROMPTS = 100
XL = {"n_embd": 1600, "n_layer": 48, "n_head": 25}


def bare_pass(lm: LanguageModel, ids: list[int], target: int) -> None:
    """The floor: one forward pass and the gradient of the loss with respect to the embeddings, nothing kept."""
    with as_a_function(lm.model):
        e = lm.model.get_input_embeddings()(torch.tensor([ids], device=lm.device)).detach().requires_grad_()
        logits = lm.model(inputs_embeds=e, use_cache=False).logits[0, -1:]
        torch.autograd.grad(cross_entropy(logits, torch.tensor([target], device=lm.device)), e)


def whole_lens(lm: LanguageModel, prompts: list[list[int]], targets: list[list[int]]) -> None:
    """Backward lens of every layer and token: FF1's inputs and FF2's VJPs, five words and the target's rank each."""
    trace = capture(lm, prompts, targets, sites=("ff1", "ff2"))
    for site in ("ff1", "ff2"):
        backward_lens(lm, trace, site, k=5)


def bench_lens(device: str | None = None, repeats: int = 9) -> dict[str, float]:
    """Milliseconds and ratios of capture and of the whole backward lens, one prompt and many."""
    lm = random_gpt2(device)
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(1, 6000, (PROMPTS, TOKENS), generator=generator).tolist()
    targets = torch.randint(1, 6000, (PROMPTS, 1), generator=generator).tolist()
    one, want = prompts[0], targets[0]
    tasks = [lambda: bare_pass(lm, one, want[0]), lambda: capture(lm, one, want), lambda: whole_lens(lm, [one], [want])]
    bare, captured, whole = interleaved(tasks, lm.device, repeats)

    def singly(task):
        for prompt, target in zip(prompts, targets):
            task(lm, [prompt], [target])

    def grab(lm, prompts, targets):
        capture(lm, prompts, targets, sites=("ff1", "ff2"))

    tasks = [lambda: singly(grab), lambda: grab(lm, prompts, targets)]
    tasks += [lambda: singly(whole_lens), lambda: whole_lens(lm, prompts, targets)]
    grab_alone, grab_together, lens_alone, lens_together = interleaved(tasks, lm.device, repeats=1, warm_up=False)
    return {
        "bare pass, ms": 1e3 * bare,
        "capture of every site, ms": 1e3 * captured,
        "whole backward lens, ms": 1e3 * whole,
        "capture / bare pass": captured / bare,
        "whole lens / bare pass": whole / bare,
        f"capture, {PROMPTS} one by one, s": grab_alone,
        f"capture, {PROMPTS} batched, s": grab_together,
        "capture, one by one / batched": grab_alone / grab_together,
        f"whole lens, {PROMPTS} one by one, s": lens_alone,
        f"whole lens, {PROMPTS} batched, s": lens_together,
        "whole lens, one by one / batched": lens_alone / lens_together,
    }


def bench_edit(device: str | None = None, repeats: int = 9, shape: dict = XL) -> dict[str, float]:
    """Milliseconds of a bare forward pass, of making a shift, of applying and undoing it; ratios; bytes."""
    lm = random_gpt2(device, "GPT-2 XL", **shape)
    request = Request("The capital of {} is", "France", "Rome")
    ids = torch.tensor([lm.encode(request.text)], device=lm.device)
    edit = shift(lm, request)

    @torch.no_grad()
    def bare():
        with as_a_function(lm.model):
            hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return lm.head(hidden[:, -1]).argmax(-1)

    def in_and_out():
        with edit:
            pass

    passed, made, applied = interleaved([bare, lambda: shift(lm, request), in_and_out], lm.device, repeats)
    return {
        "forward pass, ms": 1e3 * passed,
        "shift made, ms": 1e3 * made,
        "applied and undone, ms": 1e3 * applied,
        "shift / forward pass": made / passed,
        "shift, applied and undone / forward pass": (made + applied) / passed,
        "kept with the edit, bytes": edit.nbytes,
        "extra memory while made, bytes": peak_bytes(lambda: shift(lm, request), lm.device),
    }
