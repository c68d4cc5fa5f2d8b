"""How is a fact edited without a backward pass?  Add the target's embedding where the prompt's activations point.

    W_FF2 ← W_FF2 + η aᵀ E[t]        (*Backward Lens*, section 7)

a [1, d_m] is FF2's input at the last prompt token and E[t] the unembedding row of the target: what the first gradient
step does to FF2 is mostly this (Lemma 5.1), and neither factor needs a backward pass.  FF2's output at that token moves
by exactly η‖a‖² E[t].

``sgd_step`` is the true thing beside it: one step along the gradient itself, kept as its factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter

import torch

from lens.edit.edit import Change, Edit
from lens.edit.request import Request, as_requests
from lens.edit.settings import settings
from lens.given import door
from lens.gradient import capture
from lens.model import LanguageModel
from lens.model.batch import Batch, teacher_forced
from lens.model.families import check_adds
from lens.model.watching import as_a_function, watch

Requests = Request | Mapping | Sequence[Request | Mapping]


@door
def shift(lm: LanguageModel, request: Requests, *, layer: int | None = None, eta: float | None = None) -> Edit:
    """Edit with one forward pass: ``W_FF2 += eta · aᵀ E[t]`` in one layer.

    ``request``: one, or a list that is edited at once.  ``layer`` and ``eta`` default to this model's ``settings``.
    A target of several tokens gives one outer product per token, each with the activations of the place where that
    token is predicted.  Tokens that the model says already are left alone; where that is all of them the edit is empty
    and its ``note`` says so.  Raises what ``Request`` and ``settings`` raise; the model is not changed.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> lens.edit.shift(lm, lens.Request("The capital of {} is", "France", "Rome")).changes[0].x.shape
    torch.Size([1, 768])
    """
    start = perf_counter()
    check_adds(lm, "ff2", "The shift by E[t]", "edit it with sgd_step, finetune or rome, which go through the norm")
    requests = as_requests(request)
    chosen = settings(lm, "shift", layer=layer, eta=eta)
    batch = as_batch(lm, requests)
    with torch.no_grad(), as_a_function(lm.model), watch({"ff2": lm.site(chosen["layer"], "ff2")}) as seen:
        hidden = lm.base_model(input_ids=batch.ids.to(lm.device), use_cache=False).last_hidden_state
        label = batch.label.to(hidden.device)
        said = lm.head(batch.due(hidden)).argmax(-1).to(label.device) == label  # [K]
    a = batch.due(seen["ff2"][0].reshape(*batch.ids.shape, -1))  # [K, d_m]
    embedding = lm.toward(label).to(a.device)  # [K, d]
    wanted = ~said.to(a.device)
    changes, note = (), None
    if wanted.any():
        wide = torch.promote_types(a.dtype, torch.float32)
        changes = (Change(chosen["layer"], "ff2", a[wanted].to(wide), chosen["eta"] * embedding[wanted].to(wide)),)
    else:
        note = f"The model says {requests[0].target_new!r} already, so nothing is changed."
    return Edit("shift", requests, changes, chosen, perf_counter() - start, lm, note)


@door
def sgd_step(
    lm: LanguageModel,
    request: Requests,
    *,
    eta: float | None = None,
    layers: Iterable[int] | None = None,
    sites: Iterable[str] | None = None,
) -> Edit:
    """One plain step of gradient descent, ``W −= eta · xᵀδ``, at some layers and sites, as exact factors.

    The loss is ``−log p(target_new | prompt)``, the mean over the target's tokens, summed over the requests.
    ``layers`` and ``sites`` default to this model's ``settings``.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> lens.edit.sgd_step(lm, lens.Request("The capital of {} is", "France", "Rome"), layers=[5]).changes[0].layer
    5
    """
    start = perf_counter()
    requests = as_requests(request)
    layers, sites = (None if given is None else list(given) for given in (layers, sites))
    chosen = settings(lm, "sgd_step", eta=eta, layers=layers, sites=sites)
    texts, targets = [r.text for r in requests], [r.target_new for r in requests]
    trace = capture(lm, texts, targets, layers=chosen["layers"], sites=chosen["sites"])
    changes = []
    for layer in trace.layers:
        for site in trace.sites:
            g = trace.gradient(layer, site)
            wide = torch.promote_types(g.delta.dtype, torch.float32)
            changes.append(Change(layer, site, g.x.to(wide), -chosen["eta"] * g.delta.to(wide)))
    return Edit("sgd_step", requests, tuple(changes), chosen, perf_counter() - start, lm)


def as_batch(lm: LanguageModel, requests: Sequence[Request]) -> Batch:
    """Prompts and new targets of the requests, teacher-forced."""
    prompts, targets = [lm.encode(r.text) for r in requests], [lm.target_ids(r.target_new) for r in requests]
    for prompt, target in zip(prompts, targets):
        lm.encode(prompt + target[:-1])  # together they must fit the model
    return teacher_forced(prompts, targets)
