"""How does an explorer stand alone?  One HTML file, written whole or not at all."""

from __future__ import annotations

import html
from pathlib import Path

from lens.results.whole import write_text

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; background: light-dark(#ffffff, #15181d); color: light-dark(#1f2430, #e4e7ec);
  font-family: system-ui, sans-serif; }}
main {{ box-sizing: border-box; max-width: 70rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.05rem; font-weight: 600; line-height: 1.4; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{before}
{explorer}
</main>
</body>
</html>
"""


def page(title: str, explorer: str, before: str = "") -> str:
    """A page of its own: its title as text, and the HTML of an explorer behind what it needs."""
    return PAGE.format(title=html.escape(title), explorer=explorer, before=before)


def write(path: str | Path, text: str) -> Path:
    """``write_text``; ``OSError`` in one sentence where a folder has this name, or there is none to write it into."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file, such as {path / 'explorer.html'}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into: make it first.")
    write_text(path, text.encode("utf-8", "replace").decode())  # half a character cannot be written
    return path
