"""Who changes a model's weights, and how do they come back?  One stack for each model, the last change on top.

Whatever writes into a loaded model (an edit, a mask, a row of edits, adapters) does it as a ``Written`` change of this
stack, and keeps what it overwrites.  A change is taken back bit for bit, from the top: not while a later one lies on
the same weight, since the later one kept what it found.

    undo      refuses while a later change lies on the same weight
    close     the end of a ``with`` block: first takes back what was left on top of it

Whatever caches something about a model, or names it in a file, asks here: what lies on the weights (``changed``), and
which model is this, as it was loaded (``fingerprint``) or as it is now (``current_fingerprint``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from lens.model.devices import resident
from lens.model.fingerprint import fingerprint


class Written:
    """A change that lies on a model's weights: ``what`` it is, and how each weight it overwrote comes back.

    ``by`` is the object it belongs to, held weakly: a model with a change left on it can be freed.  ``open`` says that
    it belongs to a ``with`` block that has not ended.
    """

    def __init__(self, what: str, by: object | None = None):
        self.what, self.open, self.untouched, self.whole = what, False, True, False
        self.by = ref(by) if by is not None else lambda: None
        self.parameters: dict[int, Tensor] = {}
        self.places: dict[int, int] = {}  # where each parameter's memory was
        self.restore: list[Callable[[], object]] = []


@dataclass
class _State:
    """What is known of one model.  Nothing in it holds the model itself."""

    stack: list[Written] = field(default_factory=list)
    fingerprint: str | None = None
    marks: dict[int, tuple] = field(default_factory=dict)  # of each parameter when the fingerprint was true


_states: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()


class Weights:
    """The owner of ``model``'s weights.  Two of them for one model are the same."""

    def __init__(self, model: nn.Module):
        self._model, self._state = model, _states.setdefault(model, _State())

    def __deepcopy__(self, memo: dict) -> Weights:
        """The owner of the copy's weights.  What lay on them when they were copied is part of the copy."""
        return Weights(deepcopy(self._model, memo))

    # --- questions -------------------------------------------------------------------------------------------------

    @property
    def changed(self) -> tuple[str, ...]:
        """What lies on the weights at this moment, first to last; empty where they are as they were loaded."""
        return tuple(written.what for written in self._state.stack if written.parameters)

    def of(self, by: object) -> Written | None:
        """The change that belongs to ``by`` and lies on the weights; None where there is none."""
        return next((written for written in self._state.stack if written.by() is by), None)

    def on(self, parameters: Collection[int]) -> tuple[Written, ...]:
        """The changes that lie on the parameters whose ``id`` is among these, first to last."""
        return tuple(written for written in self._state.stack if not written.parameters.keys().isdisjoint(parameters))

    @property
    def fingerprint(self) -> str:
        """Which model this is (``lens.model.fingerprint``): as it was loaded, also while changes lie on it.

        Where anyone else has written into the weights since (training, a hand), it is that of the model which this has
        made.  See ``current_fingerprint`` for writes that torch does not count.
        """
        state = self._state
        if state.fingerprint is None or not state.stack:
            marks = {id(p): _mark(p) for p in self._model.parameters()}
            if state.fingerprint is None or marks != state.marks:
                state.fingerprint, state.marks = fingerprint(self._model), marks
        return state.fingerprint

    @property
    def current_fingerprint(self) -> str:
        """Which model is this now?  While changes lie on it, the digest also covers every byte of what they changed.

        The values are always read again, so that a write through ``parameter.data``, which torch does not count, is
        seen too.  What is kept in a file under a model's name is named by this.
        """
        if not self._state.stack:
            self._state.fingerprint = None
        changed = {i for written in self._state.stack for i in written.parameters}
        if not changed:
            return self.fingerprint
        digest = sha256(self.fingerprint.encode())
        for name, p in self._model.named_parameters():
            if id(p) in changed:
                digest.update(name.encode() + p.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    # --- writing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def write(self, what: str, by: object | None = None) -> Iterator[Written]:
        """Put a change on the stack; inside the block its writer calls ``claim`` for each parameter, writes, and adds
        to ``written.restore`` what brings the old values back.

        An error or an interrupt inside the block takes back what was written.
        """
        self.fingerprint  # of the model before anything changes
        written = Written(what, by)
        try:
            self._state.stack.append(written)
            yield written
            self.wrote(written)
        except BaseException:
            self._take_back(written)
            raise

    @contextmanager
    def block(self, what: str) -> Iterator[Written]:
        """A change that is taken back at the end of the block, whatever happens inside; its writer calls ``wrote``."""
        with self.write(what) as written:
            written.open = True
        try:
            yield written
        finally:
            try:
                self.close(written)
            except KeyboardInterrupt:  # halfway: what is begun is ended, and then it counts
                self.close(written)
                raise

    def claim(self, written: Written, parameter: Tensor) -> None:
        """``written`` is about to overwrite (some of) ``parameter``; ``written.restore`` says how that comes back.

        Raises ``RuntimeError`` where a later change lies on this parameter, ``ValueError`` where it is offloaded.
        """
        resident(parameter, written.what)
        later = self._state.stack[self._state.stack.index(written) + 1 :]
        self._refuse([other for other in later if id(parameter) in other.parameters])
        written.untouched &= self._state.marks.get(id(parameter)) == _mark(parameter)
        written.places[id(parameter)] = parameter.data_ptr()
        written.parameters[id(parameter)] = parameter  # last: an interrupt before finds nothing to take back

    def wrote(self, written: Written) -> None:
        """The writer of this change has finished: unless others wrote too, the fingerprint stays true."""
        written.whole = True
        if written.untouched:
            self._state.marks |= {i: _mark(p) for i, p in written.parameters.items()}

    # --- and taking back -------------------------------------------------------------------------------------------

    def undo(self, written: Written) -> None:
        """Take one change back; ``RuntimeError`` where a later one lies on the same weight."""
        self._refuse(self._above(written))
        self._take_back(written)

    def close(self, written: Written) -> None:
        """End the block of a change: take back what was left on the same weights on top of it, then the change itself.

        Nothing happens where it has been taken back already.  Raises ``RuntimeError``, when all is taken back, where
        one of those on top belongs to a block that is still open: blocks end in the reverse of their order.
        """
        if written not in self._state.stack:
            return
        above = self._above(written)
        for later in (*reversed(above), written):
            self._take_back(later)
        if still := [later.what for later in above if later.open]:
            raise RuntimeError(
                f"A block ended ({written.what}) while one inside it was still open ({still[-1]}); both have been "
                "taken back: leave blocks in the reverse of the order in which they were entered."
            )

    def restore(self) -> None:
        """Take back everything: the weights are as they were loaded, bit for bit."""
        while self._state.stack:
            self._take_back(self._state.stack[-1])

    def _above(self, written: Written) -> list[Written]:
        """The later changes that lie on a weight of this one, or on a weight of such a change, first to last."""
        stack = self._state.stack
        on, above = set(written.parameters), []
        for later in stack[stack.index(written) + 1 :]:
            if on & set(later.parameters):
                above.append(later)
                on |= set(later.parameters)
        return above

    def _refuse(self, later: list[Written]) -> None:
        if later:
            raise RuntimeError(f"A later change lies on the same weight ({later[-1].what}): undo that one first.")

    def _take_back(self, written: Written) -> None:
        if any(p.data_ptr() != written.places[i] for i, p in written.parameters.items()):
            raise RuntimeError(
                f"The weights were moved or cast while a change lay on them ({written.what}), and cannot be put back: "
                "open the model again."
            )
        alone = all(self._state.marks.get(i) == _mark(p) for i, p in written.parameters.items())
        lost = written.whole and written.untouched and not alone
        written.untouched &= alone
        with torch.no_grad():
            while written.restore:  # the last first; one that is interrupted is done again
                written.restore[-1]()
                written.restore.pop()
        self.wrote(written)
        if written in self._state.stack:
            self._state.stack.remove(written)
        if lost:  # last: where warnings are errors, all is put back
            warnings.warn(
                f"While {written.what} lay on the weights, somebody else wrote into the same ones (a training?). They "
                "are put back as they were before it: train before, or a copy of the model.",
                stacklevel=4,
            )


def _mark(p: Tensor) -> tuple[int, int]:
    """Changes when the tensor is written in place, moved or cast."""
    return p.data_ptr(), -1 if p.is_inference() else p._version
