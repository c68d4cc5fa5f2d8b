"""How are tensors kept so that a flipped bit is seen?  In a safetensors file that holds the digests of its parts.

    metadata["lens"]      JSON: what the file says of itself; "digests": tensor → SHA-256 of dtype, shape, bytes; and
                          last "sha256", that of the text without it

A tensor is compared with its digest when it is read, so that others may stay in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from lens.results.damaged import check
from lens.results.whole import whole


def write(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping) -> Path:
    """Write a whole file or none, and return its path; ``about`` is fit for JSON."""
    from safetensors.torch import save_file

    # A tensor may be a view of another's memory, which safetensors refuses to write twice.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    text = json.dumps({**about, "digests": {name: _digest(t) for name, t in tensors.items()}})
    with whole(path) as temporary:
        save_file(tensors, temporary, {"lens": text[:-1] + _seal(text)})
    return Path(path).expanduser()


class Sealed:
    """An open file: ``about``, and ``file[name]``, a tensor on the CPU.

    ``form``: what ``about`` holds (``damaged.like``); ``formats``: names of its format, ``unsealed``: names of those
    from before there were digests.  What is not so raises something that ``damaged`` turns into a sentence.
    """

    def __init__(self, path: str | Path, form: dict, formats: tuple[str, ...], unsealed: tuple[str, ...]):
        from safetensors import safe_open

        self._file = safe_open(path, "pt")
        text = (self._file.metadata() or {})["lens"]
        self.about, self.names = json.loads(text), set(self._file.keys())
        check(self.about, form | {"format": str})
        self._digests = self.about.pop("digests", None)
        sealed = self.about.pop("sha256", None) is not None
        if self.about["format"] not in (*formats, *unsealed):
            raise ValueError("format")
        if sealed or self._digests is not None or self.about["format"] not in unsealed:
            body = text[: -len(_seal(""))] + "}"
            if text != body[:-1] + _seal(body) or self._digests.keys() != self.names:
                raise ValueError("sha256")

    def __getitem__(self, name: str) -> Tensor:
        found = self._file.get_tensor(name)
        if self._digests is not None and self._digests[name] != _digest(found):
            raise ValueError(name)
        return found


def _seal(text: str) -> str:
    return f', "sha256": "{sha256(text.encode()).hexdigest()}"}}'


def _digest(tensor: Tensor) -> str:
    head = f"{tensor.dtype} {list(tensor.shape)} "
    return sha256(head.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
