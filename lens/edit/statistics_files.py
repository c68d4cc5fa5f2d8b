"""Where is a second moment kept, so that it is taken once?  In a file named by what it was made from.

C is symmetric: its upper triangle is kept, row by row, in float32, with a digest of these numbers.  The name holds a
digest of the model's fingerprint, the layer and the corpus, which stands for the tokens read and so for their count.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from lens.data import paths
from lens.model import LanguageModel
from lens.results.whole import whole

FORMAT = "lens-statistics-1"


def cache() -> Path:
    """The folder where statistics are kept between sessions; ``OSError`` where there is none (``paths.cache``)."""
    return paths.cache() / "statistics"


def store(lm: LanguageModel, layer: int, corpus: str, C: Tensor, count: int, folder: Path) -> Path:
    """Write C [d_m, d_m], taken over ``count`` tokens, into ``folder``, a whole file or none, and return its path."""
    from safetensors.torch import save_file

    upper = torch.cat([row[i:] for i, row in enumerate(C.cpu())])
    about = {"format": FORMAT, "model": lm.name, "fingerprint": lm.fingerprint, "layer": layer}
    about |= {"corpus": corpus, "count": count, "sha256": _digest(upper)}
    with whole(folder / _name(lm, layer, corpus)) as temporary:
        save_file({"upper": upper}, temporary, {"lens": json.dumps(about)})
    return folder / _name(lm, layer, corpus)


def fetch(lm: LanguageModel, layer: int, corpus: str) -> tuple[Tensor, int] | None:
    """C [d_m, d_m] and its count, shipped or stored, where the layer's weight lies; None where no whole file has it."""
    from safetensors import SafetensorError, safe_open

    size, device = len(lm.weight(layer, "ff2")), lm.weight(layer, "ff2").device
    for folder in (lambda: paths.root() / "statistics", cache):
        try:
            with safe_open(folder() / _name(lm, layer, corpus), "pt") as file:
                about = json.loads(file.metadata()["lens"])
                upper = file.get_tensor("upper")
            made_for = about["format"], about["fingerprint"], about["layer"], about["corpus"]
            if made_for == (FORMAT, lm.fingerprint, layer, corpus) and about["sha256"] == _digest(upper):
                C = upper.new_empty(size, size)
                for i, row in enumerate(upper.split(list(range(size, 0, -1)))):
                    C[i, i:] = C[i:, i] = row
                return C.to(device), int(about["count"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            continue  # missing or damaged: it is taken again, and written over
    return None


def _name(lm: LanguageModel, layer: int, corpus: str) -> str:
    return f"layer-{layer}-{sha256(f'{lm.fingerprint} {layer} {corpus}'.encode()).hexdigest()[:24]}.safetensors"


def _digest(upper: Tensor) -> str:
    return sha256(upper.numpy().tobytes()).hexdigest()
