"""What does a piece of code hold and compute?  The code itself, run on tensors that have a shape and no numbers.

On torch's "meta" device an operation allocates nothing and computes nothing; it says how large its result is.  So the
real step of a 70-billion model runs on a laptop, and ``Tracer`` sees what it would on the real device: every storage
from the operation that makes it to the moment it is freed, and every matrix product, counted by torch's own formulas.

    phase               from ``phase(name)``: the layers' forward, the loss, and back through the layers, one by one
    part of a storage   what ``part`` says where it is made; else it follows from how long it lives:
                        working (gone in the phase), activations (made on the way up), gradients (left behind)
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lens import kernels
from lens.scale.cost.operations import attention, formulas, places, result, tensors

aten = torch.ops.aten

UP, LOSS, BACK = range(3)


class _Span(NamedTuple):
    """One phase: its name, the number of its pass, and whether it is on the way up, at the loss, or on the way back."""

    name: str
    run: int
    way: int


class Tracer(TorchDispatchMode):
    """As a context: what is made inside, by phase and part (``peaks``), bytes held ``now``, and ``flops``.

    ``vocabulary``: V, by which logits are known.  ``depth``: how many layers the model has that is meant.
    """

    def __init__(self, vocabulary: int, depth: int = 0):
        super().__init__()
        self.depth, self.flops, self.now = depth, 0, 0
        self._wide = {vocabulary, -(-vocabulary // 64) * 64}
        self._part: str | None = None
        self._run = -1
        self._recent = (None,) * 3
        self._alive: dict[int, weakref.ref] = {}
        self._made: list[tuple[str | None, int]] = [("working", 0)]  # (part, span in which it is made)
        self._died: dict[int, int] = {}
        self._events: list[tuple[int, int, int]] = []  # (span, which was made, ± bytes)
        self._spans: list[_Span] = []
        self.phase("before")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is made inside is this part."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def phase(self, name: str) -> None:
        """A pass begins."""
        self._pass, self._run = name, self._run + 1
        self._enter(name, UP)

    def named(self, name: str | Callable[..., str], call: Callable) -> Callable:
        """``call``, as a pass that begins when it is called; ``name``, or what it makes of the arguments."""

        def passes(*given, **rest):
            self.phase(name if isinstance(name, str) else name(*given, **rest))
            return call(*given, **rest)

        return passes

    def _enter(self, name: str, way: int) -> None:
        self._spans.append(_Span(name, self._run, way))
        self._count(0, 0)

    @contextmanager
    def layers(self, layers: Sequence[nn.Module], names: Sequence[str]) -> Iterator[None]:
        """Each layer's backward pass is a phase with a name; where layers share one, they share the phase."""

        def up() -> bool:
            return self._spans[-1].way != BACK

        def behind(where: str, hidden) -> None:
            """The backward pass of what made ``hidden`` begins when a gradient arrives at it."""
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            if hidden.requires_grad and up():
                hidden.register_hook(lambda _: self._enter(f"{self._pass}: back, {where}", BACK))

        def begins(below: str, _module, args, kwargs) -> None:
            if below == "embeddings" and up():
                self._enter(f"{self._pass}: forward", UP)
            behind(below, args[0] if args else kwargs["hidden_states"])

        def ends(_module, _args, hidden) -> None:
            if up():
                self._enter(f"{self._pass}: loss", LOSS)
            behind(names[-1], hidden)

        with ExitStack() as hooks:
            for below, layer in zip(("embeddings", *names), layers):
                hooks.callback(layer.register_forward_pre_hook(partial(begins, below), with_kwargs=True).remove)
            hooks.callback(layers[-1].register_forward_hook(ends).remove)
            yield

    def adam(self, values, *_, **__) -> SimpleNamespace:
        """Torch's fused Adam, which does not take meta tensors: it makes two moments of each value and nothing else."""
        with self.part("optimizer"):
            moments = [torch.zeros_like(v) for v in values for _ in range(2)]
        return SimpleNamespace(moments=moments, step=lambda: self.phase("Adam"), zero_grad=lambda: None)

    def __enter__(self):
        self._patches = ExitStack()
        self._patches.enter_context(kernels.use("torch"))
        self._patches.enter_context(patch("torch.optim.Adam", self.adam))
        self._patches.enter_context(patch("torch.nn.functional.scaled_dot_product_attention", attention))
        return super().__enter__()

    def __exit__(self, *raised):
        self._patches.close()
        return super().__exit__(*raised)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._recent = *self._recent[1:], function
        if function is aten._local_scalar_dense.default and args[0].is_meta:
            return self._number(args[0].dtype)
        if function is aten.index.Tensor and args[0].is_meta:  # every place of a boolean index counts
            args = args[0], [j for i in args[1] for j in places(i)]
        out, fresh = result(function, args, kwargs)
        if formula := formulas().get(function.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=out)
        for t in tensors(out) if fresh else ():
            if id(t.untyped_storage()) not in self._alive:
                self._see(t)
        return out

    def _number(self, dtype: torch.dtype):
        """What is read of a tensor without numbers: all is well, and nothing is NaN."""
        if dtype == torch.bool:
            return self._recent[:2] != (aten.isnan.default, aten.any.default)
        return 1.0 if dtype.is_floating_point else 0

    def _see(self, t: Tensor) -> None:
        storage, number = t.untyped_storage(), len(self._made)
        name, size = id(storage), storage.nbytes()

        def freed(_) -> None:
            del self._alive[name]
            self._died[number] = len(self._spans) - 1
            self._count(number, -size)

        part = self._part or ("logits" if t.ndim and t.shape[-1] in self._wide else "working" if size <= 8 else None)
        self._made.append((part, len(self._spans) - 1))
        self._alive[name] = weakref.ref(storage, freed)
        self._count(number, size)

    def _count(self, number: int, size: int) -> None:
        self.now += size
        self._events.append((len(self._spans) - 1, number, size))

    def peaks(self) -> dict[str, dict[str, int]]:
        """Of each phase the bytes by part when it held the most; of phases of one name, the fullest."""
        parts = [self._part_of(number) for number in range(len(self._made))]
        found, most = {}, Counter()
        held, now = Counter(), 0
        for span, number, size in self._events:
            held[parts[number]] += size
            now += size
            name = self._spans[span].name
            if name not in found or now >= most[name]:
                found[name], most[name] = dict(held), now
        return found

    def _part_of(self, number: int) -> str:
        part, born = self._made[number]
        died = self._died.get(number, len(self._spans) - 1)
        if part or died == born:
            return part or "working"
        (_, run, way), ended = self._spans[born], self._spans[died].run
        if way and run and ended > run:
            return "gradients"
        return "working" if way == BACK else "activations"
