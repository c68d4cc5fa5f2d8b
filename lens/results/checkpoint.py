"""How is a training kept while it lasts?  In one whole file of torch's, whose bits are checked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from zipfile import ZipFile

import torch

from lens.results.damaged import damaged
from lens.results.whole import whole

T = TypeVar("T")


def store(path: str | Path, state: Mapping) -> None:
    """Write numbers, texts and tensors, in dicts and lists."""
    with whole(path) as temporary:
        torch.save(dict(state), temporary)


def resume(path: str | Path | None, take: Callable[[dict], T], otherwise: T) -> T:
    """What ``take`` makes of the state in ``path``; ``otherwise`` where there is no such file.

    Raises ``OSError`` for a damaged file, and for one that ``take`` stumbles over.
    """
    if path is None or not (path := Path(path).expanduser()).exists():
        return otherwise
    with damaged(path, "checkpoint", "remove it, and the training begins anew, or give another file"):
        with ZipFile(path) as held:
            if held.testzip():
                raise ValueError(path)
        return take(torch.load(path, map_location="cpu", weights_only=True))
