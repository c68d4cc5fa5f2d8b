"""Which editor is meant, and with which hyperparameters?  A name from ``lens.edit``, or a function of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial

import lens.edit
import lens.given
from lens.edit.edit import Edit
from lens.evaluate.run_file import digest
from lens.model import LanguageModel

NONE = "none"
"""The unedited model, evaluated as if it were an editor."""

Editor = str | Callable[..., Edit]


def remembers(editor: Editor) -> bool:
    """Does the editor take the requests whose edits lie on the model already, as ``earlier``?

    >>> remembers("alphaedit"), remembers("memit")
    (True, False)
    """
    function = getattr(lens.edit, editor, None) if isinstance(editor, str) else editor
    return callable(function) and "earlier" in inspect.signature(function).parameters


def resolve(
    lm: LanguageModel, editor: Editor, settings: Mapping | None = None
) -> tuple[str, dict, Callable[..., Edit]]:
    """The editor's name, every hyperparameter it will use, and the function from a request to its edit.

    What ``settings`` leaves open, the function takes as keywords (``earlier`` of an editor that ``remembers``).

    ``editor``: the name of a function in ``lens.edit`` that ``data/editors.json`` has settings for, ``"none"``, or a
    function ``(lm, request, **settings) -> Edit``; a ``partial`` is the function in it, its keywords are settings.
    ``texts`` among the settings of ROME, MEMIT or AlphaEdit are read once, at the first edit, and appear as their
    digest.  Raises ``ValueError`` for an editor or a setting there is not.

    >>> import lens
    >>> resolve(lens.load("mini"), "shift", {"eta": 0.5})[1]["eta"]
    0.5
    """
    given = dict(settings or {})
    if callable(editor):
        named, shown = editor, given
        while isinstance(named, partial):
            named, shown = named.func, named.keywords | shown
        name = getattr(named, "__name__", type(named).__name__)

        def make(request, **more) -> Edit:
            edit = editor(lm, request, **given, **more)
            if isinstance(edit, Edit) and edit.applied:
                edit.undo()
                raise ValueError(f"The editor {name} has applied its edit: let it return the edit as it was made.")
            return edit

        return name, shown, make
    if editor == NONE:
        if given:
            raise ValueError(f"The unedited model has no settings, and got {', '.join(given)}: leave them out.")
        return NONE, {}, lambda request: Edit(NONE, (request,), (), {}, 0.0, lm)
    defaults = lens.edit.settings(lm, editor)
    function = getattr(lens.edit, editor, None)
    if not callable(function):
        raise ValueError(f"lens.edit has no editor {editor!r} that this version can run.")
    known = [name for name in inspect.signature(function).parameters if name not in ("lm", "request")]
    for name in given:
        if name not in known:
            raise ValueError(f"The editor {editor!r} has no setting {name!r}: it has {', '.join(known)}.")
    lens.given.read(given, texts=None)  # which may be one text
    tabled = lens.edit.settings(lm, editor, **{k: v for k, v in given.items() if k in defaults})
    shown, taken = dict(given), dict
    if "statistics" in known and given.get("statistics") is None:  # they are looked up once, not at each edit
        texts, layers = given.pop("texts", None), tabled.get("layers", tabled.get("layer"))
        if texts is not None:
            texts = [texts] if isinstance(texts, str) else list(texts)
            shown["texts"] = digest(texts)
        given.pop("statistics", None)
        taken = cache(lambda: {"statistics": lens.edit.covariance(lm, layers, texts)})
    return editor, shown | tabled, lambda r, **more: function(lm, r, **taken(), **given, **more)
