"""Which directions does ordinary text use?  C = E[kᵀk], the second moment of FF2's inputs k [1, d_m], uncentered.

An edit that has to leave other text alone weighs its change with C: ROME writes along k*C⁻¹, which is k* turned away
from what text often contains.  One pass over ``count`` tokens gives C for several layers at once, a sum of kᵀk in
float64; it is kept in float32, and factored once, C = LLᵀ, in float64.

C is found again by what it was made from: the model's fingerprint, the layer and the tokens that were read.  Tokens
are cheap beside activations, so the text is tokenized first, up to ``count``, and their digest is known before the
model runs.  What is known is kept in memory; for the built-in model in ``data/statistics``; and in a cache folder,
``$LENS_CACHE`` or else ``lens-book`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from itertools import count as naturals
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lens.data import paths
from lens.data.corpus import documents
from lens.data.text import english
from lens.edit.statistics_files import cache, fetch, store
from lens.given import door
from lens.model import LanguageModel
from lens.model.batch import chunks, pad
from lens.model.soundness import check_as_loaded, finite, not_finite
from lens.model.tokens import text_ids
from lens.model.watching import as_a_function, up_to, watch

COUNT = 100_000
"""How many tokens are read."""

CONTEXT = 512
"""Longer texts are read in pieces of so many tokens, or of as many as the model reads."""

TOKENS = 4096
"""How many tokens run through the model at a time, padding included."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """C [d_m, d_m] float32 of one layer, taken over ``count`` tokens; ``corpus`` is the digest of these tokens, and
    ``model`` the model's name and fingerprint ("" where they are not known)."""

    layer: int
    C: Tensor
    count: int
    corpus: str
    model: tuple[str, str] = ("", "")

    def __post_init__(self):
        object.__setattr__(self, "_written", _writes(self.C))

    @property
    def intact(self) -> bool:
        """Has nobody written into C since?"""
        return _writes(self.C) == self._written

    @cached_property
    def cholesky(self) -> Tensor:
        """L [d_m, d_m] with LLᵀ = C, in float64 (float32 where the device has no float64); computed once.

        C's float32 entries leave eigenvalues below 2⁻²⁴ of the largest to rounding.  Where they come out negative, as
        with neurons that never fire, 2⁻²³ tr C is added on the diagonal, enough to outweigh it.  Raises ``ValueError``
        where there were fewer tokens than directions: C⁻¹ would say nothing about the directions not seen.
        """
        size = self._seen()
        C = self.C.to(_widest(self.C.device))
        factor, failed = torch.linalg.cholesky_ex(C)
        if failed:
            factor = torch.linalg.cholesky(C + 2**-23 * C.trace() * torch.eye(size, dtype=C.dtype, device=C.device))
        return factor

    def solve(self, k: Tensor) -> Tensor:
        """``k C⁻¹`` [n, d_m] for rows k [n, d_m], in the dtype of ``cholesky``."""
        return torch.cholesky_solve(k.to(self.cholesky).T, self.cholesky).T

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """C's eigenvalues [d_m], smallest first, and its eigenvectors as rows [d_m, d_m]; computed once, as above."""
        self._seen()
        device = self.C.device if self.C.device.type != "mps" else "cpu"
        values, columns = torch.linalg.eigh(self.C.to(device, torch.float64))
        return tuple(t.to(self.C.device, _widest(self.C.device)) for t in (values, columns.T.contiguous()))

    def null_space(self, threshold: float) -> Tensor:
        """Directions that text hardly uses, [m, d_m]: C's eigenvectors with eigenvalues below ``threshold``, as rows.

        A key's mean square along each of them is below the threshold.  Raises ``ValueError`` where there is none.
        """
        values, rows = self.eigen
        if not (few := values < threshold).any():
            raise ValueError(
                f"The threshold is {threshold}, and C of layer {self.layer} has no eigenvalue below it: the smallest "
                f"is {float(values[0]):.3g}, the median {float(values.median()):.3g}. Give a larger threshold."
            )
        return rows[few]

    def _seen(self) -> int:
        """FF2's number of inputs; ``ValueError`` where there were fewer tokens than that."""
        size = len(self.C)
        if self.count < size:
            raise ValueError(
                f"The statistics of layer {self.layer} were taken over {self.count} tokens, too few for FF2's {size} "
                f"inputs: give lens.edit.covariance more text, at least {size} tokens and better {100 * size}."
            )
        return size


_memory: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
"""Of each model, by fingerprint: its statistics by (layer, corpus), and the digest of the built-in text by count."""


