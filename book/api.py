"""Which names may be relied on?  Each public name once, in the room where it lives; Sphinx adds its docstring.

A name that `lens` itself offers is shown as `lens.capture`, any other under its room, `lens.edit.rome`.
"""
import inspect
from importlib import import_module
from textwrap import shorten

# Where a reader meets them: from one prompt to a course.
ROOMS = ["model", "gradient", "readout", "edit", "mask", "overlap", "relearn", "evaluate", "data", "plot",
         "course.start", "course.check", "course.claims", "course.widgets", "scale.cost", "scale.sweep", "kernels"]
SHORT = {"course.start": "course", "course.check": "check", "course.claims": "claims", "course.widgets": "widgets", "scale.cost": "cost",
         "scale.sweep": "sweep"}  # as a reader writes them: lens.check


def directive(path, value):
    """How autodoc shows one name, or None for a module."""
    if inspect.ismodule(value):
        return None
    if inspect.isclass(value):
        return f".. autoclass:: {path}\n   :members:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {path}\n"
    return f".. py:data:: {path}\n   :value: {shorten(str(list(value) if isinstance(value, dict) else value), 300)}\n"


def reference():
    """The page's text behind its first heading: a section for each room."""
    lens, seen, sections = import_module("lens"), set(), []
    face = {id(getattr(lens, name)): f"lens.{name}" for name in lens.__all__}
    for room in ROOMS:
        module, name = import_module(f"lens.{room}"), SHORT.get(room, room)
        question = " ".join(inspect.getdoc(module).split("\n\n")[0].split())
        shown = []
        for public in module.__all__:
            value = getattr(module, public)
            if id(value) not in seen:
                seen.add(id(value))
                shown.append(directive(face.get(id(value), f"lens.{name}.{public}"), value))
        body = "\n".join(filter(None, shown))
        sections.append(f"## {name}\n\n{question}\n\n```{{eval-rst}}\n{body}```\n")
    return "\n".join(sections)
