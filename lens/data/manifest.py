"""Is the shipped data whole?  Sizes and SHA-256 of every file, and one clear sentence where one is not."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from lens.data import paths
from lens.results.whole import write_text

NAME = "MANIFEST.json"


def verify(folder: str = "") -> int:
    """Check every shipped file below ``folder`` (all by default) against ``data/MANIFEST.json``; returns how many.

    A sibling of ``mini`` that an installed package came without counts only where ``folder`` names it.
    Raises ``OSError`` that names the first missing or damaged file and the command that restores it.
    """
    chosen = listed(folder)
    for name in chosen:
        _check(name, chosen)
    return len(chosen)


def whole(path: Path) -> Path:
    """``path``, of a shipped file, once that is what the list says; asked again only where it was written again.

    A file that the list does not name (one that was made here) is not asked about.  Raises what ``verify`` raises.
    """
    if path.is_file():
        _once(path, *(p.stat().st_mtime_ns for p in (path, paths.root() / NAME) if p.is_file()))
    return path


@cache
def _once(path: Path, *_written: int) -> None:
    if path.is_relative_to(paths.root()):
        _check(path.relative_to(paths.root()).as_posix(), listed())


def _check(name: str, known: dict) -> None:
    path = place(name)
    if not path.is_file():
        raise OSError(f"The data file {path} is missing: {remedy(name)}")
    if name in known and entry(path) != known[name]:
        raise OSError(f"The data file {path} is damaged (its size or SHA-256 differs): {remedy(name)}")


def listed(folder: str = "") -> dict[str, dict]:
    """{name: its size and SHA-256} of the files below ``folder``, as ``data/MANIFEST.json`` has them."""
    path = paths.root() / NAME
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        entries = {name: {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])} for name, one in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise OSError(f"The list of data files {path} is missing or damaged: {remedy(NAME)}") from None
    if folder:
        return {name: one for name, one in entries.items() if name.startswith(f"{folder}/")}
    return {name: one for name, one in entries.items() if not (_is_apart(name) and not place(name).parent.is_dir())}


def place(name: str) -> Path:
    """Where the file ``name`` of the manifest lies on this machine."""
    model, _, file = name.partition("/")
    return paths.model(model) / file if file and model in paths.BUILT_IN else paths.root() / name


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
    if _is_apart(name):
        return f"fetch it with 'python -m lens model get {name.partition('/')[0]}'."
    if paths.root().name == "data":
        return f"restore it with 'git checkout -- data/{name}' in the book's folder."
    return "restore it by installing lens-book again with 'pip install --force-reinstall --no-deps'."


def _is_apart(name: str) -> bool:
    return paths.is_apart(name.partition("/")[0])


def _hidden(path: Path, base: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(base).parts)
