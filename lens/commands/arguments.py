"""Is what was typed fit to begin with?  Every option is read by the rule of its name, before any work."""

from __future__ import annotations

import argparse
from pathlib import Path

from lens import given
from lens.given import RULES

FOLDERS = ("statistics_of", "_train", "_masks", "_counterfact", "_everything")
"""Functions of commands whose ``--out`` is a folder; that of mask train may be one or a file."""
OWN = {
    **dict.fromkeys(("texts", "masks", "file"), given.path),
    "work": given.result_folder,
    "scheduler": given.address,
    **dict.fromkeys(("batch", "tokens", "devices", "shards"), RULES["count"]),
    "steps": lambda name, value: given.whole(name, value, 1, 10**9),
    **dict.fromkeys(("layers",), RULES["layer"]),
    "retries": RULES["random"],
    "at": RULES["count"],
    "utilization": given.number,
    "model": given.named,
    **{
        n: RULES[n]
        for n in ("device", "layer", "seed", "count", "together", "every", "lr", "floor", "checkpoint", "workers")
    },
}
"""The options that are read here; a command refuses the rest itself, before any work."""


def read(args: argparse.Namespace) -> None:
    """``ValueError`` for the first option that no command could work with; of several values each is read."""
    what = args.run.__name__
    out = given.result_folder if what in FOLDERS else given.result_place if what == "train" else given.result_file
    rules = OWN | {"out": out}
    if getattr(args, "scheduler", None):  # then the workers' devices count, not this machine's
        del rules["device"]
    for name, value in vars(args).items():
        if name in rules:
            for one in value if isinstance(value, list) else [value]:
                given.read({f"--{name.replace('_', '-')}": one}, **{f"--{name.replace('_', '-')}": rules[name]})
        if isinstance(value, Path):  # a shell leaves the ~ of --out=~/x
            setattr(args, name, value.expanduser())
        elif isinstance(value, list):
            setattr(args, name, [one.expanduser() if isinstance(one, Path) else one for one in value])
