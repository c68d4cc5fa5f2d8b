"""Where is the book's data?  Beside the package in a checkout, inside it when installed from a wheel."""

import json
import os
from functools import cache as once
from pathlib import Path, PurePosixPath


def root() -> Path:
    """The folder that holds ``MANIFEST.json``, ``mini/`` and ``world/``."""
    packaged = Path(__file__).resolve().parents[1] / "_data"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "data"


SIBLINGS = ("mini-twin", "mini-s", "mini-l", "mini-llama")
"""The models whose weights the wheel leaves out: ``python -m lens model get`` fetches them there."""

BUILT_IN = ("mini", *SIBLINGS)
"""The models that come with the book."""

SMOLLM2 = "smollm2-135m"

FETCHED = (SMOLLM2,)
"""The real models that ``python -m lens model get`` fetches into the cache folder."""


def model(name: str = "mini") -> Path:
    """The folder of a built-in model, or the one that a model to be fetched goes to, in transformers' own format."""
    return cache() / "models" / name if name in FETCHED or is_apart(name) else root() / name


def is_apart(name: str) -> bool:
    """Whether the model is a sibling that an installed package keeps in the cache folder, outside its own."""
    return name in SIBLINGS and root().name == "_data"


def cache() -> Path:
    """The folder for what is kept between sessions: ``$LENS_CACHE``, else ``lens-book`` where the user's caches lie.

    ``OSError`` where there is none, because the user has no home folder (an unknown one in a container).
    """
    try:
        if chosen := os.environ.get("LENS_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lens-book"
    except RuntimeError:
        raise FileNotFoundError("there is no home folder") from None


def world() -> Path:
    """The folder of the built-in model's world: facts, templates, records and ordinary text."""
    return root() / "world"


@once
def table(file: str) -> dict:
    """What ``data/FILE`` holds, read once."""
    return json.loads((root() / file).read_text(encoding="utf-8"))


def entry_name(model: str) -> str:
    """The name under which a model has its entry: of one that was opened from a folder, the folder's own.

    >>> entry_name("models/mini"), entry_name("mini")
    ('mini', 'mini')
    """
    return PurePosixPath(model.replace("\\", "/")).name