@door(layers=None, texts=None)  # one layer, or several
def covariance(
    lm: LanguageModel, layers: int | Iterable[int], texts: Iterable[str] | None = None, count: int = COUNT
) -> dict[int, Statistics]:
    """C = E[kᵀk] of FF2's inputs at some layers, over the first ``count`` tokens of ``texts``: {layer: statistics}.

    ``texts``: any strings, endless or not, each read on its own from its first token; by default the text that the
    built-in models were trained on, and for fetched models English prose (``lens.data.english``).  For another model
    give text of the kind it was trained on, Wikipedia for GPT-2; the built-in text is used with a warning.  Statistics
    that are in memory, shipped or in the cache folder are not taken again, unless C was written into.  Raises
    ``IndexError`` for an unknown layer, ``ValueError`` where there is no text, and ``RuntimeError`` where they must be
    taken while an edit or a mask lies on the weights: they are those of the model as it was loaded.

    >>> import lens
    >>> covariance(lens.load("mini"), 2)[2].C.shape
    torch.Size([768, 768])
    """
    layers = _checked(lm, layers if isinstance(layers, Iterable) else [layers])
    model = lm.fingerprint if lm.changed else lm.weights.current_fingerprint
    known = _memory.setdefault(lm.model, {}).setdefault(model, {})
    digest, pieces = known.get(count) if texts is None else None, None
    if digest is None:
        pieces, digest = _read(lm, texts, count)
        if texts is None:
            known[count] = digest
            if lm.name not in (*paths.BUILT_IN, *paths.FETCHED):
                warnings.warn(
                    f"The statistics of {lm.name!r} are those of the toy prose that the built-in models were trained "
                    "on: give text of the kind that this model was trained on as texts=, or --texts FILE.",
                    stacklevel=3,
                )
    for layer in layers:
        if (layer, digest) in known and not known[layer, digest].intact:
            del known[layer, digest]
        if (layer, digest) not in known and (found := fetch(lm, layer, digest)):
            known[layer, digest] = Statistics(layer, *found, digest, (lm.name, model))
    if missing := [layer for layer in layers if (layer, digest) not in known]:
        for one in measure(lm, missing, pieces or _read(lm, texts, count)[0], digest):
            known[one.layer, digest] = one
            try:
                store(lm, one.layer, digest, one.C, one.count, cache())
            except OSError as error:
                warnings.warn(
                    f"The statistics of layer {one.layer} could not be kept ({error}): set LENS_CACHE to a folder with "
                    "room, or they are taken again next time.",
                    stacklevel=2,
                )
    return {layer: known[layer, digest] for layer in layers}


def again(
    lm: LanguageModel, layers: Iterable[int], folder: Path, texts: Iterable[str] | None = None, count: int = COUNT
) -> dict[int, Statistics]:
    """Take the statistics of ``covariance`` anew, whatever is known, and write them into ``folder``."""
    layers = _checked(lm, layers)
    taken = measure(lm, layers, *_read(lm, texts, count))
    for one in taken:
        store(lm, one.layer, one.corpus, one.C, one.count, folder)
    return {one.layer: one for one in taken}


@torch.no_grad()
def measure(lm: LanguageModel, layers: list[int], pieces: list[list[int]], corpus: str) -> list[Statistics]:
    """C of every layer from one pass over ``pieces`` (token ids), whatever is already known; see ``covariance``."""
    check_as_loaded(lm, "Statistics are those of the model", ", or call lens.edit.covariance before")
    total, sums = sum(map(len, pieces)), {}
    modules = {layer: lm.site(layer, "ff2") for layer in layers}
    name = f"statistics of layer {', '.join(map(str, layers))}"
    with tqdm(total=total, desc=name, unit=" tokens", unit_scale=True, leave=False) as bar, as_a_function(lm.model):
        for chunk in chunks(sorted(pieces, key=len), len, TOKENS):
            ids, real = pad(chunk)
            with watch(modules) as seen, up_to(lm.layers[max(layers)]):
                lm.base_model(input_ids=ids.to(lm.device), use_cache=False)
            for layer, (k, _) in seen.items():
                k = k.reshape(real.numel(), -1)[real.flatten().to(k.device)]  # [tokens, d_m]
                k = k.to(torch.promote_types(k.dtype, torch.float32))
                if not finite(k):
                    raise not_finite(lm, f"What enters layer {layer} ff2 is NaN or infinite")
                if layer not in sums:
                    sums[layer] = torch.zeros(k.shape[1], k.shape[1], dtype=_widest(k.device), device=k.device)
                sums[layer] += k.T @ k
            bar.update(int(real.sum()))
    upper = {layer: (sums[layer] / total).float().triu() for layer in layers}  # a product's two halves may round apart
    return [Statistics(layer, C + C.triu(1).T, total, corpus, (lm.name, lm.fingerprint)) for layer, C in upper.items()]


def _checked(lm: LanguageModel, layers: Iterable[int]) -> list[int]:
    layers = list(layers)
    for layer in layers:
        lm.check(layer, "ff2")
    return sorted({int(layer) % len(lm.layers) for layer in layers})


def _read(lm: LanguageModel, texts: Iterable[str] | None, count: int) -> tuple[list[list[int]], str]:
    """The first ``count`` tokens of the texts, in pieces that the model can read, and their digest."""
    if count < 1:
        raise ValueError(f"Statistics are taken over at least one token, and count is {count}.")
    if isinstance(texts, str) or not isinstance(texts, Iterable | None):
        got = "one string" if isinstance(texts, str) else f"{texts!r:.60}"
        raise TypeError(f"Expected several texts, and got {got}: give a list, such as [text].")
    longest = min(CONTEXT, getattr(lm.model.config, "max_position_embeddings", None) or CONTEXT)
    pieces, digest = [], sha256()
    if texts is None:
        texts = english("train") if lm.name in paths.FETCHED else chain.from_iterable(map(documents, naturals()))
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"Expected texts for the statistics, and got {text!r:.80}: give strings.")
        ids = lm.in_vocabulary(text_ids(lm.tokenizer, text)[:count])
        for start in range(0, len(ids), longest):
            pieces.append(ids[start : start + longest])
            digest.update(str(pieces[-1]).encode())
        count -= len(ids)
        if not count:
            break
    if not pieces:
        raise ValueError("The texts for the statistics have no tokens: give at least one that is not empty.")
    return pieces, digest.hexdigest()


def _writes(t: Tensor) -> int:
    """How often torch has seen somebody write into a tensor."""
    return -1 if t.is_inference() else t._version


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
