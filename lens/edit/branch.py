"""How is a model run with edits that are not written into it?  As thin branches beside the matrices.

    z = a W + b + (a xᵀ) δ

The rows of one batch may carry different edits: a hundred edited models are evaluated in one pass, and only the
branches differ.  The weights are never touched.  In half precision the result can differ by a rounding from the edit
applied: ``W + xᵀδ`` is rounded to the weight's dtype, a branch is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lens.edit.edit import Change
from lens.model import LanguageModel


def thin(lm: LanguageModel, changes: Sequence[Change]) -> bool:
    """Can these changes run as branches?  Only those with factors, at sites that have a matrix of their own."""
    return all(c.x is not None and lm.family.sites[c.site].part is None for c in changes)


@contextmanager
def branches(
    lm: LanguageModel, edits: Sequence[Sequence[Change]], rows: Tensor | Sequence[int] | None = None
) -> Iterator[None]:
    """Inside the block, row b of every batch is computed as if ``edits[rows[b]]`` were applied.

    ``edits``: the changes of each edit, all of them ``thin``.  ``rows`` [B]: which edit each row carries; by default
    every row carries ``edits[0]``.  The batch may be repeated from call to call but must keep B rows: ``ValueError``
    where it has others, or ``rows`` names an edit that there is not.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> edit = lens.edit.shift(lm, lens.Request("The capital of {} is", "France", "Rome"))
    >>> with branches(lm, [edit.changes]):
    ...     lens.logit_lens(lm, "The capital of France is").words[-1][-1][0]
    '·Rome'
    """
    rows = None if rows is None else torch.as_tensor(rows)
    found: dict[tuple[int, str], list[list[Change]]] = {}
    if rows is not None and len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(edits):
        raise ValueError(f"rows is {rows.tolist()!r:.60}: give the number of an edit for each, 0 to {len(edits) - 1}.")
    for i, changes in enumerate(edits):
        for change in changes:
            change.fits(lm)
        if not thin(lm, changes):
            raise ValueError(
                "An edit without factors, or of a part of a joint matrix, cannot run as a branch: apply it."
            )
        for change in changes:
            key = change.layer % len(lm.layers), change.site
            found.setdefault(key, [[] for _ in edits])[i].append(change)

    def as_many(_module, args, kwargs) -> None:
        batch = args[0] if args else kwargs["hidden_states"]  # [B, T, d] before a family may flatten it
        if len(batch) != len(rows):
            raise ValueError(
                f"The batch has {len(batch)} rows, and rows gives the edits of {len(rows)}: give one for each."
            )

    with ExitStack() as hooks:
        for layer in {layer for layer, _ in found} if rows is not None else ():
            hooks.enter_context(lm.layers[layer].register_forward_pre_hook(as_many, with_kwargs=True))
        for (layer, site), carried in found.items():
            xs, deltas = (_side_by_side(carried, name) for name in ("x", "delta"))
            hooks.enter_context(lm.site(layer, site).register_forward_hook(_branch(xs, deltas, rows)))
        yield


def _branch(xs: Tensor, deltas: Tensor, rows: Tensor | None):
    """A forward hook that adds (a xᵀ) δ: ``xs`` [edits, r, d_in], ``deltas`` [edits, r, d_out]."""
    which = slice(1) if rows is None else rows.to(xs.device)
    xs, deltas = xs[which], deltas[which]  # [B, r, ·]

    def hook(_module, args, z):
        a = args[0].to(xs.dtype)  # [B, T, d_in], or [B·T, d_in] where a family flattens it
        flat = a.reshape(len(xs), -1, a.shape[-1])
        more = torch.baddbmm(z.to(xs.dtype).reshape(len(flat), -1, z.shape[-1]), flat @ xs.mT, deltas)
        return more.reshape(z.shape).to(z.dtype)

    return hook


def _side_by_side(carried: list[list[Change]], name: str) -> Tensor:
    """One factor of every edit, [edits, r, d], with rows of zeros where an edit's rank is below the largest."""
    rows = [[getattr(change, name) for change in changes] for changes in carried]
    sample = next(t for r in rows for t in r)
    wide = torch.promote_types(sample.dtype, torch.float32)
    # Autograd follows, so that an editor can be trained through its edits.
    return pad_sequence([torch.cat([sample[:0], *r]).to(wide) for r in rows], batch_first=True)
