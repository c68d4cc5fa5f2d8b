"""Which weights do several subnetworks share?  Intersection, union and majority, as subnetworks to remove.

    in at least k of n:   k = n the intersection,   k = 1 the union,   k = ⌈(n + 1)/2⌉ the majority

Masks are unpacked a site at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from lens.given import passes, whole
from lens.kernels import Bits, pack
from lens.mask import Subnetwork, load
from lens.overlap.counting import MOST

Some = Mapping[Hashable, "Subnetwork | str | Path"] | Sequence["Subnetwork | str | Path"]
"""Subnetworks under their names, or without; a file in place of one is read a site at a time."""


def intersection(subnetworks: Some) -> Subnetwork:
    """The weights that are in all of the subnetworks; raises what ``at_least`` does.

    >>> from lens.mask import shipped
    >>> three = [shipped("building", seed) for seed in range(3)]
    >>> intersection(three).density() < three[0].density() < union(three).density()
    True
    """
    some = named(subnetworks)
    return at_least(some, len(some))


def union(subnetworks: Some) -> Subnetwork:
    """The weights that are in any of the subnetworks; raises what ``at_least`` does."""
    return at_least(subnetworks, 1)


def at_least(subnetworks: Some, k: int) -> Subnetwork:
    """The weights that are in at least ``k`` of the subnetworks, to be removed like any other.

    Where neurons and weights are given, neurons count with all their weights.  Raises ``ValueError`` for a k that is
    not from 1 to their number, fewer than two or more than 16 subnetworks, of several models or with other sites.

    >>> from lens.mask import shipped
    >>> at_least([shipped("building", seed) for seed in range(3)], 2).about["note"]
    'in at least 2 of 3 subnetworks'
    """
    some = list(named(subnetworks).values())
    if not passes(whole, k, 1, len(some)):
        raise ValueError(
            f"k is {k!r} and there are {len(some)} subnetworks: give a whole number from 1 to {len(some)}."
        )
    bits = {}
    for key in some[0].bits:
        held = sum(mask.unpack().to(torch.uint8) for mask in site(some, key))
        bits[key] = pack(held >= k)
    note = {len(some): "intersection of", 1: "union of"}.get(k, f"in at least {k} of")
    like = next((one for one in some if not of_neurons(one)), some[0])
    return like.with_bits(bits, f"{note} {len(some)} subnetworks")


def named(subnetworks: Some) -> dict[Hashable, Subnetwork]:
    """The subnetworks by name, or by number; ``ValueError`` in one sentence where they cannot be compared."""
    if isinstance(subnetworks, (str, Path)) or not isinstance(subnetworks, (Mapping, Iterable)):
        raise TypeError("Give several subnetworks, or the files of several: a list, or a dict by name.")
    some = dict(subnetworks if isinstance(subnetworks, Mapping) else enumerate(subnetworks))
    if not 2 <= len(some) <= MOST:
        raise ValueError(f"Give 2 to {MOST} subnetworks to compare, not {len(some)}.")
    for name, one in some.items():
        some[name] = one = load(one, lazy=True) if isinstance(one, (str, Path)) else one
        if not isinstance(one, Subnetwork):
            raise TypeError(f"{name!r} is {type(one).__name__}: give a subnetwork, or the file of one.")
    (first, like), *others = some.items()
    for name, one in others:
        if one.fingerprint != like.fingerprint:
            raise ValueError(
                f"{first!r} and {name!r} belong to different models ({like.model!r}, fingerprint "
                f"{like.fingerprint[:12]}, and {one.model!r}, {one.fingerprint[:12]}): give subnetworks of one."
            )
        if one.shapes != like.shapes:
            layer, where = min(one.shapes.items() ^ like.shapes.items())[0]
            raise ValueError(
                f"{first!r} and {name!r} do not mask the same sites (layer {layer} {where} differs): compare "
                "subnetworks that do."
            )
        if set(one.bits) != set(like.bits):  # not the views of keys, which would read every mask of a file
            layer, where = min(set(one.bits) ^ set(like.bits))
            raise ValueError(
                f"Of {first!r} and {name!r} only one has bits for layer {layer} {where}: compare whole subnetworks."
            )
    return some


def site(subnetworks: Sequence[Subnetwork], key: tuple[int, str]) -> list[Bits]:
    """Each one's mask of one site; all [d_in, d_out], or all [d_in, 1] where all are neurons."""
    masks = [one.bits[key] for one in subnetworks]
    if len({mask.shape for mask in masks}) == 1:
        return masks
    shape = subnetworks[0].shapes[key]
    return [mask if mask.shape == shape else pack(mask.unpack().expand(shape).contiguous()) for mask in masks]


def of_neurons(subnetwork: Subnetwork) -> bool:
    """Does it consist of whole input rows?"""
    key = next(iter(subnetwork.bits))
    return subnetwork.bits[key].shape != subnetwork.shapes[key]
