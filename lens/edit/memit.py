"""How are many facts written at once, over several layers?  MEMIT: least squares against what the layers hold.

For each of n requests a value z [1, d] is found for the last edited layer's output at the subject's last token
(``lens.edit.value``).  Then, layer by layer, the rest of the way z − h is spread over the layers that are left.  With
the keys K [n, d_m] of the requests (averaged over contexts) and their residuals R [n, d],

    minimize ‖K ΔW − R‖² + λ tr(ΔWᵀ C ΔW)  ⇒  ΔW = (λC + KᵀK)⁻¹ Kᵀ R,     R = (z − h) / (layers left)

(Meng et al., 2023).  Each layer's change moves the activations above, so K and h are computed anew with the earlier
changes in place.  With P = K(λC)⁻¹ from C's one factorization, (λC + KᵀK)⁻¹Kᵀ = Pᵀ(I + KPᵀ)⁻¹ (Woodbury): n requests
cost O(n d_m²), and the change stays thin: xᵀR with x = (I + PKᵀ)⁻¹P.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lens.edit.branch import branches
from lens.edit.contexts import Prefixes, in_contexts, prefixes
from lens.edit.edit import Change, Edit
from lens.edit.request import Request, as_requests
from lens.edit.rome import of_layers
from lens.edit.settings import settings
from lens.edit.shift import Requests
from lens.edit.statistics import Statistics
from lens.edit.value import Searched, at_places, find_value, unmoved
from lens.given import door
from lens.model import LanguageModel
from lens.model.batch import pad
from lens.model.families import check_adds
from lens.model.upper import UpperLayers
from lens.model.watching import up_to, watch

ROWS = 256
"""How many prompts run through the layers at a time."""


@door
@torch.inference_mode(False)
@torch.no_grad()
def memit(
    lm: LanguageModel,
    request: Requests,
    *,
    layers: Iterable[int] | None = None,
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
    """Mass-editing memory: ``W_FF2 += (λC + KᵀK)⁻¹ Kᵀ R`` in several layers, for all requests at once.

    ``request``: one, or a list.  ``layers``, ``lam`` (λ, how much the text that C was taken over weighs against the
    requests) and the search's ``lr``, ``steps``, ``kl``, ``decay``, ``clamp`` and ``stop`` default to this model's
    ``settings``.  ``seed`` is that of the contexts.  ``statistics``: what ``covariance`` gives for these layers, by
    default over ``texts``, and those by default the built-in text.  Where the model says all targets already the edit
    is empty and its ``note`` says so.  Raises ``ValueError`` unless λ is positive and there is a layer, for both
    statistics and texts, and in a family with a norm behind FF2 (Gemma 2 and 3, OLMo 2, OPT-350M), where the stream
    does not receive R.  The model is not changed.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> with lens.edit.memit(lm, lens.Request("The capital of {} is", "France", "Rome")):
    ...     lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Rome'
    """
    start = perf_counter()
    check_adds(lm, "ff2", "MEMIT", "edit it with rome, whose value is FF2's own output")
    requests = as_requests(request)
    search = {"lr": lr, "steps": steps, "kl": kl, "decay": decay, "clamp": clamp, "stop": stop}
    chosen = settings(lm, "memit", layers=None if layers is None else list(layers), lam=lam, **search)
    chosen["layers"] = sorted(set(chosen["layers"]))
    known = of_layers(lm, chosen["layers"], statistics, texts)

    def solve(layer: int, k: Tensor, _changes: Sequence[Change]) -> Tensor:
        return spread(known[layer], k, chosen["lam"])

    changes, found, note = over_layers(lm, requests, chosen, prefixes(lm, chosen["prefixes"], seed), solve)
    chosen |= described(known[chosen["layers"][0]], found) | {"seed": int(seed)}
    return Edit("memit", requests, changes, chosen, perf_counter() - start, lm, note)


Solve = Callable[[int, Tensor, Sequence[Change]], Tensor]
"""x [n, d_m] of a layer's change xᵀR, from the layer, its keys [n, d_m] and the changes of the layers below it."""


def over_layers(
    lm: LanguageModel, requests: Sequence[Request], chosen: Mapping, before: Prefixes, solve: Solve
) -> tuple[tuple[Change, ...], list[Searched], str | None]:
    """A value z for each request, and the way there shared by ``chosen["layers"]``: changes, searches and a note.

    Where the model says all targets already there are no changes, and the note says so.
    """
    layers = chosen["layers"]
    last = lm.layers[layers[-1]]
    bar = tqdm(requests, desc="values", unit="request", leave=False, disable=len(requests) < 10)
    found = [find_value(lm, one, layers[-1], last, before, chosen) for one in bar]
    if not any(value.delta.any() for value in found):
        return (), found, unmoved(requests[0], chosen)
    changes: list[Change] = []
    z = torch.stack([value.plain + value.delta for value in found])  # [n, d]
    prompts = PromptRuns(lm, requests, before, layers)
    for i, layer in enumerate(layers):
        k, h = prompts.activations(layer, changes)
        x = solve(layer, k, changes)
        changes.append(Change(layer, "ff2", x.to(k), ((z.to(h) - h) / (len(layers) - i)).to(k.device)))
    return tuple(changes), found, None


def described(statistics: Statistics, found: Sequence[Searched]) -> dict:
    """What an edit's settings say of the text behind its statistics, and of the searches for its values."""
    losses = [list(value.losses) for value in found]
    return {"count": statistics.count, "corpus": statistics.corpus, "losses": losses}


def spread(statistics: Statistics, k: Tensor, lam: float) -> Tensor:
    """x [n, d_m], the rows of ((λC + KᵀK)⁻¹Kᵀ)ᵀ for keys ``k`` [n, d_m], in float64: ΔW = xᵀR."""
    p = statistics.solve(k) / lam
    k = k.to(p)
    return torch.linalg.solve(torch.eye(len(k), dtype=k.dtype, device=k.device) + p @ k.T, p)


class PromptRuns:
    """All requests in all their contexts, ready to run through the edited layers again and again."""

    def __init__(self, lm: LanguageModel, requests: Sequence[Request], before: Prefixes, layers: Sequence[int]):
        self._lm, self._last, self._each = lm, lm.layers[layers[-1]], len(before)
        places = [in_contexts(lm, one, before) for one in requests]
        # What follows the subject's last token is never looked at.
        rows = [row[: i + 1] for rows, where in places for row, i in zip(rows, where)]
        self._runs = []
        for first in range(0, len(rows), ROWS):
            ids, _ = pad(rows[first : first + ROWS])
            self._runs.append((UpperLayers(lm, ids, layers[0]), [len(row) - 1 for row in rows[first : first + ROWS]]))

    def activations(self, layer: int, changes: Sequence[Change]) -> tuple[Tensor, Tensor]:
        """With ``changes`` in place: FF2's inputs [n, d_m], averaged over contexts, and the plain prompts' h [n, d].

        Both at the subject's last token; h is what leaves the last edited layer.
        """
        keys, outputs = [], []
        for upper, places in self._runs:
            with branches(self._lm, [changes]), watch({"k": self._lm.site(layer, "ff2"), "h": self._last}) as seen:
                with up_to(self._last):
                    upper()
            keys.append(at_places(seen["k"][0], places))
            outputs.append(at_places(seen["h"][1], places))
        k, h = (torch.cat(rows).unflatten(0, (-1, self._each)) for rows in (keys, outputs))
        return k.mean(1), h[:, 0]
