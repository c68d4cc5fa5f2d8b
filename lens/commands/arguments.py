"""Is what was typed fit to begin with?  Every option is read by the rule of its name, before any work."""

from __future__ import annotations

import argparse

from lens import given
from lens.given import RULES

FOLDERS = ("train", "statistics_of", "_train", "_masks", "_counterfact", "_everything")
"""Functions of commands whose ``--out`` may be a folder."""
OWN = {
    **dict.fromkeys(("texts", "masks", "file", "work"), given.path),
    **dict.fromkeys(("batch", "tokens", "devices", "shards"), RULES["count"]),
    **dict.fromkeys(("layers",), RULES["layer"]),
    "retries": RULES["random"],
    "at": RULES["count"],
    "utilization": given.number,
    "model": given.named,
    **{
        n: RULES[n]
        for n in ("device", "layer", "seed", "steps", "count", "together", "every", "lr", "floor", "checkpoint")
    },
}
"""The options that are read here; a command refuses the rest itself, before any work."""


def read(args: argparse.Namespace) -> None:
    """``ValueError`` for the first option that no command could work with; of several values each is read."""
    place = {"out": given.result_place if args.run.__name__ in FOLDERS else given.result_file}
    rules = OWN | place
    for name, value in vars(args).items():
        if name in rules:
            for one in value if isinstance(value, list) else [value]:
                given.read({f"--{name.replace('_', '-')}": one}, **{f"--{name.replace('_', '-')}": rules[name]})
