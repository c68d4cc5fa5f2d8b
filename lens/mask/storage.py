"""How is a subnetwork kept?  One bit a weight in a safetensors file, with all that decided it, and for which model.

The upper half of mini has 1.77 million maskable weights: 221 kB.  A mask that is nearly all zeros is compressed: 0.3 %
of 35 million weights are 200 kB where the bits would be 4.4 MB.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from lens.data import paths
from lens.given import door, result_file
from lens.kernels import Bits
from lens.mask.config import Config
from lens.mask.subnetwork import SiteKey, Subnetwork
from lens.model import LanguageModel
from lens.results.whole import whole

FORMAT, COMPRESSED = "lens-mask-1", "lens-mask-2"
"""Of a file in which every site's bits lie as they are, and of one in which each site's went through zlib."""

WORTH = 0.5
"""A file is compressed where that leaves at most this share of its bits' bytes."""


@door(path=result_file)
def save(subnetwork: Subnetwork, path: str | Path) -> Path:
    """Write the subnetwork to ``path``, a whole file or none, and return it."""
    from safetensors.torch import save_file

    path = Path(path)
    sites = [
        {"layer": layer, "site": site, "shape": list(subnetwork.shapes[layer, site]), "rows": bits.shape[1] == 1}
        for (layer, site), bits in subnetwork.bits.items()
    ]
    tensors = {f"{layer}.{site}": bits.bytes.cpu().clone() for (layer, site), bits in subnetwork.bits.items()}
    smaller = {name: _compressed(bits) for name, bits in tensors.items()}
    if compressed := sum(map(len, smaller.values())) <= WORTH * sum(map(len, tensors.values())):
        tensors = smaller
    about = {
        "format": COMPRESSED if compressed else FORMAT,
        "model": subnetwork.model,
        "fingerprint": subnetwork.fingerprint,
        "head_dim": subnetwork.head_dim,
        "config": asdict(subnetwork.config),
        "history": list(subnetwork.history),
        "about": subnetwork.about,
        "sites": sites,
    }
    with whole(path) as temporary:
        save_file(tensors, temporary, {"lens": json.dumps(about)})
    return path


def _compressed(packed: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(zlib.compress(packed.numpy().tobytes(), 9)), dtype=torch.uint8)


class InFile(Mapping[SiteKey, Bits]):
    """Masks that stay in an open safetensors ``file``, of these ``shapes`` as packed; each is read when asked for.

    ``compressed`` ones raise ``ValueError`` where they do not hold as many bits as they should.
    """

    def __init__(self, file, shapes: Mapping[SiteKey, tuple[int, int]], compressed: bool):
        self._file, self._shapes, self._compressed = file, shapes, compressed

    def __getitem__(self, key: SiteKey) -> Bits:
        shape, held = self._shapes[key], self._file.get_tensor(f"{key[0]}.{key[1]}")
        if self._compressed:
            try:
                held = torch.frombuffer(bytearray(zlib.decompress(held.numpy().tobytes())), dtype=torch.uint8)
            except zlib.error as error:
                raise ValueError(f"The mask of {key[1]} in layer {key[0]} is damaged: {error}.") from None
        if len(held) != -(-prod(shape) // 8):
            raise ValueError(f"The mask of {key[1]} in layer {key[0]} has {len(held)} bytes, not one bit a weight.")
        return Bits(held, shape)

    def __iter__(self) -> Iterator[SiteKey]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@door
def load(path: str | Path, lm: LanguageModel | None = None, *, lazy: bool = False) -> Subnetwork:
    """The subnetwork that ``save`` wrote to ``path``; with ``lm``, only if it was made for this model.

    ``lazy``: its masks stay in the file, and each is read when it is asked for.

    Raises ``OSError`` where the file is missing, damaged or no subnetwork, and ``ValueError`` where it was made for
    another model.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise OSError(f"There is no subnetwork file {path}: check the path, or make one with lens.mask.save.")
    try:
        file = safe_open(path, "pt")
        held = json.loads((file.metadata() or {})["lens"])
        compressed = {FORMAT: False, COMPRESSED: True}[held["format"]]
        shapes, packed = {}, {}
        for s in held["sites"]:
            key, shape = (s["layer"], s["site"]), tuple(s["shape"])
            shapes[key] = shape
            packed[key] = (shape[0], 1) if s["rows"] else shape
            size = file.get_slice(f"{key[0]}.{key[1]}").get_shape()
            if not compressed and size != [-(-prod(packed[key]) // 8)]:
                raise ValueError(key)
        bits = InFile(file, packed, compressed)
        subnetwork = Subnetwork(
            bits if lazy else dict(bits),
            shapes,
            Config(**held["config"]),
            tuple(held["history"]),
            held["model"],
            held["fingerprint"],
            held["head_dim"],
            held["about"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise OSError(f"The file {path} is no whole subnetwork: make it again with lens.mask.save.") from None
    if lm is not None:
        subnetwork.check(lm)
    return subnetwork


@door
def shipped(name: str, seed: int = 0, granularity: str = "weight", model: str = "mini") -> Subnetwork:
    """A subnetwork that comes with the book, from ``data/runs``: a TargetKG's name, a seed, weight or neuron, a model.

    Raises ``OSError`` where there is none.

    >>> shipped("building").sparsity > 0.5
    True
    """
    return load(paths.root() / "runs" / model / f"{name}-{granularity}-{seed}.safetensors")
