"""Which subnetworks does an explorer show, and under what names?  A group (the TargetKG) and a label (the seed)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lens.mask import Subnetwork, load

One = Subnetwork | str | Path
Masks = One | Mapping[Hashable, One] | Sequence[One]
"""A subnetwork or its file, several, or several by name: a text, or a pair (TargetKG, seed)."""


@dataclass(frozen=True)
class Named:
    """A subnetwork with its two names; ``label`` is empty where there is nothing to tell apart."""

    group: str
    label: str
    subnetwork: Subnetwork

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.group, self.label)))


def named(subnetworks: Masks) -> list[Named]:
    """The subnetworks, opened and named; without names, by what their files say of target, seed and granularity.

    Raises ``ValueError`` for none, and for two of one name, ``TypeError`` for what is no subnetwork, and ``OSError``
    for a file that is none.

    >>> from lens.mask import shipped
    >>> [str(one) for one in named([shipped("building", 0), shipped("building", 1)])]
    ['building, seed 0', 'building, seed 1']
    """
    if isinstance(subnetworks, (Subnetwork, str, Path)):
        subnetworks = [subnetworks]
    if not isinstance(subnetworks, Iterable):
        raise TypeError(f"Got {subnetworks!r:.60} for subnetworks: give one, the file of one, or several.")
    pairs = subnetworks.items() if isinstance(subnetworks, Mapping) else ((None, one) for one in subnetworks)
    found: dict[str, Named] = {}
    for name, one in pairs:
        one = load(one) if isinstance(one, (str, Path)) else one
        if not isinstance(one, Subnetwork):
            raise TypeError(f"Got {one!r} for a subnetwork: give one, or the file of one.")
        new = Named(*_names(name, one), one)
        if str(new) in found:
            raise ValueError(f"Two subnetworks are both called {str(new)!r}: give them as a dict by name.")
        found[str(new)] = new
    if not found:
        raise ValueError("There is no subnetwork: give at least one.")
    return list(found.values())


def _names(name: Hashable, one: Subnetwork) -> tuple[str, str]:
    if isinstance(name, tuple) and len(name) == 2:
        return str(name[0]), f"seed {name[1]}" if isinstance(name[1], int) else str(name[1])
    if name is not None:
        return str(name), ""
    seed = f"seed {one.config.seed}"
    kind = f"{seed}, neurons" if one.config.granularity == "neuron" else seed
    return str(one.about.get("target") or "subnetwork"), kind
