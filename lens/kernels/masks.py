"""How are all matrices of a model masked at once?  One flat tensor of scores; one launch to draw, four to go back.

    draw      W ∘ (1 − m)  or  W ∘ m                                   of every matrix, views of one buffer
    back_     ∂ℓ/∂l  +=  ∓ G ∘ W ∘ s(1 − s)/τ  +  λ σ(l)(1 − σ(l))     G = ∂ℓ/∂(masked W), λ the price of density

The way back takes the place of what it reads: each group of matrices lets go of its G before the next group starts.
On a GPU there are four groups, which hold 8, 4, 2 and 1 of 15 parts.  So each ∂ℓ/∂l of 4 bytes finds room where a
16-bit W and G lay before; but for the last part of G, a step never holds more than its passes did.

Formulas and noise are those of ``masking``, and so are the bits: matrix i of a draw under ``key`` is
``mask(W_i, l_i, key)`` with i added to the key's site.  One autograd call a matrix would be two launches and a
millisecond of Python for each of a model's hundred matrices, many times what a GPU takes for the numbers; so the
straight-through rule is written out here, and whoever has G calls it.

    scores    │ l_0, row after row │ −∞ │ l_1, row after row │ −∞ │ …

Every matrix begins at a multiple of ``ALIGNED`` numbers; what is left over has no weight and can be in no mask.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from lens.kernels.expected_density import CHUNK, density
from lens.kernels.masking import PARTS, check_choice, fill_entries
from lens.kernels.noise import Key
from lens.kernels.paths import choose

ALIGNED = 64


class AllMasks:
    """The ``weights``, matrices [rows, columns] of one dtype on one device, and their ``scores`` [N], all −∞ at first.

    Scores are float32, or float64 for float64 weights.  ``views[i]`` are those of ``weights[i]``, of its shape, in the
    memory of ``scores``; an optimizer moves them, by their ``.grad``.  ``sites[i]`` is added to the site of a key that
    matrix i is drawn under, by default i.  Raises ``ValueError`` where the weights are no matrices, or of several
    dtypes or devices, or none.

    >>> from lens.kernels import mask
    >>> masks = AllMasks([torch.ones(2, 3), torch.ones(4, 4)])
    >>> masks.scores.fill_(0.5).shape
    torch.Size([128])
    >>> second = masks.draw(Key(seed=0))[1]
    >>> torch.equal(second, mask(torch.ones(4, 4), masks.views[1], Key(seed=0, site=1)))
    True
    """

    def __init__(self, weights: Sequence[Tensor], sites: Sequence[int] | None = None):
        if {w.ndim for w in weights} != {2} or len({(w.dtype, w.device) for w in weights}) != 1:
            got = ", ".join(sorted({f"{list(w.shape)} {w.dtype} on {w.device}" for w in weights})) or "none"
            raise ValueError(f"AllMasks need matrices of one dtype on one device, and got {got}.")
        self.weights = [w.detach().contiguous() for w in weights]
        self.sites = list(range(len(weights))) if sites is None else list(sites)
        self.starts = [0, *accumulate(-(-w.numel() // ALIGNED) * ALIGNED for w in weights)]
        wide = torch.promote_types(weights[0].dtype, torch.float32)
        self.scores = torch.full((self.starts[-1],), -torch.inf, dtype=wide, device=weights[0].device)
        self.views = [self.scores[i:][: w.numel()].view(w.shape) for i, w in zip(self.starts, weights)]
        self._launch = None  # what a GPU is told of them, at the first launch

    def draw(self, key: Key, *, tau: float = 1.0, part: str = "remaining") -> list[Tensor]:
        """W ∘ (1 − m), or W ∘ m for ``part="subnetwork"``, of every matrix, m drawn under ``key``; no gradient."""
        check_choice(tau, part)
        key = key.check()
        every = range(len(self.weights))
        out = self._empty(self.weights[0].dtype, every)
        self._fill(out, "hard", None, key, tau, *PARTS[part], 0.0, every)
        return out

    def back_(
        self, grads: list[Tensor], key: Key, *, tau: float = 1.0, part: str = "remaining", sparsity: float = 0.0
    ) -> None:
        """Add to the views' gradients what ``grads``, those of the matrices drawn under ``key``, say of the scores, and
        the slope of ``sparsity`` · Σ σ(l).  ``grads`` is empty then: each is let go as soon as it was read.

        Raises ``ValueError`` where they are not one for each matrix, of its shape.
        """
        check_choice(tau, part)
        key = key.check()
        if [g.shape for g in grads] != [w.shape for w in self.weights]:
            raise ValueError(
                f"The way back takes a gradient for each of {len(self.weights)} matrices, of its shape, and got "
                f"{[list(g.shape) for g in grads]!r:.200}: give those of the matrices that were drawn."
            )
        for some in self._groups():
            own, grads[: len(some)] = grads[: len(some)], []
            found = self._empty(self.scores.dtype, some)
            self._fill(found, "slope", own, key, tau, 0, PARTS[part][1], sparsity, some)
            del own
            for i, slope in zip(some, found):
                scores = self.views[i]
                scores.grad = slope if scores.grad is None else scores.grad.add_(slope)

    def density(self) -> Tensor:
        """Σ σ(l), a scalar without a gradient."""
        return density(self.scores) * len(self.scores)

    def _path(self) -> str:
        return "torch" if self.scores.is_meta else choose("mask", self.weights[0], self.scores)

    def _groups(self) -> list[range]:
        """Which matrices go back together: where nothing is launched, each on its own."""
        cuts = range(len(self.weights) + 1)
        if self._path() == "triton":
            ends = [bisect_right(self.starts, self.starts[-1] * share / 15) - 1 for share in (8, 12, 14)]
            cuts = sorted({0, *ends, len(self.weights)})
        return [range(*cut) for cut in pairwise(cuts)]

    def _empty(self, dtype: torch.dtype, some: range) -> list[Tensor]:
        """A matrix for each of ``some``, all in one new buffer."""
        begin = self.starts[some.start]
        flat = self.scores.new_empty(self.starts[some.stop] - begin, dtype=dtype)
        return [flat[self.starts[i] - begin :][: self.weights[i].numel()].view(self.weights[i].shape) for i in some]

    def _fill(self, out: list[Tensor], entry, grads: list | None, key, tau, base, sign, sparsity, some: range) -> None:
        """The matrices ``some``, into views of one buffer."""
        if self._path() == "triton":
            from lens.kernels.gpu.masks import Launch

            self._launch = self._launch or Launch(self)
            self._launch.fill(out, entry, grads, key, tau, base, sign, sparsity, some)
            return
        for i, target, grad in zip(some, out, [None] * len(some) if grads is None else grads):
            own = key._replace(site=key.site + self.sites[i])
            fill_entries(target, entry, self.weights[i], grad, self.views[i], own, tau, base, sign)
            if sparsity:
                for slope, scores in zip(target.view(-1).split(CHUNK), self.views[i].view(-1).split(CHUNK)):
                    s = scores.sigmoid()
                    slope.addcmul_(s, 1 - s, value=sparsity)
