"""Is the shipped data whole?  Sizes and SHA-256 of every file, and one clear sentence where one is not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lens.data import paths
from lens.results.whole import write_text

NAME = "MANIFEST.json"


def verify(folder: str = "") -> int:
    """Check every shipped file below ``folder`` (all by default) against ``data/MANIFEST.json``; returns how many.

    Raises ``OSError`` that names the first missing or damaged file and the command that restores it.
    """
    base = paths.root()
    try:
        listed = json.loads((base / NAME).read_text(encoding="utf-8"))
        listed = {name: {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise OSError(f"The list of data files {base / NAME} is missing or damaged: {remedy(NAME)}") from None
    chosen = {name: one for name, one in listed.items() if name.startswith(f"{folder}/") or not folder}
    for name, known in chosen.items():
        path = base / name
        if not path.is_file():
            raise OSError(f"The data file {path} is missing: {remedy(name)}")
        if entry(path) != known:
            raise OSError(f"The data file {path} is damaged (its size or SHA-256 differs): {remedy(name)}")
    return len(chosen)


def write() -> Path:
    """List every file below ``data/`` anew, after a change that was meant; returns the manifest's path."""
    base = paths.root()
    files = sorted(p for p in base.rglob("*") if p.is_file() and p.name != NAME and not _hidden(p, base))
    entries = {p.relative_to(base).as_posix(): entry(p) for p in files}
    write_text(base / NAME, json.dumps(entries, indent=1) + "\n")
    return base / NAME


def written(path: Path) -> None:
    """``path`` has been written: where it is among the shipped files, the list of them follows."""
    if path.resolve().is_relative_to(paths.root().resolve()):
        write()


def entry(path: Path) -> dict:
    """What the list says of a file."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def digest(path: Path) -> str:
    """SHA-256 of a file of any size, as hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            found.update(block)
    return found.hexdigest()


def remedy(name: str) -> str:
    """The command that brings a shipped file back, for a checkout or an installed package."""
    if paths.root().name == "data":
        return f"restore it with 'git checkout -- data/{name}' in the book's folder."
    return "restore it by installing lens-book again with 'pip install --force-reinstall --no-deps'."


def _hidden(path: Path, base: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(base).parts)
