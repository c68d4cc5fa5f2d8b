"""What is each layer saying, forward and backward?  A grid of words: layers × tokens.

``logit_lens`` reads the residual stream after every layer (nostalgebraist, 2020): what the model is about to say.
``backward_lens`` reads the vectors that span a weight gradient (Katz et al., 2024): what training is about to write.
Both give a ``Lens``, which ``lens.plot.grid`` draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lens.given import door
from lens.gradient import Trace
from lens.model import LanguageModel, Tokens
from lens.model.tokens import first_token
from lens.model.watching import as_a_function, watch
from lens.readout.projection import check_k, read
from lens.results.display import MOST_COLUMNS, Grid, Shaded, Shown, spread


@dataclass(frozen=True, repr=False)
class Lens(Shown):
    """A grid of readings, one per layer and token.

    ``vectors`` [layers, n, d] are what was read; ``ids`` and ``logits`` [layers, n, k] the words found, best first;
    ``norms`` [layers, n] the vectors' lengths; ``ranks`` [layers, n] the rank of ``target`` where one was given;
    ``probabilities`` [layers, n, k] under the softmax, where the lens has a use for them (the logit lens).
    ``layers`` and ``tokens`` label the two axes; ``what`` says in words what was read.
    """

    what: str
    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    vectors: Tensor
    ids: Tensor
    logits: Tensor
    norms: Tensor
    ranks: Tensor | None
    probabilities: Tensor | None
    target: int | Tensor | None
    _lm: LanguageModel

    def __repr__(self) -> str:
        return (
            f"Lens({self.what}: {len(self.layers)} layers × {len(self.tokens)} tokens, {self.ids.shape[-1]} words each)"
        )

    def _grid(self) -> Grid:
        strength = self.norms / self.norms.max() if self.probabilities is None else self.probabilities[..., 0]
        tokens = range(len(self.tokens))[-MOST_COLUMNS + 1 :]
        rows = [
            [str(layer), *(Shaded(self.words[i][t][0], float(strength[i, t])) for t in tokens)]
            for i, layer in spread(list(enumerate(self.layers)))[::-1]
        ]
        by = "length" if self.probabilities is None else "probability"
        last = "" if len(tokens) == len(self.tokens) else f" The last {len(tokens)} tokens."
        return Grid(("layer", *(self.tokens[t] for t in tokens)), rows, f"The first word, darker with its {by}.{last}")

    @cached_property
    def words(self) -> list[list[list[str]]]:
        """The words of ``ids``: ``words[layer][token][place]``."""
        return self._lm.words(self.ids)

    @property
    def vocabulary_size(self) -> int:
        """V; the largest possible rank is V − 1."""
        return self._lm.vocabulary_size


@door
def logit_lens(
    lm: LanguageModel, prompt: Tokens, target: Tokens | None = None, k: int = 10, position: int | None = None
) -> Lens:
    """Read the residual stream after each layer, LL(h) = softmax(ln_f(h) Eᵀ): a ``Lens`` of all layers and tokens.

    The last layer's row is the model's own output.  ``target`` adds the rank of a token (its first, if text).
    ``position`` reads at one token of the prompt alone, -1 the last: n times less to read, a ``Lens`` of one column.

    Raises ``ValueError`` where ``k`` is not between 1 and V, or the prompt has no such ``position``.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Paris'
    """
    check_k(lm, k)
    ids = lm.encode(prompt)
    if position is not None and not -len(ids) <= position < len(ids):
        raise ValueError(
            f"position is {position}: the prompt has {len(ids)} tokens, counted from 0, or from -1 backwards."
        )
    read_at = slice(None) if position is None else [position]
    with torch.no_grad(), as_a_function(lm.model), watch(dict(enumerate(lm.layers))) as seen:
        lm.base_model(input_ids=torch.tensor([ids], device=lm.device), use_cache=False)
    streams = [out[0] if isinstance(out, tuple) else out for _, out in seen.values()]
    vectors = torch.stack([s[0, read_at].to(streams[-1].device) for s in streams])  # [L, n, d]
    tokens = lm.words(ids if position is None else [ids[position]])
    return _lens(lm, "residual stream", range(len(streams)), tokens, vectors, k, target, probabilities=True)


@door
def backward_lens(
    lm: LanguageModel,
    trace: Trace,
    site: str = "ff2",
    k: int = 10,
    largest: bool | None = None,
    target: Tokens | None = None,
    normalize: bool = False,
) -> Lens:
    """Read the vectors that span a site's gradient, in every captured layer and at every token.

    A site that reads from the residual stream (``ff1``, ``attn_q`` …) is spanned by its inputs x_i: the *imprint*, read
    from the top.  One that writes to it (``ff2``, ``attn_out``) is spanned by its VJPs δ_i: the *shift*, read from the
    bottom, because training subtracts δ; where a norm lies between the site and the stream (Gemma 2, OLMo 2), the
    gradient is read behind it, where it is the stream's.  ``largest`` overrides the end that is read.  Takes the trace
    of one prompt, or of several end to end; ``target`` (one, or an array with one id per token row) defaults to each
    prompt's own first target token.

    Raises ``ValueError`` where ``k`` is not between 1 and V, and for a trace of another model.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> trace = lens.capture(lm, "The capital of France is", "Rome")
    >>> backward_lens(lm, trace, "ff2", k=1).words[-1][-1]
    ['·Rome']
    """
    check_k(lm, k)
    trace.check(lm)
    writes = site in ("ff2", "attn_out")
    largest = (not writes) if largest is None else largest
    vectors = trace.stack(site, "residual" if writes else "x")
    if target is None:
        own = torch.tensor([first_token(lm.tokenizer, t) for t in trace.targets])
        target = int(own[0]) if len(trace) == 1 else own.repeat_interleave(torch.tensor(trace.lengths))
    end = "top" if largest else "bottom"
    what = f"{site}: {'VJP δ' if writes else 'input x'}, {end} of LL"
    return _lens(lm, what, trace.layers, trace.tokens, vectors, k, target, largest, normalize)


def _lens(lm, what, layers, tokens, vectors, k, target, largest=True, normalize=False, probabilities=False) -> Lens:
    token = target
    array = hasattr(target, "__array__") and not isinstance(target, str)  # a numpy string is a string
    if target is not None and not (array and torch.as_tensor(target).numel() > 1):
        token = first_token(lm.tokenizer, lm.target_ids(target))
    out = read(lm, vectors, k=k, largest=largest, tokens=token, normalize=normalize, log_normalizer=probabilities)
    ids, logits, norms = out["ids"], out["logits"], vectors.float().norm(dim=-1)
    p = (logits.float() - out["log_normalizer"][..., None]).exp() if probabilities else None
    token = torch.as_tensor(token).expand(vectors.shape[:2]) if hasattr(token, "__array__") else token
    return Lens(what, tuple(layers), tuple(tokens), vectors, ids, logits, norms, out.get("ranks"), p, token, lm)
