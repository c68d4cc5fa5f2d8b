"""Which model is this?  A name of its weights alone, the same in every process and on every device.

The models of ``data/fingerprints.json``, in float32, are named by 64 values of each parameter, as the files are that
came with them; one that differs from them in any other bit has another name.
"""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import nn

from lens.data.paths import table
from lens.model.devices import parameters


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over every parameter's name, shape, dtype, 64 of its values, and its bits, by row and by column."""
    some, whole = digests(model)
    shipped = table("fingerprints.json")  # what 64 values of each parameter say → what all bits say
    return some if shipped.get(some) == whole else sha256(f"{some} {whole}".encode()).hexdigest()


def digests(model: nn.Module) -> tuple[str, str]:
    """SHA-256 of 64 values of each parameter, evenly spread, and of all its bits, as the sums of rows and columns."""
    some, whole = sha256(model.config.model_type.encode()), sha256()
    for name, p in parameters(model):
        if p.is_meta:  # shapes and no numbers, as the calculator's
            some.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
            continue
        flat = p.detach().reshape(-1)
        values = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.float64)
        some.update(f"{name} {tuple(p.shape)} {p.dtype}".encode() + values.numpy().tobytes())
        bits = flat.view({1: torch.int8, 2: torch.int16, 4: torch.int32}.get(p.element_size(), torch.int64))
        bits = bits.view(p.shape if p.ndim > 1 else (1, len(flat))).flatten(1)
        parts = bits.split(max(1, (1 << 22) // max(1, bits.shape[1])))
        rows = torch.cat([part.sum(1, dtype=torch.int64) for part in parts])
        columns = sum(part.sum(0, dtype=torch.int64) for part in parts)
        for sums in (rows, columns):
            whole.update(sums.cpu().numpy().tobytes())
    return some.hexdigest(), whole.hexdigest()
