"""How does a long run survive being killed?  One line of JSON per record, on the disk before the next group begins.

The first line is the header: which model, editor, settings, seed and options, and which versions.  It is written as a
whole file or none; rows are only ever added behind it.  A line without its line break was being written when the run
was killed: it is dropped, and its record is done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from lens.evaluate.rows import Row, row_from
from lens.results.damaged import check, damaged
from lens.results.whole import write_text, written

FORMAT = "lens-counterfact-1"
FORM = {"model": str, "fingerprint": str, "editor": str, "settings": dict, "seed": int, "options": dict}
IDENTITY = {
    "fingerprint": "another model",
    "editor": "another editor",
    "settings": "other settings",
    "seed": "another seed",
    "options": "other options",
}
"""What must agree for a run to go on; versions, paths and batch sizes may differ."""


def digest(texts: Sequence[str]) -> str:
    """SHA-256 of texts, as a header names them: of all lines, and of JSON where a text has several."""
    joined = json.dumps(list(texts)) if any("\n" in text for text in texts) else "\n".join(texts)
    return sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def read(path: str | Path) -> tuple[dict, list[Row], int]:
    """Header and rows of a run file, and how many of its bytes are whole lines; ``OSError`` where it is none."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise OSError(
            f"There is no run file {path}: check the path, or make one with lens.evaluate.counterfact(out=…)."
        )
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].decode("utf-8", errors="replace").split("\n")[:-1]
    with damaged(path, "run file of this version", "its first line is no header; give another path"):
        header = json.loads(lines[0])
        check(header, FORM)
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
    rows: dict[int, Row] = {}
    for number, line in enumerate(lines[1:], 2):
        with damaged(path, "run file", f"remove its line {number}, and that record is done again"):
            row = row_from(line)
        rows[row.case_id] = row  # of one that had failed, what came out last
    return header, list(rows.values()), whole


class RunFile:
    """The file of one run, new or taken up again: ``rows`` are there already, ``append`` adds more.

    Raises ``ValueError`` in one sentence where the file belongs to another run than ``header`` describes.
    """

    def __init__(self, path: str | Path, header: dict):
        self._path = Path(path).expanduser()
        if not self._path.exists() or (self._path.is_file() and not self._path.stat().st_size):
            write_text(self._path, json.dumps(header, ensure_ascii=False) + "\n")
        found, rows, whole = read(self._path)
        wanted = json.loads(json.dumps(header))  # as it reads after the journey through JSON
        if "source" not in wanted["settings"]:  # where settings are from was once one of them
            found["settings"].pop("source", None)
        for key, what in IDENTITY.items():
            if found.get(key) != wanted[key]:
                before, now = (str(h.get("model") if key == "fingerprint" else h.get(key)) for h in (found, wanted))
                raise ValueError(
                    f"The run in {self._path} was made with {what} ({before}, and now it is {now}): "
                    "give another file, or remove this one."
                )
        if whole < self._path.stat().st_size:
            os.truncate(self._path, whole)
        self.rows: dict[int, Row] = {row.case_id: row for row in rows}

    def append(self, rows: Sequence[Row]) -> None:
        """Add some rows in one write, and return when they are on the disk."""
        text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        with written(self._path), open(self._path, "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
