"""How is a subnetwork kept?  One bit a weight in a safetensors file, with all that decided it, and for which model.

The upper half of mini has 1.77 million maskable weights: 221 kB.  A mask that is nearly all zeros is compressed: 0.3 %
of 35 million weights are 200 kB where the bits would be 4.4 MB.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from math import prod
from os.path import expanduser
from pathlib import Path

import torch
from torch import Tensor

from lens.data import manifest, paths
from lens.data.knowledge import target_kgs
from lens.given import door, result_file
from lens.kernels import Bits
from lens.mask.config import Config
from lens.mask.subnetwork import SiteKey, Subnetwork
from lens.model import LanguageModel
from lens.results.damaged import damaged
from lens.results.sealed import Sealed, write

UNSEALED, SEALED = ("lens-mask-1", "lens-mask-2"), ("lens-mask-3", "lens-mask-4")
"""Names of formats, without and with digests: the bits as they are, and each site's bits through zlib."""

FORM = {
    "model": str,
    "fingerprint": str,
    "head_dim": int,
    "config": dict,
    "history": [dict],
    "about": dict,
    "sites": [{"layer": int, "site": str, "shape": [int], "rows": bool}],
}

REMEDY = "make it again with lens.mask.save"
WORTH = 0.5
"""A file is compressed where that leaves at most this share of its bits' bytes."""


@door(path=result_file)
def save(subnetwork: Subnetwork, path: str | Path) -> Path:
    """Write the subnetwork to ``path``, a whole file or none, and return it."""
    sites = [
        {"layer": layer, "site": site, "shape": list(subnetwork.shapes[layer, site]), "rows": bits.shape[1] == 1}
        for (layer, site), bits in subnetwork.bits.items()
    ]
    tensors = {f"{layer}.{site}": bits.bytes.cpu() for (layer, site), bits in subnetwork.bits.items()}
    smaller = {name: _compressed(bits) for name, bits in tensors.items()}
    if compressed := sum(map(len, smaller.values())) <= WORTH * sum(map(len, tensors.values())):
        tensors = smaller
    about = {
        "format": SEALED[compressed],
        "model": subnetwork.model,
        "fingerprint": subnetwork.fingerprint,
        "head_dim": subnetwork.head_dim,
        "config": asdict(subnetwork.config),
        "history": list(subnetwork.history),
        "about": subnetwork.about,
        "sites": sites,
    }
    return write(path, tensors, about)


def _compressed(packed: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(zlib.compress(packed.numpy().tobytes(), 9)), dtype=torch.uint8)


class InFile(Mapping[SiteKey, Bits]):
    """Masks that stay in an open ``file``, of these ``shapes`` as packed; each is read when asked for.

    Raises ``OSError`` where one is damaged, or holds not as many bits as it should.
    """

    def __init__(self, path: Path, file: Sealed, shapes: Mapping[SiteKey, tuple[int, int]]):
        self._path, self._file, self._shapes = path, file, shapes

    def __getitem__(self, key: SiteKey) -> Bits:
        shape = self._shapes[key]
        with damaged(self._path, "subnetwork", REMEDY):
            held, size = self._file[f"{key[0]}.{key[1]}"], -(-prod(shape) // 8)
            if self._file.about["format"] in (UNSEALED[1], SEALED[1]):
                stream = zlib.decompressobj()
                inflated = stream.decompress(held.numpy().tobytes(), size + 1)  # never more than that
                held = torch.frombuffer(bytearray(inflated if stream.eof else b""), dtype=torch.uint8)
            if held.shape != (size,) or held.dtype != torch.uint8 or int(held[-1]) >> (prod(shape) % 8 or 8):
                raise ValueError(key)
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
    path = Path(expanduser(path))  # of a user who is none, as it is given
    if not path.is_file():
        raise OSError(f"There is no subnetwork file {path}: check the path, or make one with lens.mask.save.")
    with damaged(path, "subnetwork", REMEDY):
        file = Sealed(path, FORM, SEALED, UNSEALED)
        held, shapes, packed = file.about, {}, {}
        for s in held["sites"]:
            key, (d_in, d_out) = (s["layer"], s["site"]), s["shape"]
            if min(key[0] + 1, d_in, d_out, held["head_dim"]) < 1:
                raise ValueError(key)
            shapes[key] = d_in, d_out
            packed[key] = d_in, 1 if s["rows"] else d_out
        if not packed or {f"{layer}.{site}" for layer, site in packed} != file.names:
            raise ValueError("sites")
        rest = (held[name] for name in ("model", "fingerprint", "head_dim", "about"))
        masks, config, history = InFile(path, file, packed), Config(**held["config"]), tuple(held["history"])
        subnetwork = Subnetwork(masks, shapes, config, history, *rest)
    if not lazy:
        subnetwork = replace(subnetwork, bits=dict(subnetwork.bits))
    if lm is not None:
        subnetwork.check(lm)
    return subnetwork


@door
def shipped(name: str, seed: int = 0, granularity: str = "weight", model: str = "mini") -> Subnetwork:
    """A subnetwork that comes with the book, from ``data/runs``: a TargetKG's name, a seed, weight or neuron, a model.

    Raises ``OSError`` where there is none, or it is not what ``data/MANIFEST.json`` says.

    >>> shipped("building").sparsity > 0.5
    True
    """
    return load(manifest.whole(paths.root() / "runs" / model / f"{name}-{granularity}-{seed}.safetensors"))


@door
def all_shipped(model: str = "mini") -> dict[tuple[str, int], Subnetwork]:
    """Every subnetwork of weights that comes with the book for ``model``: (TargetKG, seed) → subnetwork, in order.

    >>> len(all_shipped("mini")), all_shipped("no-such-model")
    (30, {})
    """
    found = {}
    for name in target_kgs(every=True):
        for path in sorted((paths.root() / "runs" / model).glob(f"{name}-weight-*.safetensors")):
            found[name, int(path.stem.rsplit("-", 1)[1])] = load(manifest.whole(path))
    return found
