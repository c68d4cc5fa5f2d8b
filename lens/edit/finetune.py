"""What does ordinary training do with the same request?  Adam on one FF2 matrix, until the target is said.

    loss = −log p(target_new | prompt),   Adam,   stop when loss < 0.01

The layers below the edit are run once; the matrix in training is a copy, so the model is never touched.  Adam divides
each entry of the gradient by its own running size: the update has full rank and is kept as a matrix.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from lens.edit.edit import Change, Edit
from lens.edit.request import as_requests
from lens.edit.settings import settings
from lens.edit.shift import Requests, as_batch
from lens.given import door
from lens.model import LanguageModel
from lens.model.upper import UpperLayers


@door
@torch.inference_mode(False)
def finetune(
    lm: LanguageModel,
    request: Requests,
    *,
    layer: int | None = None,
    lr: float | None = None,
    steps: int | None = None,
    stop: float | None = None,
) -> Edit:
    """Fine-tune one FF2 on the request: at most ``steps`` of Adam at rate ``lr``, until the loss is below ``stop``.

    ``request``: one, or a list (the loss is their mean).  The defaults are this model's ``settings``.  The model is not
    changed; the edit holds the difference of the trained matrix.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> lens.edit.finetune(lm, lens.Request("The capital of {} is", "France", "Rome"), steps=1).changes[0].x is None
    True
    """
    start = perf_counter()
    requests = as_requests(request)
    chosen = settings(lm, "finetune", layer=layer, lr=lr, steps=steps, stop=stop)
    batch = as_batch(lm, requests)
    upper = UpperLayers(lm, batch.ids, chosen["layer"])
    module = lm.site(chosen["layer"], "ff2")
    before = lm.weight(chosen["layer"], "ff2").detach()
    wide = torch.promote_types(before.dtype, torch.float32)
    change = torch.zeros_like(before, dtype=wide, requires_grad=True)  # ΔW [d_m, d]
    optimizer = torch.optim.Adam([change], lr=chosen["lr"])
    share = batch.share / len(requests)

    def add(_module, args, z):
        return z + (args[0].to(wide) @ change).to(z.dtype).reshape(z.shape)

    losses = []
    with torch.enable_grad(), module.register_forward_hook(add):
        for _ in range(chosen["steps"] + 1):
            logits = lm.head(batch.due(upper()))
            nll = cross_entropy(logits, batch.label.to(logits.device), reduction="none")
            loss = (nll * share.to(nll)).sum()
            losses.append(float(loss.detach()))
            if losses[-1] < chosen["stop"] or len(losses) > chosen["steps"]:
                break
            (change.grad,) = torch.autograd.grad(loss, [change])
            optimizer.step()
    changes = (Change(chosen["layer"], "ff2", None, change.detach()),)
    return Edit("finetune", requests, changes, chosen | {"losses": losses}, perf_counter() - start, lm)
