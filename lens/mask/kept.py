"""Which trainings of the chapters come with the book?  Short ones whose file was made by the very same call.

    data/runs/MODEL/short/NAME.safetensors

What a training finds is a function of the model, the settings and the texts.  A file states the digest of these three,
so that it stands for one call and for no other.  ``LENS_AGAIN=1 make book`` trains them all anew and writes the files.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lens.data import manifest, paths
from lens.mask.storage import load, save
from lens.mask.subnetwork import Subnetwork
from lens.model import LanguageModel

AGAIN = "LENS_AGAIN"

MODELS = (*paths.BUILT_IN, *paths.FETCHED)
"""Those whose runs may be kept: everybody has the same weights of them."""


def file_of(name: str, model: str = "mini") -> Path:
    """Where the run ``name`` of a model is kept."""
    return paths.root() / "runs" / model / "short" / f"{name.replace(' ', '-')}.safetensors"


def find(lm: LanguageModel, name: str, run: str) -> Subnetwork | None:
    """What the call with the digest ``run`` found, if that is what the file ``name`` holds; a line says which it is."""
    found = None
    if lm.name in MODELS and not os.environ.get(AGAIN):
        with suppress(OSError):  # none, or a damaged one
            found = load(file_of(name, lm.name))
    if found and found.about.get("run") == run:
        print(f"{name}: the run that comes with the book (made on {found.about['machine']})")
        return found
    why = "its model, settings or texts are not those of the run that comes with the book; " if found else ""
    print(f"{name}: {why}trained here")
    return None


def keep(found: Subnetwork, name: str, run: str) -> Subnetwork:
    """``found``; where ``LENS_AGAIN`` is set and its model is of ``MODELS``, its file and the manifest are written."""
    if found.model in MODELS and os.environ.get(AGAIN):
        command = f"{AGAIN}=1 make book" + ("" if found.model == "mini" else f" MODEL={found.model}")
        found = replace(found, about=found.about | {"run": run, "command": command})
        save(found, file_of(name, found.model))
        manifest.write()
    return found
