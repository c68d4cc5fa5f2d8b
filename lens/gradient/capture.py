"""What reaches every linear map, forward and backward?  One forward and half a backward pass.

The weight gradient of ``z = x W + b`` is ``xᵀδ``: x comes by on the way up, δ = ∂ℓ/∂z on the way down, and no weight
gradient has to be computed to see them.  ``capture`` freezes every parameter, lets only the embeddings require a
gradient, watches each site, and asks autograd for the δ's.  Afterwards the model is as it was: no hook, no flag, no
``.grad``, also when something raised in between.

The loss of one prompt is ``ℓ = −log p(target | prompt)``, the mean over the target's tokens where there are several
(each predicted from its own position, teacher-forced).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lens.given import door
from lens.gradient.factored import FactoredGradient
from lens.model import LanguageModel, Tokens
from lens.model.batch import teacher_forced
from lens.model.soundness import finite, not_finite
from lens.model.tokens import is_one, plain
from lens.model.watching import as_a_function, watch
from lens.results.display import Grid, Shown, shaded, spread


@dataclass(frozen=True, repr=False)
class Trace(Shown):
    """What ``capture`` saw: for every layer and site, the rows x_i and δ_i of every token of every prompt.

    A trace of B prompts holds N = n₁ + … + n_B token rows, without padding; ``trace[i]`` is the trace of one prompt
    (no copy), and iterating gives them all.  ``loss`` [B]; ``ids`` the N token ids; ``tokens`` their words;
    ``targets`` the target ids of each prompt; ``lengths`` n₁ … n_B; ``lm`` the model.
    """

    ids: Tensor
    tokens: tuple[str, ...]
    targets: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    loss: Tensor
    layers: tuple[int, ...]
    sites: tuple[str, ...]
    lm: LanguageModel
    _factors: dict[tuple[int, str], dict[str, Tensor]]

    def __repr__(self) -> str:
        loss = ", ".join(f"{x:.3g}" for x in self.loss[:3].tolist()) + (", …" if len(self) > 3 else "")
        where = f"layers {self.layers[0]} to {self.layers[-1]}, sites {', '.join(self.sites)}"
        prompts = "1 prompt" if len(self) == 1 else f"{len(self)} prompts"
        return f"Trace({prompts}, {len(self.ids)} tokens, loss {loss}; {where})"

    def _grid(self) -> Grid:
        layers = spread(self.layers)
        norms = [[float(self.gradient(layer, site).norm()) for site in self.sites] for layer in layers]
        rows = [[str(layer), *row] for layer, row in zip(layers, shaded(norms))]
        return Grid(("layer", *self.sites), rows, "Length of the gradient xᵀδ of each layer and site.")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Trace:
        if not -len(self) <= i < len(self):
            raise IndexError(f"There is no prompt {i}: this trace holds {len(self)}.")
        i %= len(self)
        start = sum(self.lengths[:i])
        rows = slice(start, start + self.lengths[i])
        one = {name: getattr(self, name)[i : i + 1] for name in ("targets", "lengths", "loss")}
        seen = {key: {name: t[rows] for name, t in seen.items()} for key, seen in self._factors.items()}
        return replace(self, ids=self.ids[rows], tokens=self.tokens[rows], _factors=seen, **one)

    def __iter__(self) -> Iterator[Trace]:
        return (self[i] for i in range(len(self)))

    @door
    def gradient(self, layer: int, site: str) -> FactoredGradient:
        """∂ℓ/∂W = xᵀδ of one site; for several prompts, of the sum of their losses.

        ``layer`` may count from the end.
        """
        seen = self._seen(layer, site)
        return FactoredGradient(seen["x"], seen["delta"], layer=layer % len(self.lm.layers), site=site)

    def stack(self, site: str, factor: str = "delta") -> Tensor:
        """One factor of a site in every captured layer, [layers, N, d]; ``factor`` is ``"x"`` or ``"delta"``.

        Of a site that writes to the residual stream (``ff2``, ``attn_out``) also ``"residual"``, the gradient where its
        output is added to the stream.  That is δ, but in families with a norm in between (Gemma 2, OLMo 2), whose
        derivative δ has been through.
        """
        names = ("residual", "delta") if factor == "residual" else (factor,)
        seen = [self._seen(layer, site) for layer in self.layers]
        rows = [next(one[name] for name in names if name in one) for one in seen]
        return torch.stack([r.to(rows[-1].device) for r in rows])

    def check(self, lm: LanguageModel) -> None:
        """``ValueError`` where ``lm`` is another model than the one that it was captured on."""
        if lm.model is not self.lm.model and lm.fingerprint != self.lm.fingerprint:
            raise ValueError(
                f"This trace was captured on another model ({self.lm!r}) than this one ({lm!r}): capture it here."
            )

    def _seen(self, layer: int, site: str) -> dict[str, Tensor]:
        depth = len(self.lm.layers)
        key = (layer % depth if -depth <= layer < depth else layer, site)
        if key not in self._factors:
            raise ValueError(
                f"This trace holds no layer {layer}, site {site!r}: it was captured for layers "
                f"{self.layers[0]} to {self.layers[-1]} and sites {', '.join(self.sites)}."
            )
        return self._factors[key]


@door
@torch.inference_mode(False)
def capture(
    lm: LanguageModel,
    prompt: Tokens | Sequence[Tokens],
    target: Tokens | Sequence[Tokens],
    *,
    layers: Iterable[int] | None = None,
    sites: Iterable[str] | None = None,
) -> Trace:
    """Run ``prompt`` forward and ``ℓ = −log p(target | prompt)`` backward, and keep x and δ of every site.

    ``prompt``: text, token ids, or a list of either (a batch: padded inside, without padding in the result); what a
    tokenizer returns is one or the other, its padding left out.  ``target``: text (``lm.target_ids`` puts a space
    before a word), token ids, and for a batch a list of these, one per prompt, or one text for all.  ``layers`` and
    ``sites`` narrow what is kept; everything by default.

    Raises ``ValueError`` in one sentence for an empty prompt or target, a prompt too long for the model, a list of
    targets that does not match, an unknown site, or a loss that is NaN, and ``IndexError`` for an unknown layer.  The
    model is left as it was found.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> trace = capture(lm, "The capital of France is", "Paris")
    >>> trace.gradient(-1, "ff2").rank()
    1
    """
    prompts, targets = _pair(lm, prompt, target)
    depth = len(lm.layers)
    sites = lm.sites if sites is None else tuple(sites)
    layers = tuple(range(depth)) if layers is None else tuple(layers)
    if not layers or not sites:
        raise ValueError("Nothing would be kept: give at least one layer and one site, or leave the argument out.")
    for layer in layers:
        for site in sites:
            lm.site(layer, site)  # is there one, and is it plain?
    layers = tuple(sorted({layer % depth for layer in layers}))

    for prompt, target in zip(prompts, targets):
        lm.encode(prompt + target[:-1])  # together they must fit the model
    batch = teacher_forced(prompts, targets)

    behind = {site: norm for site, norm in lm.family.behind.items() if site in sites}
    paths = dict.fromkeys([*(lm.family.sites[site].module for site in sites), *behind.values()])
    modules = {(layer, path): lm.layers[layer].get_submodule(path) for layer in layers for path in paths}
    with torch.enable_grad(), as_a_function(lm.model), watch(modules) as seen:
        embeddings = lm.model.get_input_embeddings()(batch.ids.to(lm.device)).detach().requires_grad_()
        hidden = lm.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state  # [B, T, d]
        logits = lm.head(batch.due(hidden))
        nll = cross_entropy(logits, batch.label.to(logits.device), reduction="none") * batch.share.to(logits)
        deltas = dict(zip(seen, torch.autograd.grad(nll.sum(), [z for _, z in seen.values()])))

    losses = torch.zeros(len(prompts), dtype=nll.dtype, device=nll.device)
    losses.index_add_(0, batch.row.to(nll.device), nll.detach())
    if not finite(losses):
        raise not_finite(lm, "The loss is NaN or infinite")
    keep = None if len(prompts) == 1 else batch.real.flatten().nonzero()[:, 0]
    flat: dict[int, Tensor] = {}  # q, k and v read one x, and may come out of one matrix: keep it once

    def compact(t: Tensor) -> Tensor:
        if id(t) not in flat:
            rows = t.detach().reshape(batch.real.numel(), -1)
            flat[id(t)] = rows if keep is None else rows[keep.to(t.device)]
        return flat[id(t)]

    factors: dict[tuple[int, str], dict[str, Tensor]] = {}
    for layer in layers:
        for site in sites:
            place = lm.family.sites[site]
            delta = place.slice(compact(deltas[layer, place.module]), lm.model.config)
            factors[layer, site] = {"x": compact(seen[layer, place.module][0]), "delta": delta}
            if site in behind:
                factors[layer, site]["residual"] = compact(deltas[layer, behind[site]])
    ids = batch.ids[batch.real]
    tokens = tuple(lm.words(ids))
    return Trace(ids, tokens, tuple(map(tuple, targets)), batch.lengths, losses, layers, sites, lm, factors)


def _pair(lm: LanguageModel, prompt, target) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and targets as token ids, one target per prompt."""
    if prompt is None:
        raise TypeError("Expected a prompt, and got None: pass a text, token ids, or a list of either.")
    prompt, target = plain(prompt), plain(target)
    prompts = [prompt] if is_one(prompt) else list(prompt)
    if not prompts:
        raise ValueError("There are no prompts: give one text, or a list of at least one.")
    if is_one(prompt) or (len(prompts) == 1 and is_one(target)):
        targets = [target]
    elif isinstance(target, Sequence) and not isinstance(target, str):
        targets = list(target)
    else:
        targets = [target] * len(prompts)
    if len(targets) != len(prompts):
        raise ValueError(f"Got {len(prompts)} prompts and {len(targets)} targets: give one target per prompt.")
    return [lm.encode(p) for p in prompts], [lm.target_ids(t) for t in targets]
