"""How does a worker open a model once for a hundred jobs?  It keeps the last one, and lends it to one job at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import RLock

from lens.data.paths import BUILT_IN
from lens.model import LanguageModel
from lens.model.loading import load

_kept: dict[tuple, tuple[LanguageModel, str]] = {}
"""The model that was opened last, and its fingerprint as it was loaded."""

_one_at_a_time = RLock()


@contextmanager
def opened(
    model: str = "mini", device: str | None = None, dtype: str | None = None, fingerprint: str | None = None
) -> Iterator[LanguageModel]:
    """``lens.load(model, device=device, dtype=dtype)``, which this process keeps until a job asks for another model.

    Inside the block the model belongs to this thread alone: masks and edits change its weights for a while, so in a
    worker of several threads the others wait.  After an error it is opened anew by the next job.  Raises ``ValueError``
    for a model without the ``fingerprint`` that was asked for, and what ``lens.load`` raises.

    >>> with opened("mini") as first:
    ...     pass
    >>> with opened("mini") as second:
    ...     second is first
    True
    """
    key = model, device, dtype, _written(model)
    with _one_at_a_time:
        lm, loaded = _kept.get(key, (None, None))
        if lm is None or lm.weights.current_fingerprint != loaded:  # a job left an edit on it, or trained it
            _kept.clear()  # before the next one needs its memory
            del lm
            lm = load(model, device=device, dtype=dtype)
            _kept[key] = lm, lm.fingerprint
        try:
            if fingerprint not in (None, lm.fingerprint):
                raise ValueError(
                    f"The model {model!r} is another one here (fingerprint {lm.fingerprint[:12]}) than where the jobs "
                    f"were made ({fingerprint[:12]}): let every machine read the same files."
                )
            yield lm
        except BaseException:
            _kept.pop(key, None)
            raise


def _written(model: str) -> tuple:
    """When the files of a model's folder were written, and their sizes; nothing of one that is not in a folder."""
    path = Path(model).expanduser()
    held = path.iterdir() if path.is_dir() else [path] if path.is_file() else []
    return tuple(sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in held))


def place_of(name: str | Path) -> str:
    """A model's or a file's name, as a worker that runs elsewhere reads it: what exists here by its whole path."""
    path = Path(name).expanduser()
    return str(path.resolve()) if str(name) not in BUILT_IN and path.exists() else str(name)


def digest(texts: object) -> str:
    """SHA-256 of what a job reads (prompts, texts, records), as hexadecimal digits."""
    return sha256(repr(texts).encode("utf-8", "surrogatepass")).hexdigest()


def check_same(texts: object, wanted: str, name: str) -> None:
    """``ValueError`` where a worker reads something else under ``name`` than where the jobs were made."""
    if digest(texts) != wanted:
        raise ValueError(f"{name!r} is something else here than where the jobs were made: bring the files together.")
