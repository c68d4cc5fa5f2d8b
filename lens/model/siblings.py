"""Where does an installed package find the siblings of ``mini``?  In the book's repository: near, given, or public.

The wheel leaves them out and lists them in its manifest, with sizes and SHA-256.  What ``get`` keeps is whole and as
listed, or not there at all.
"""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lens.data import manifest, paths

ADDRESS = "https://raw.githubusercontent.com/lens-book/lens-book/main/data"
DRIVE = Path("/content/drive/MyDrive")
"""Where Colab mounts its user's files."""


def get(name: str, file: str | Path | None = None) -> Path:
    """The folder of a sibling, fetched into the cache folder where the installed package came without it.

    ``file``: the repository's folder, one that holds it, or a zip archive of either; without it, a folder ``data/NAME``
    is looked for in the working folder, in those above it and in a mounted Drive, then the public address is asked.
    Raises ``OSError`` where nothing is found or reached, and ``ValueError`` where what is found is another model.
    """
    folder, wanted = paths.model(name), manifest.listed(name)
    if not paths.is_apart(name):
        manifest.verify(name)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if file is None and folder.is_dir() and all(_is(folder.parent / one, wanted[one]) for one in wanted):
            return folder
        read, origin = _reader(name, file)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            for one, entry in wanted.items():
                target = Path(new) / one
                target.parent.mkdir(parents=True, exist_ok=True)
                read(one, target)
                if not _is(target, entry):
                    raise ValueError(f"{origin} holds another {one} than this version of lens: its SHA-256 differs.")
            shutil.rmtree(folder, ignore_errors=True)
            (Path(new) / name).rename(folder)
    return folder


def _is(path: Path, entry: dict) -> bool:
    return path.is_file() and manifest.entry(path) == entry


def _reader(name: str, file: str | Path | None) -> tuple[Callable[[str, Path], object], str]:
    """What writes one file of the manifest to a path, and where it takes it from."""
    if file is None:
        near = [Path.cwd(), *Path.cwd().parents, DRIVE, *(DRIVE.glob("*/") if DRIVE.is_dir() else ())]
        found = next((data for place in near if (data := place / "data") and (data / name).is_dir()), None)
        return (lambda one, target: shutil.copyfile(found / one, target), str(found)) if found else (_download, ADDRESS)
    given = Path(file).expanduser()
    sentence = f"{given} holds no model {name}: give the book's folder, or a zip archive of it."
    if given.is_dir():
        inside = (given, given / "data", given.parent)
        found = next((data for data in inside if (data / name / "config.json").is_file()), None)
        if found is None:
            raise FileNotFoundError(sentence)
        return lambda one, target: shutil.copyfile(found / one, target), str(given)
    if not zipfile.is_zipfile(given):
        raise FileNotFoundError(sentence)

    def unpack(one: str, target: Path) -> None:
        with zipfile.ZipFile(given) as archive:
            inside = next((path for path in archive.namelist() if f"/{path}".endswith(f"/{one}")), None)
            if inside is None:
                raise FileNotFoundError(sentence)
            target.write_bytes(archive.read(inside))

    return unpack, str(given)


def _download(one: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(f"{ADDRESS}/{one}", timeout=60) as answer, target.open("wb") as stream:
            shutil.copyfileobj(answer, stream, 1 << 20)
    except (urllib.error.URLError, OSError) as error:
        name = one.partition("/")[0]
        raise OSError(
            f"{ADDRESS}/{one} could not be fetched ({error}): try again, or give the book's folder, or a zip archive "
            f"of it, with 'python -m lens model get {name} --file FOLDER'."
        ) from None
