"""What is an edit, once it is made?  A few thin factors that can be put into a model and taken out again exactly.

    W ← W + xᵀδ        x [r, d_in], δ [r, d_out], at each changed site

Every editor of this folder returns an ``Edit`` and leaves the model alone; ``with edit:`` is what changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from lens.edit.request import Request
from lens.kernels import update_
from lens.model import LanguageModel
from lens.model.devices import resident
from lens.model.soundness import finite, not_finite
from lens.results.display import Grid, Shown


@dataclass(frozen=True)
class Change:
    """What is added to the weight of one site: ``xᵀδ`` of ``x`` [r, d_in] and ``delta`` [r, d_out].

    Where an editor has no factors (fine-tuning with Adam), ``x`` is None and ``delta`` [d_in, d_out] is added itself.
    """

    layer: int
    site: str
    x: Tensor | None
    delta: Tensor

    def dense(self) -> Tensor:
        """ΔW [d_in, d_out]."""
        return self.delta if self.x is None else self.x.T @ self.delta

    def fits(self, lm: LanguageModel) -> Change:
        """Itself; ``IndexError`` or ``ValueError`` where the model has no such site, or one of another shape."""
        lm.check(self.layer, self.site)
        x, delta, shape = self.x, self.delta, lm.weight(self.layer, self.site).shape
        good = delta.ndim == 2 and (x is None or (x.ndim == 2 and len(x) == len(delta)))
        if not good or (len(delta) if x is None else x.shape[1], delta.shape[1]) != tuple(shape):
            parts = f"delta {list(delta.shape)}" + ("" if x is None else f" and x {list(x.shape)}")
            raise ValueError(
                f"A change of layer {self.layer} {self.site} by {parts} needs a weight of that shape, and this "
                f"model's is {list(shape)}: give x [r, {shape[0]}] and delta [r, {shape[1]}], or delta alone, of the "
                "weight's shape."
            )
        return self

    def weight(self, lm: LanguageModel) -> Tensor:
        """The weight [d_in, d_out] that it changes, as a view to write through; ``ValueError`` where there is none."""
        self.fits(lm)
        whole = lm.site(self.layer, self.site).weight
        resident(whole, f"An edit of layer {self.layer} {self.site}")
        weight = lm.weight(self.layer, self.site).detach()
        if weight.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
            raise ValueError(
                f"Site {self.site!r} shares its matrix with others in a way that cannot be edited in place: "
                "choose attn_out, ff1 or ff2."
            )
        return weight

    def add_to(self, weight: Tensor) -> None:
        """Add ΔW to ``weight`` [d_in, d_out], in place."""
        if self.x is None:
            weight.add_(self.delta)
        else:
            update_([weight], [self.x], [self.delta], eta=1.0)

    @property
    def nbytes(self) -> int:
        """The bytes its tensors take."""
        return sum(t.nbytes for t in (self.x, self.delta) if t is not None)


@dataclass(frozen=True, eq=False)
class Edit(Shown):
    """An edit of one model: ``changes`` at some sites, to be applied and undone.

    ``editor`` is the method's name, ``requests`` what it was asked, ``settings`` the hyperparameters it used, and
    ``seconds`` the wall time it took; ``note`` says in a sentence where it did nothing.  ``fingerprint`` is the model's
    when the edit was made.

    ``with edit: …`` changes the weights inside the block; ``apply()`` and ``undo()`` do the same by hand.  Undoing puts
    back every weight bit for bit.  Edits and masks may lie on top of each other: the end of a ``with`` block also takes
    back what was applied on top inside it, ``undo()`` refuses while a later one lies on the same weight.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> edit = lens.edit.shift(lm, lens.Request("The capital of {} is", "France", "Rome"))
    >>> with edit:
    ...     lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Rome'
    >>> lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Paris'
    """

    editor: str
    requests: tuple[Request, ...]
    changes: tuple[Change, ...]
    settings: dict
    seconds: float
    lm: LanguageModel = field(repr=False)
    note: str | None = None
    fingerprint: str = field(default="", repr=False)

    def __post_init__(self):
        depth = len(self.lm.layers)
        from_zero = [replace(c, layer=c.layer + depth) if c.layer < 0 else c for c in self.changes]
        object.__setattr__(self, "fingerprint", self.fingerprint or self.lm.fingerprint)
        object.__setattr__(self, "changes", tuple(from_zero))
        for c in self.changes:
            if not all(finite(t) for t in (c.x, c.delta) if t is not None):
                raise not_finite(self.lm, f"What {self.editor} adds to layer {c.layer} {c.site} is NaN or infinite")

    def __repr__(self) -> str:
        what = ", ".join(f"{r.subject} → {r.target_new}" for r in self.requests[:2])
        what += f" and {len(self.requests) - 2} more" if len(self.requests) > 2 else ""
        where = ", ".join(f"layer {c.layer} {c.site}" for c in self.changes) or "nowhere"
        return f"Edit({self.editor}: {what}; {where}; {self.nbytes:,} bytes, {1000 * self.seconds:.0f} ms)"

    def _grid(self) -> Grid:
        rows = [
            [f"layer {c.layer} {c.site}", "all" if c.x is None else str(len(c.x)), f"{float(c.dense().norm()):.3g}"]
            for c in self.changes
        ]
        asked = "; ".join(f"{r.prompt} {r.target_new}" for r in self.requests[:3])
        state = "Applied to the model now." if self.applied else "Not applied: use it in a with block."
        return Grid(("changes", "rank", "length"), rows, " ".join(filter(None, [f"“{asked}”.", state, self.note])))

    @property
    def nbytes(self) -> int:
        """The bytes its factors take: what ``save`` writes, but for a short header."""
        return sum(change.nbytes for change in self.changes)

    @property
    def applied(self) -> bool:
        """Is the model changed by it at this moment?"""
        return self.lm.weights.of(self) is not None

    def apply(self) -> Edit:
        """Change the model's weights, and return the edit; ``RuntimeError`` where it is applied already."""
        if self.applied:
            raise RuntimeError(f"This edit is applied already ({self!r}): undo it before it is applied again.")
        write(self.lm, self.changes, repr(self), by=self)
        return self

    def undo(self) -> None:
        """Put back the weights as they were before ``apply``; nothing happens where it is not applied.

        Raises ``RuntimeError`` where a later edit or mask lies on the same weight: undo that one first.
        """
        if written := self.lm.weights.of(self):
            self.lm.weights.undo(written)

    def __enter__(self) -> Edit:
        try:
            self.apply()
            self.lm.weights.of(self).open = True
            return self
        except KeyboardInterrupt:
            self._leave()
            raise

    def __exit__(self, *_) -> None:
        try:
            self._leave()
        except KeyboardInterrupt:  # halfway: what is begun is ended, and then it counts
            self._leave()
            raise

    def _leave(self) -> None:
        if written := self.lm.weights.of(self):
            self.lm.weights.close(written)


def write(lm: LanguageModel, changes: Sequence[Change], what: str, by: object | None = None) -> None:
    """Add ``changes`` to the model's weights, all of them or none, as one change of ``lm.weights``."""
    sites = [(change, change.weight(lm), lm.site(change.layer, change.site).weight) for change in changes]
    with lm.weights.write(what, by) as written:
        for _, _, parameter in sites:
            lm.weights.claim(written, parameter)
        for change, weight, _ in sites:
            written.restore.append(partial(weight.copy_, weight.clone()))
            change.add_to(weight)
