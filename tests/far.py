"""A second device where there is none: tensors that say they are elsewhere, and refuse to meet those that are here.

``Far`` holds a tensor of the CPU and answers ``FAR`` for its device.  As between two GPUs, an operation on a near and a
far tensor raises; only copies go across, numbers without a dimension, and indices of the CPU.  Inside ``elsewhere()``
torch also makes new tensors there.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

FAR, META = torch.device("xla", 0), torch.device("meta")
ACROSS = ("aten::copy_", "aten::_to_copy", "aten::index.", "aten::index_put", "aten::_index_put_impl_")


class Far(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=META
        )

    def __init__(self, inner):
        self.inner = inner

    # For torch's own code it is a meta tensor, the only kind that needs no real device behind it.
    device = property(lambda self: FAR)
    is_meta = False

    def tolist(self):
        return self.inner.tolist()

    def __repr__(self):
        return f"Far({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        near = [t for t in tensors if not isinstance(t, Far) and t.ndim]
        far = [t for t in tensors if isinstance(t, Far)]
        if near and far and not function.name().startswith(ACROSS):
            raise RuntimeError(f"{function.name()} met tensors on cpu and on {FAR}")
        there = kwargs.get("device", FAR if far else None) in (FAR, META)
        if function.name() == "aten::copy_":
            there = isinstance(args[0], Far)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        inside = tree_map_only(Far, lambda t: t.inner, (args, kwargs))
        out = function(*inside[0], **inside[1])
        out = tree_map_only(torch.Tensor, Far, out) if there else out
        return return_and_correct_aliasing(function, args, kwargs, out) if far and there else out


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return Far.__torch_dispatch__(function, types, args, kwargs)


class _Literals(TorchFunctionMode):
    """``torch.tensor([1, 2], device=FAR)`` writes to the device itself."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        far = function is torch.tensor and kwargs.get("device") == FAR
        return function(*args, **kwargs | {"device": "cpu"}).to(FAR) if far else function(*args, **kwargs)


@contextmanager
def elsewhere():
    """Inside the block torch knows of ``FAR``."""
    with _Literals(), _Operations():
        yield


def move(module: torch.nn.Module) -> None:
    """The module's parameters and buffers go far away, and as under accelerate its inputs follow them."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            setattr(part, name, torch.nn.Parameter(Far(p.detach().clone()), requires_grad=p.requires_grad))
        for name, b in part.named_buffers(recurse=False):
            setattr(part, name, Far(b.clone()))
    add_hook_to_module(module, AlignDevicesHook(execution_device=FAR))
