"""How does one widget run in a live notebook and in a printed book?  The base class of every explorer.

The page of an explorer (``page/*.js``) is drawn from ``state`` alone, plain JSON that Python computes beforehand.
Where a kernel is behind it, the page may also ask: it sets ``request = {id, …}``, and Python sets
``answer = {id, case}``, or ``answer = {id, problem}`` with one sentence for the reader.  ``page/kernel`` gives the same
answers without Python, where ``state["kernel"]`` tells it what it must know.  With ``LENS_STATIC=1`` in the
environment, as the book's build sets it, an explorer shows itself as HTML that carries module, style and state.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Sequence
from itertools import count
from numbers import Integral, Real
from pathlib import Path

import anywidget
from traitlets import Bool, Dict

from lens.course.widgets import standing
from lens.course.widgets.beside import IN_PAGE, carried, inside
from lens.course.widgets.engine import PAGE
from lens.course.widgets.named_masks import Named

DIGITS = 4
_shown = count(1)


def page(name: str) -> tuple[str, str]:
    """The ES module of an explorer (the shared parts, then its own page) and the style sheet of them all."""
    parts = ("parts.js", "link.js", "grid.js", f"{name}.js")
    return "\n".join(map(_read, parts)), _read("explorer.css")


def plain(value):
    """``value`` as plain JSON: tensors and arrays as lists, floats to four significant digits, no NaN or infinity.

    >>> plain({"norms": (1.23456, float("nan")), 3: "three"})
    {'norms': [1.235, None], '3': 'three'}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # half a character cannot be written into a page
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(f"{float(value):.{DIGITS}g}") if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return [plain(item) for item in value]


def numbered(some: Sequence, number: object, what: str):
    """The one of ``some`` that a request names by its number."""
    if not isinstance(number, int) or isinstance(number, bool) or number not in range(len(some)):
        raise ValueError(f"There is no {what} number {number!r}: there are {len(some)}.")
    return some[number]


class Words:
    """A table of words, each kept once: calling it with a word, or with nested lists of words, gives their places.

    >>> words = Words()
    >>> words([["·Paris", "·Rome"], ["·Paris"]]), words.table
    ([[0, 1], [0]], ['·Paris', '·Rome'])
    """

    def __init__(self):
        self._places: dict[str, int] = {}

    def __call__(self, words):
        if isinstance(words, str):
            return self._places.setdefault(words, len(self._places))
        return [self(word) for word in words]

    @property
    def table(self) -> list[str]:
        """Every word that was asked for, in order of its place."""
        return list(self._places)


class Explorer(anywidget.AnyWidget):
    """What the explorers share.  One of them sets ``_esm, _css = page(name)`` and gives its ``state`` to ``__init__``.

    It may also override ``compute``, which answers what a reader types, and ``summary``, which is read where no script
    runs.
    """

    state = Dict().tag(sync=True)
    request = Dict().tag(sync=True)
    answer = Dict().tag(sync=True)
    live = Bool(True).tag(sync=True)
    _masks: Sequence[Named] = ()  # what a page needs to answer, beside the model

    def __init__(self, state: dict):
        super().__init__(state=plain(state))
        self.observe(self._respond, "request")

    def compute(self, request: dict) -> dict:
        """The case that a request asks for; a ``ValueError``'s one sentence is shown to the reader."""
        raise ValueError("This explorer shows what was computed beforehand and takes no questions.")

    def summary(self) -> str:
        """What the explorer shows, in a sentence of plain text."""
        return f"{type(self).__name__} of the lens book."

    def _respond(self, change) -> None:
        request = change["new"]
        if not request:
            return
        try:
            answer = {"case": plain(self.compute(request))}
        except (ValueError, IndexError, TypeError) as error:
            answer = {"problem": str(error)}
        except Exception as error:  # whatever it is, the page must not wait for ever
            answer = {"problem": f"This could not be computed ({type(error).__name__}): {error}"}
        self.answer = {"id": request.get("id"), **plain(answer)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def _repr_mimebundle_(self, **kwargs):
        if os.environ.get("LENS_STATIC") != "1":
            return super()._repr_mimebundle_(**kwargs)
        return {"text/html": self.html(), "text/plain": repr(self)}

    def _needs(self) -> str | None:
        """The model that a page must have to answer; None where only Python can."""
        return (self.state.get("kernel") or {}).get("model")

    def save(self, path: str | Path, model: bool = False) -> Path:
        """Write the explorer into one HTML file that needs nothing else, to hand in or to send; returns its path.

        With ``model=True`` the file also holds the built-in model, 13 MB, and answers whatever its reader types.  A
        file of this name is replaced once the new one is whole.  Raises ``ValueError`` where the explorer is not of
        the built-in model as it is shipped, and ``OSError`` where the file cannot be written.
        """
        if model and self._needs() != IN_PAGE:
            raise ValueError(
                f"Only an explorer that asks {IN_PAGE!r} as it is shipped can take its model along: leave "
                "model=True out, and the file shows what was computed."
            )
        page = standing.page(self.summary(), self.html(at_once=model), inside() if model else "")
        return standing.write(path, page)

    def html(self, at_once: bool = False) -> str:
        """The explorer as HTML that needs neither a kernel nor a network; ``at_once`` it loads the page's model."""
        root = f"lens-explorer-{next(_shown)}"
        body, _, export = self._esm.rpartition("export default ")
        engine = {"engine": {"model": IN_PAGE, "atOnce": at_once}} if self._needs() == IN_PAGE else {}
        values = _in_script({"state": self.state, "live": False, **engine})
        masks = carried(one.subnetwork for one in self._masks) if engine else ""
        masks = f"<script>{masks}</script>\n" if masks else ""
        return (
            f'<div class="lens-explorer-root" id="{root}">'
            f"<noscript><p>{html.escape(self.summary())} It needs JavaScript.</p></noscript>"
            f'<script type="application/json">{values}</script></div>\n'
            f'{masks}<script type="module">\n{body}const explorer = {export}\n'
            f"{_read('beside.js')}\n{_read('shim.js')}\n"
            f"show(explorer, {_in_script(root)}, {_in_script(self._css)});\n</script>"
        )


def _read(file: str) -> str:
    return (PAGE / file).read_text("utf-8")


def _in_script(value) -> str:
    """JSON that can stand inside a ``<script>`` element, whatever text is in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
