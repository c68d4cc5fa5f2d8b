"""Where is the book's data?  Beside the package in a checkout, inside it when installed from a wheel."""

from pathlib import Path


def root() -> Path:
    """The folder that holds ``MANIFEST.json``, ``mini/`` and ``world/``."""
    packaged = Path(__file__).resolve().parents[1] / "_data"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "data"


BUILT_IN = ("mini", "mini-s", "mini-l", "mini-llama")
"""The models that come with the book."""


def model(name: str = "mini") -> Path:
    """The folder of a built-in model, in transformers' own format."""
    return root() / name


def world() -> Path:
    """The folder of the built-in model's world: facts, templates, records and ordinary text."""
    return root() / "world"
