"""How is an edit kept?  Its factors in one safetensors file, with what it was asked, and for which model it was made.

A rank-one edit of GPT-2 XL's FF2 is 32 kB; the matrix it changes is 41 MB.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lens.edit.edit import Change, Edit
from lens.edit.request import Request
from lens.given import door, result_file
from lens.model import LanguageModel
from lens.model.devices import device
from lens.results.whole import whole

FORMAT = "lens-edit-1"


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
    from safetensors.torch import save_file

    path = Path(path)
    tensors, changes = {}, []
    for i, change in enumerate(edit.changes):
        changes.append({"layer": change.layer, "site": change.site, "thin": change.x is not None})
        tensors[f"{i}.delta"] = change.delta.detach().contiguous()
        if change.x is not None:
            tensors[f"{i}.x"] = change.x.detach().contiguous()
    about = {
        "format": FORMAT,
        "model": edit.lm.name,
        "fingerprint": edit.lm.fingerprint,
        "editor": edit.editor,
        "requests": [asdict(r) for r in edit.requests],
        "settings": edit.settings,
        "seconds": edit.seconds,
        "note": edit.note,
        "changes": changes,
    }
    with whole(path) as temporary:
        # A tensor may be a view of another's memory, which safetensors refuses to write twice.
        save_file({name: t.clone() for name, t in tensors.items()}, temporary, {"lens": json.dumps(about)})
    return path


@door
def load(lm: LanguageModel, path: str | Path) -> Edit:
    """The edit that ``save`` wrote to ``path``, for the same model.

    Raises ``OSError`` where the file is missing, damaged or no edit, and ``ValueError`` where it was made for another
    model.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise OSError(f"There is no edit file {path}: check the path, or make one with lens.edit.save.")
    try:
        with safe_open(path, "pt", device=str(lm.device)) as file:
            about = json.loads((file.metadata() or {})["lens"])
            if about["format"] != FORMAT:
                raise KeyError(about["format"])
            changes = tuple(
                Change(
                    c["layer"],
                    c["site"],
                    file.get_tensor(f"{i}.x").to(place) if c["thin"] else None,
                    file.get_tensor(f"{i}.delta").to(place),
                )
                for i, c in enumerate(about["changes"])
                for place in [device(lm.site(c["layer"], c["site"]))]
            )
            requests = tuple(Request(**r) for r in about["requests"])
            settings, seconds, editor, note = (about[k] for k in ("settings", "seconds", "editor", "note"))
            made_for, name = about["fingerprint"], about["model"]
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise OSError(f"The file {path} is no whole edit file: make it again with lens.edit.save.") from None
    if made_for != lm.fingerprint:
        raise ValueError(
            f"The edit in {path} was made for another model ({name!r}, fingerprint {made_for[:12]}) than this one "
            f"({lm.name!r}, {lm.fingerprint[:12]}): open that model, in the same dtype, and load it there."
        )
    return Edit(editor, requests, changes, settings, seconds, lm, note)
