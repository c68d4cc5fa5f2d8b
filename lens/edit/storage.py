"""How is an edit kept?  Its factors in one safetensors file, with what it was asked, and for which model it was made.

A rank-one edit of GPT-2 XL's FF2 is 32 kB; the matrix it changes is 41 MB.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lens.edit.edit import Change, Edit
from lens.edit.request import Request
from lens.given import door, result_file, whole
from lens.model import LanguageModel
from lens.model.devices import device
from lens.model.soundness import check_made_for
from lens.results.damaged import damaged
from lens.results.sealed import Sealed, write

FORMAT, UNSEALED = "lens-edit-2", "lens-edit-1"
"""Of files with digests, and of those from before there were any."""

FORM = {
    "model": str,
    "fingerprint": str,
    "editor": str,
    "requests": [{"prompt": str, "subject": str}],
    "settings": dict,
    "seconds": (int, float),
    "note": (str, type(None)),
    "changes": [{"layer": int, "site": str, "thin": bool}],
}


@door(path=result_file)
def save(edit: Edit, path: str | Path) -> Path:
    """Write the edit to ``path``, a whole file or none, and return it.

    >>> import lens, tempfile
    >>> lm = lens.load("mini")
    >>> edit = lens.edit.shift(lm, lens.Request("The capital of {} is", "France", "Rome"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = lens.edit.save(edit, Path(folder) / "rome.safetensors")
    ...     lens.edit.load(lm, path).requests == edit.requests
    True
    """
    tensors, changes = {}, []
    for i, change in enumerate(edit.changes):
        changes.append({"layer": change.layer, "site": change.site, "thin": change.x is not None})
        tensors[f"{i}.delta"] = change.delta
        if change.x is not None:
            tensors[f"{i}.x"] = change.x
    about = {
        "format": FORMAT,
        "model": edit.lm.name,
        "fingerprint": edit.fingerprint,
        "editor": edit.editor,
        "requests": [asdict(r) for r in edit.requests],
        "settings": edit.settings,
        "seconds": edit.seconds,
        "note": edit.note,
        "changes": changes,
    }
    return write(path, tensors, about)


@door
def load(lm: LanguageModel, path: str | Path) -> Edit:
    """The edit that ``save`` wrote to ``path``, for the same model.

    Raises ``OSError`` where the file is missing, damaged or no edit, and ``ValueError`` where it was made for another
    model.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise OSError(f"There is no edit file {path}: check the path, or make one with lens.edit.save.")
    with damaged(path, "edit file", "make it again with lens.edit.save"):
        file = Sealed(path, FORM, (FORMAT,), (UNSEALED,))
        about = file.about
        tensors = {name: file[name] for name in file.names}
        requests = tuple(Request(**r) for r in about["requests"])
    remedy = "open that model, in the same dtype, and load it there"
    check_made_for(lm, about["model"], about["fingerprint"], f"The edit in {path} was made for", remedy)
    with damaged(path, "edit file", "make it again with lens.edit.save"):
        changes = []
        for i, c in enumerate(about["changes"]):
            place = device(lm.site(whole("layer", c["layer"]), c["site"]))
            x = tensors[f"{i}.x"].to(place) if c["thin"] else None
            changes.append(Change(c["layer"], c["site"], x, tensors[f"{i}.delta"].to(place)).fits(lm))
        editor, settings, seconds, note = (about[key] for key in ("editor", "settings", "seconds", "note"))
        return Edit(editor, requests, tuple(changes), settings, float(seconds), lm, note)
