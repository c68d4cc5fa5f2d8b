"""Which rule reads which argument?  The table of names, and the decorator that asks it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from math import inf

from lens.given import values
from lens.given.values import number, passes, refuse, several, whole


def _one(fits: Callable[[object], object], words: str) -> Callable:
    """A rule of one value, in ``words``."""

    def rule(name: str, value: object) -> object:
        if not fits(value):
            raise refuse(name, value, words)
        return value

    return rule


def _each(fits: Callable[[object], object], words: str) -> Callable:
    """A rule of several values, each of them in ``words``."""
    return lambda name, value: several(name, value, words, fits)


def _a(kind: str) -> Callable[[object], bool]:
    """Of the class ``kind``; a class is known by its name, so that this room is the lowest."""
    return lambda value: any(base.__name__ == kind for base in type(value).__mro__)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _editor(value: object) -> bool:
    return isinstance(value, str) or callable(value)


def _whole(least: float = 0, most: float = values.MOST) -> Callable:
    return lambda name, value: whole(name, value, least, most)


def _number(least: float = -inf, most: float = inf) -> Callable:
    return lambda name, value: number(name, value, least, most)


def _above(name: str, value: object) -> object:
    if number(name, value) <= 0:
        raise refuse(name, value, "a number above 0")
    return value


def _layers(name: str, value: object) -> object:
    if isinstance(value, (list, tuple)) and not value:
        raise refuse(name, value, "the number of at least one layer")
    return several(name, value, "the number of a layer", lambda item: passes(whole, item, -inf))


def _table(name: str, value: object) -> object:
    return value if hasattr(value, "to_dict") else several(name, value, "a row as a dict", _mapping)


def _resources(name: str, value: object) -> object:
    _one(_mapping, "what a job takes of its worker, such as {'GPU': 1}")(name, value)
    for key, amount in value.items():
        _above(f"{name} {key}", amount)
    return value


EDITOR = "the name of an editor of lens.edit, or a function"
RULES: dict[str, Callable] = {
    **dict.fromkeys(("layer", "position"), _whole(-inf)),
    "layers": _layers,
    "seed": _whole(0, 2**32 - 1),
    "steps": _whole(0, 10**9),
    **dict.fromkeys(("count", "together", "batch", "every", "limit", "jobs", "shards"), _whole(1)),
    **dict.fromkeys(("random", "phrasings", "seeds", "neighbors"), _whole(0, 10**6)),
    "workers": _whole(1, 1000),
    "resources": _resources,
    "lam": _above,
    "threshold": lambda name, value: value if value == inf else _above(name, value),
    **dict.fromkeys(("eta", "stop"), _number()),
    **dict.fromkeys(("lr", "kl", "decay", "clamp", "least"), _number(0)),
    "floor": _number(0, 1),
    "sites": _each(_text, "the name of a site, such as 'ff2'"),
    "texts": _each(_text, "a text"),
    "requests": lambda name, value: values.one_or_several(
        name, value, "a lens.Request or a record", lambda item: _a("Request")(item) or _mapping(item)
    ),
    "table": _table,
    "records": _each(_mapping, "a record"),
    "prompts": _each(_a("Prompt"), "a lens.data.Prompt, as lens.data.verbalize and load_prompts make them"),
    "questions": _each(_a("Question"), "a lens.data.Question, as lens.relearn.questions makes them"),
    "trace": _one(_a("Trace"), "what lens.capture returns"),
    "kg": _one(_a("Knowledge"), "a lens.data.Knowledge, as lens.data.knowledge makes it"),
    "fact": _one(_a("Fact"), "a lens.data.Fact, one of lens.data.facts()"),
    **dict.fromkeys(
        ("subnetwork", "removed"),
        _one(_a("Subnetwork"), "a lens.mask.Subnetwork, as lens.mask.train or shipped returns it"),
    ),
    "kept": _one(
        lambda value: _text(value) and re.fullmatch(r"\w[\w .-]*", value),
        "the name of a run, of letters, digits and spaces",
    ),
    "statistics": _one(_mapping, "lens.edit.Statistics by layer, as covariance gives them"),
    "sizes": _one(_mapping, "how many of each, by name"),
    "overlap": _one(_a("Overlap"), "a lens.overlap.Overlap, as lens.overlap.compare makes it"),
    "editor": _one(_editor, EDITOR),
    "editors": lambda name, value: values.one_or_several(name, value, EDITOR, _editor),
    **dict.fromkeys(("method", "readout", "granularity"), values.words),
    "config": _one(_a("Config"), "a lens.mask.Config, as lens.mask.config_for makes it"),
    "model": values.named,
    "device": values.device,
    "path": values.path,
    **dict.fromkeys(("out", "checkpoint"), values.result_file),
}
"""The name of an argument → the rule that reads it, ``rule(name, value)``; what has no rule is the function's own."""


def read(given: Mapping[str, object], **own: Callable | None) -> None:
    """Read each argument of ``given`` by its name's rule; ``own`` are a door's own rules, None for no rule."""
    for name, value in given.items():
        if value is not None and (rule := own[name] if name in own else RULES.get(name)):
            rule(name, value)


def door(function: Callable | None = None, **own: Callable | None) -> Callable:
    """Read a function's arguments by their names before it runs; ``own`` as in ``read``.

    An argument that is left out is not read, nor one that is None where None is its default.

    >>> @door
    ... def shift(layer: int, eta: float | None = None): ...
    >>> shift("7")
    Traceback (most recent call last):
    ValueError: layer is '7': give a whole number.
    """
    if function is None:
        return lambda function: door(function, **own)
    parameters = inspect.signature(function).parameters
    rules = {name: own[name] if name in own else RULES.get(name) for name in parameters}
    rules = {name: rule for name, rule in rules.items() if rule}
    places = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    optional = {name for name in rules if parameters[name].default is None}

    @wraps(function)
    def read_first(*args, **kwargs):
        for name, value in (*zip(places, args), *kwargs.items()):
            if name in rules and not (value is None and name in optional):
                rules[name](name, value)
        return function(*args, **kwargs)

    return read_first
