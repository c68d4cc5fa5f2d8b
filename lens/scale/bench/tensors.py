"""Which tensors does a piece of code hold?  Counted as torch makes them, to the byte.

The resident size of a process says what the system lent it, holes in the heap included.  These say what torch asked
for: ``peak_tensor_bytes`` by watching every operation, ``saved_bytes`` by asking autograd.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Watch(TorchDispatchMode):
    """Every storage from the operation that makes it to the moment it is freed."""

    def __init__(self):
        super().__init__()
        self.held: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {id(storage) for storage in _storages((args, kwargs))}
        out = function(*args, **(kwargs or {}))
        for storage in _storages(out):
            name = id(storage)
            if name not in self.held and name not in given:
                self.held[name] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, name)
        return out

    def _freed(self, name: int) -> None:
        self.now -= self.held.pop(name)


def _storages(values) -> list[UntypedStorage]:
    return [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, Tensor)]


def peak_tensor_bytes(task: Callable[[], object]) -> int:
    """The most bytes of tensors made by ``task`` that exist at a time.

    >>> import torch
    >>> peak_tensor_bytes(lambda: torch.ones(1000) + 1)
    8000
    """
    with _Watch() as watch:
        task()
    return watch.peak


def saved_bytes(task: Callable[[], object], known: Iterable[Tensor] = ()) -> int:
    """The bytes that autograd keeps for the backward pass of what ``task`` returns; ``known`` tensors are left out.

    >>> import torch
    >>> x = torch.ones(10, requires_grad=True)
    >>> saved_bytes(lambda: x.exp())
    40
    """
    held: dict[int, UntypedStorage] = {}  # one that were freed could give its address to the next
    own = {t.untyped_storage().data_ptr() for t in known}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        result = task()
    del result
    return sum(storage.nbytes() for storage in held.values())
