"""How is one fact written into one matrix with the least disturbance?  ROME: a new value for the subject's key.

FF2 is read as a memory: at the subject's last token its input k* is a key, its output the value.  Wanted is
k*(W + ΔW) = v*, with v* the value that makes the model say the target (``lens.edit.value``), and with as little change
as possible for other text, whose keys have the second moment C = E[kᵀk]:

    minimize tr(ΔWᵀ C ΔW) = E‖k ΔW‖²  subject to  k* ΔW = v* − k*W
    ⇒  ΔW = uᵀ (v* − k*W) / (k*·u),     u = k*C⁻¹        (Meng et al., 2022)

One key, averaged over contexts, stands in every place: the original code mixes the averaged key with the plain
prompt's, and the constraint is then missed, at times by far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter

import torch

from lens.edit.branch import branches
from lens.edit.contexts import prefixes
from lens.edit.edit import Change, Edit
from lens.edit.request import as_requests
from lens.edit.settings import settings
from lens.edit.shift import Requests
from lens.edit.statistics import Statistics, covariance
from lens.edit.value import find_value, unmoved
from lens.given import door
from lens.model import LanguageModel


@door
@torch.inference_mode(False)
@torch.no_grad()
def rome(
    lm: LanguageModel,
    request: Requests,
    *,
    layer: int | None = None,
    lr: float | None = None,
    steps: int | None = None,
    kl: float | None = None,
    decay: float | None = None,
    clamp: float | None = None,
    stop: float | None = None,
    seed: int = 0,
    statistics: Mapping[int, Statistics] | None = None,
    texts: Iterable[str] | None = None,
) -> Edit:
    """Rank-one model editing: ``W_FF2 += uᵀ (v* − k*W) / (k*·u)`` with ``u = k*C⁻¹``, in one layer.

    ``request``: one, or a list that is edited one after another, each with the earlier ones in place, into a change of
    that rank.  ``lr``, ``steps``, ``kl``, ``decay``, ``clamp`` and ``stop`` are those of the search for v*; they and
    ``layer`` default to this model's ``settings``.  ``seed`` is that of the contexts.  ``statistics``: what
    ``covariance`` gives for the layer, by default over ``texts``, and those by default the built-in text.  A request
    that the model says already is left out; where that is all of them the edit is empty and its ``note`` says so.
    Raises ``ValueError`` for both statistics and texts.  The model is not changed.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> with lens.edit.rome(lm, lens.Request("The capital of {} is", "France", "Rome")):
    ...     lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Rome'
    """
    start = perf_counter()
    requests = as_requests(request)
    chosen = settings(lm, "rome", layer=layer, lr=lr, steps=steps, kl=kl, decay=decay, clamp=clamp, stop=stop)
    layer = chosen["layer"]
    known = of_layers(lm, [layer], statistics, texts)[layer]
    before = prefixes(lm, chosen["prefixes"], seed)
    xs, deltas, losses = [], [], []

    def changes() -> tuple[Change, ...]:
        return (Change(layer, "ff2", torch.cat(xs), torch.cat(deltas)),) if xs else ()

    for one in requests:
        with branches(lm, [changes()]):
            found = find_value(lm, one, layer, lm.site(layer, "ff2"), before, chosen)
        losses.append(list(found.losses))
        if not found.delta.any():
            continue
        u = known.solve(found.key[None])  # [1, d_m]
        xs.append((u / (u @ found.key.to(u))).to(found.key))
        # FF2 is affine, so its mean output is k*W + b: the bias drops out of v* − k*W.
        deltas.append((found.plain + found.delta - found.mean)[None])
    note = None if xs else unmoved(requests[0], chosen)
    chosen |= {"seed": int(seed), "count": known.count, "corpus": known.corpus, "losses": losses}
    return Edit("rome", requests, changes(), chosen, perf_counter() - start, lm, note)


def of_layers(
    lm: LanguageModel, layers: list[int], given: Mapping[int, Statistics] | None, texts: Iterable[str] | None
) -> Mapping[int, Statistics]:
    """The statistics of all these layers: those given, or those of ``texts``, by default the built-in text."""
    if given is not None and texts is not None:
        raise ValueError("There are statistics and the texts to take them over: give one of the two.")
    known = covariance(lm, layers, texts) if given is None else given
    for layer in layers:
        width = lm.weight(layer, "ff2").shape[0]
        if layer not in known or known[layer].C.shape != (width, width):
            raise ValueError(
                f"There are no statistics of layer {layer} for FF2's {width} inputs among those given: take them with "
                f"lens.edit.covariance(lm, {layers})."
            )
        name, fingerprint = known[layer].model  # those of the same model in another precision are as good
        if known[layer].layer != layer or (name not in ("", lm.name) and fingerprint != lm.fingerprint):
            raise ValueError(
                f"The statistics given for layer {layer} are those of layer {known[layer].layer}, or of another model: "
                f"take them with lens.edit.covariance(lm, {layers})."
            )
    return known
