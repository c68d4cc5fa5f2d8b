"""How does a function look into a model and leave it as it was?  Context managers that take their hooks away again.

``as_a_function`` freezes every flag, ``watch`` collects what goes into and comes out of modules, ``up_to`` ends a
forward pass early.  All undo themselves, also after an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from torch import nn


@contextmanager
def as_a_function(model: nn.Module):
    """The model as a fixed function of its input: parameters frozen, dropout off; every flag is put back."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    training = [m for m in model.modules() if m.training]
    try:
        for p in trainable:
            p.requires_grad_(False)
        for m in training:
            m.training = False
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
        for m in training:
            m.training = True


class _Enough(Exception):
    """Raised by ``up_to`` to leave a forward pass, and caught there."""


@contextmanager
def up_to(module: nn.Module) -> Iterator[None]:
    """A forward pass inside the block ends, and the block with it, when ``module`` has been run."""

    def leave(*_):
        raise _Enough

    with module.register_forward_hook(leave), suppress(_Enough):
        yield


@contextmanager
def watch(modules: dict) -> Iterator[dict]:
    """Collects (input, output) of each module's last call under the module's key; takes its hooks away again."""
    seen: dict = {}
    with ExitStack() as hooks:
        for key, module in modules.items():

            def look(_, args, output, key=key):
                seen[key] = args[0] if args else None, output

            hooks.enter_context(module.register_forward_hook(look))
        yield seen
