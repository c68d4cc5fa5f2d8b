"""How is a fact written where ordinary text does not look?  AlphaEdit: MEMIT's change inside a null space.

Ordinary text has the keys k, with C = E[kᵀk].  Where C's eigenvalues are (nearly) zero, text has (nearly) no part: P
projects onto those directions, P = UᵀU with C's eigenvectors below a threshold as the rows of U.  A change ΔW = P ΔW is
then unheard by text, E‖k ΔW‖² ≤ threshold · ‖ΔW‖², and text need not be weighed against the requests any more:

    minimize ‖K ΔW − R‖² + ‖Kₚ ΔW‖² + λ ‖ΔW‖²  over  ΔW = P ΔW
    ⇒  ΔW = (P (KᵀK + KₚᵀKₚ) + λI)⁻¹ P Kᵀ R

(Fang et al., 2025, who write it transposed, R K₁ᵀP (KₚKₚᵀP + K₁K₁ᵀP + I)⁻¹ for columns; the settings file of their code
has λ = 10).  K [n, d_m] and R [n, d] are MEMIT's keys and residuals, layer after layer.  Kₚ [p, d_m] are the keys of
requests that were edited earlier: what they say shall stay too.

With ΔW = UᵀD it is ridge regression in D; with A = [K; Kₚ] P, Aᵀ(AAᵀ + λI)⁻¹ = (AᵀA + λI)⁻¹Aᵀ gives the thin form

    ΔW = xᵀR,     x = the first n rows of (AAᵀ + λI)⁻¹ A.

Where every eigenvalue is below the threshold, P = I, and ΔW is MEMIT's for C = I.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter

import torch
from torch import Tensor

from lens.edit.contexts import prefixes
from lens.edit.edit import Change, Edit
from lens.edit.memit import PromptRuns, described, over_layers
from lens.edit.request import as_requests
from lens.edit.rome import of_layers
from lens.edit.settings import settings
from lens.edit.shift import Requests
from lens.edit.statistics import Statistics
from lens.given import door
from lens.model import LanguageModel
from lens.model.families import check_adds


@door
@torch.inference_mode(False)
@torch.no_grad()
def alphaedit(
    lm: LanguageModel,
    request: Requests,
    *,
    earlier: Requests = (),
    layers: Iterable[int] | None = None,
    threshold: float | None = None,
    lam: float | None = None,
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
    """AlphaEdit: MEMIT's change in several layers, within the directions that ordinary text hardly uses.

    ``request``: one, or a list, edited at once.  ``earlier``: the requests whose edits lie on the model already; their
    keys, as the model has them now, are held in place (the published code keeps each as it was when edited).
    ``threshold``: directions with eigenvalues of C below it may be written to.  ``lam``: λ, how much the length of the
    change weighs.  They, ``layers`` and the search's ``lr``, ``steps``, ``kl``, ``decay``, ``clamp`` and ``stop``
    default to this model's ``settings``; ``seed``, ``statistics`` and ``texts`` are MEMIT's.  Where the model says all
    targets already the edit is empty and its ``note`` says so.  Raises ``ValueError`` unless λ is positive, there is a
    layer, and each layer's C has an eigenvalue below the threshold; for both statistics and texts; and in a family with
    a norm behind FF2 (Gemma 2 and 3, OLMo 2, OPT-350M), where the stream does not receive R.  The model is not
    changed.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> with lens.edit.alphaedit(lm, lens.Request("The capital of {} is", "France", "Rome")):
    ...     lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Rome'
    """
    start = perf_counter()
    check_adds(lm, "ff2", "AlphaEdit", "edit it with rome, whose value is FF2's own output")
    requests = as_requests(request)
    search = {"lr": lr, "steps": steps, "kl": kl, "decay": decay, "clamp": clamp, "stop": stop}
    layers = None if layers is None else list(layers)
    chosen = settings(lm, "alphaedit", layers=layers, threshold=threshold, lam=lam, **search)
    layers = chosen["layers"] = sorted(set(chosen["layers"]))
    known = of_layers(lm, layers, statistics, texts)
    free = {layer: known[layer].null_space(chosen["threshold"]) for layer in layers}
    before = prefixes(lm, chosen["prefixes"], seed)
    kept = as_requests(earlier) if earlier else ()
    past = PromptRuns(lm, kept, before, layers) if kept else None

    def solve(layer: int, k: Tensor, changes: Sequence[Change]) -> Tensor:
        old = past.activations(layer, changes)[0] if past else k[:0]
        return inside(free[layer], k, old, chosen["lam"])

    changes, found, note = over_layers(lm, requests, chosen, before, solve)
    chosen |= described(known[layers[0]], found) | {"seed": int(seed), "earlier": len(kept)}
    chosen["directions"] = [len(free[layer]) for layer in layers]
    return Edit("alphaedit", requests, changes, chosen, perf_counter() - start, lm, note)


def inside(free: Tensor, k: Tensor, old: Tensor, lam: float) -> Tensor:
    """x [n, d_m] of ΔW = xᵀR, in the dtype of ``free``.

    ``free`` [m, d_m]: orthonormal rows that the change may use; ``k`` [n, d_m]: the keys to write to; ``old`` [p, d_m]:
    the keys to leave alone.
    """
    a = torch.cat([k, old]).to(free) @ free.T  # [n + p, m]: A in the coordinates of ``free``
    gram = a @ a.T + lam * torch.eye(len(a), dtype=a.dtype, device=a.device)
    return torch.linalg.solve(gram, a)[: len(k)] @ free
