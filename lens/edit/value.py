"""What would the model have to hold at a subject for its next words to be the target?  A vector found by descent.

A residual Δ [1, d] is added to one module's output at the subject's last token: FF2's for ROME, a whole layer's for
MEMIT.  The model stays as it is, and Adam moves Δ to make small

    mean NLL of the target over the contexts  +  kl · KL(p ‖ p₀)  +  decay · ‖Δ‖ / ‖v₀‖²,        ‖Δ‖ ≤ clamp · ‖v₀‖

p and p₀ are what the model says next after "{subject} is a", with Δ and without: what the subject is should stay.
v₀ is the module's own output at the subject's last token of the plain prompt.  The layers below are run once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, nll_loss

from lens.edit.contexts import Prefixes, in_contexts
from lens.edit.request import Request
from lens.model import LanguageModel
from lens.model.batch import teacher_forced
from lens.model.upper import UpperLayers
from lens.model.watching import watch


@dataclass(frozen=True)
class Searched:
    """What ``find_value`` found: ``delta`` [d], the residual Δ, and the loss before every step and after the last.

    ``key`` [d_m] is FF2's input at the subject's last token and ``mean`` [d] the module's output there, both averaged
    over the contexts; ``plain`` [d] is the output for the plain prompt, v₀.  All in float32 at least.
    """

    delta: Tensor
    key: Tensor
    mean: Tensor
    plain: Tensor
    losses: tuple[float, ...]


@torch.inference_mode(False)
@torch.enable_grad()
def find_value(
    lm: LanguageModel, request: Request, layer: int, module: nn.Module, before: Prefixes, chosen: Mapping
) -> Searched:
    """Search for Δ at the output of ``module``, FF2 of ``layer`` or the layer itself, behind the prefixes ``before``.

    ``chosen`` holds lr, steps, kl, decay, clamp and stop: the search ends when the loss is below ``stop``, so where
    the model says the target already, Δ is zero.
    """
    target = lm.target_ids(request.target_new)
    rows, places = in_contexts(lm, request, before)
    essence = Request("{} is a", request.subject, request.target_new)
    more, where = in_contexts(lm, essence, ((),))
    for row in rows:
        lm.encode([*row, *target[:-1]])  # together they must fit the model
    # The last row's own next token is not scored: its place is where p and p₀ are read.
    batch = teacher_forced(rows + more, [target] * len(rows) + [[0]])
    with watch({"ff2": lm.site(layer, "ff2"), "module": module}) as seen:
        upper = UpperLayers(lm, batch.ids, layer)
    keys, outputs = (at_places(t, places + where)[:-1] for t in (seen["ff2"][0], seen["module"][1]))
    plain, length = outputs[0], outputs[0].norm()
    every, at = torch.arange(len(batch.ids), device=plain.device), torch.tensor(places + where, device=plain.device)
    delta = torch.zeros_like(plain, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=chosen["lr"])

    def add(_module, _args, out):
        z = out[0] if isinstance(out, tuple) else out
        rows = z.reshape(*batch.ids.shape, -1)
        moved = rows.index_put((every, at), delta.to(z.dtype).expand(len(every), -1), accumulate=True).reshape(z.shape)
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    losses, reference = [], None
    with module.register_forward_hook(add):
        for _ in range(chosen["steps"] + 1):
            p = lm.head(batch.due(upper())).log_softmax(-1)  # [K, V], logarithms
            reference = p[-1].detach() if reference is None else reference
            nll = nll_loss(p[:-1], batch.label[:-1].to(p.device), reduction="none")
            loss = (nll * batch.share[:-1].to(nll)).sum() / len(rows)
            loss = loss + chosen["kl"] * kl_div(reference, p[-1], reduction="sum", log_target=True)
            loss = loss + (chosen["decay"] * delta.norm() / length**2).to(loss)
            losses.append(float(loss.detach()))
            if losses[-1] < chosen["stop"] or len(losses) > chosen["steps"]:
                break
            (delta.grad,) = torch.autograd.grad(loss, [delta])
            optimizer.step()
            with torch.no_grad():
                delta *= (chosen["clamp"] * length / delta.norm()).clamp(max=1)
    return Searched(delta.detach(), keys.mean(0), outputs.mean(0), plain, tuple(losses))


def unmoved(request: Request, chosen: Mapping) -> str:
    """The note of an edit of which no search moved anything."""
    words = {"steps": "no steps", "clamp": "a clamp of 0", "lr": "a learning rate of 0"}
    still = next((f"The search has {said}" for name, said in words.items() if not chosen.get(name, 1)), None)
    why = f"The model says {request.target_new!r} already"
    if chosen["stop"] > log(2):  # a probability below one half may be another word's
        why = f"The loss for {request.target_new!r} is below {chosen['stop']:g} from the start, where the search stops"
    return f"{still or why}, so nothing is changed."


def at_places(t: Tensor | tuple, places: Sequence[int]) -> Tensor:
    """[B, d], a watched tensor [B, T, d] at one place in each row, in float32 at least, without its graph."""
    t = (t[0] if isinstance(t, tuple) else t).detach()
    t = t.reshape(len(places), -1, t.shape[-1])  # some families flatten it to [B·T, d]
    t = t[torch.arange(len(places), device=t.device), torch.tensor(places, device=t.device)]
    return t.to(torch.promote_types(t.dtype, torch.float32))
