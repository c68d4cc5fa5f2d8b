"""Which hyperparameters does an editor use?  Published ones where there are some, else scaled by rule, and it says so.

``data/editors.json`` holds one entry per editor and model.  For a model that has none, GPT-2 XL's entry is taken and
each layer is moved to the same relative depth, ``round(layer / 48 · depth)``; ``source`` in the result says which of
these it was.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from lens.data.paths import entry_name, table
from lens.given import door, read
from lens.model import LanguageModel

REFERENCE = "gpt2-xl"


@door
def settings(lm: LanguageModel, editor: str, **given) -> dict:
    """The hyperparameters of ``editor`` for this model; what is ``given`` (and not None) takes precedence.

    ``layer`` or ``layers`` may count from the end.  Raises ``ValueError`` for an editor or a hyperparameter that does
    not exist, and ``IndexError`` for an unknown layer.

    >>> import lens
    >>> settings(lens.load("mini"), "shift", eta=0.5)["eta"]
    0.5
    """
    editors = table("editors.json")
    read(given)
    if editor not in editors:
        raise ValueError(f"There is no editor {editor!r}: choose one of {', '.join(editors)}.")
    entries, depth, name = editors[editor], len(lm.layers), entry_name(lm.name)
    if name in entries:
        chosen = deepcopy(entries[name])
    else:
        chosen = deepcopy(entries[REFERENCE])
        for key in ("layer", "layers"):
            if key in chosen:
                chosen[key] = _scaled(chosen[key], depth)
        chosen["source"] = f"scaled by depth from {REFERENCE} ({entries[REFERENCE]['source']})"
    for key, value in given.items():
        if key not in chosen:
            known = ", ".join(k for k in chosen if k != "source")
            raise ValueError(f"The editor {editor!r} has no hyperparameter {key!r}: it has {known}.")
        if value is not None:
            chosen[key] = value.item() if isinstance(value, np.generic) else value  # as JSON has it

    def own(layer: int | list[int]) -> int | list[int]:
        if isinstance(layer, (list, tuple)):
            return [own(one) for one in layer]
        lm.check(layer, "ff2")
        return int(layer) % depth

    return chosen | {key: own(chosen[key]) for key in ("layer", "layers") if key in chosen}


def _scaled(layer: int | list[int], depth: int) -> int | list[int]:
    """GPT-2 XL's layer, or layers without repetition, at the same relative depth."""
    if isinstance(layer, list):
        return sorted({_scaled(one, depth) for one in layer})
    return min(round(layer / 48 * depth), depth - 1)
