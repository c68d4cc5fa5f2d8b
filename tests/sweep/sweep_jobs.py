"""Functions for jobs, in a module that the workers can import as well as the tests."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

SETS = ("target", "unseen", "control", "control_held_out", "text", "text_held_out")


def nap(seconds: float = 0.0, number: int = 0) -> dict:
    time.sleep(seconds)
    return {"number": number, "pid": os.getpid()}


def nap_but_not_in(pid: int) -> None:
    if os.getpid() == pid:
        raise OSError("this worker has no disk.")
    time.sleep(0.05)


def double(number: float) -> dict:
    return {"number": number, "twice": 2 * number}


def fail(words: str = "this never works") -> None:
    raise RuntimeError(words)


def leave(folder: Path) -> Path:
    return folder


def fail_at_first(folder: Path, times: int = 1, die: bool = False) -> int:
    """Fail, or kill this very process, in so many attempts; then say how many there were."""
    attempt = len(tried(folder))
    (folder / f"{attempt}.{os.getpid()}").touch()
    if attempt < times:
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("the disk was full.")
    return attempt


def tried(folder: Path) -> list[int]:
    """The processes in which ``fail_at_first`` was tried, in order."""
    return [int(path.suffix[1:]) for path in sorted(folder.glob("[0-9]*.*"))]


def threads() -> int:
    import torch

    return torch.get_num_threads()


def small_knowledge():
    """``lens.data.knowledge`` with six of each set."""
    import lens

    whole = lens.data.knowledge

    def few(target, *, model=None):
        kg = whole(target, model=model)
        return replace(kg, **{name: getattr(kg, name)[:6] for name in SETS})

    few.small = True
    return whole if hasattr(whole, "small") else few


def small_mask(folder: Path, **arguments) -> dict:
    """``lens.sweep.masks.train_and_evaluate`` on a few prompts."""
    import lens
    from lens.scale.sweep.masks import train_and_evaluate

    lens.data.knowledge = small_knowledge()
    return train_and_evaluate(folder, **arguments)
