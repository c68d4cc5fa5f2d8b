"""What can be typed behind a command, and is it fit to begin with?

``actions`` and ``command`` add to the parser, and options that several commands have are said once.  ``read`` reads
every option by the rule of its name, before any work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from lens import given
from lens.given import RULES

SHARED = {
    "--model": dict(default="mini", help="built-in, hub id or folder (default: mini)"),
    "--device": dict(help="cpu or cuda (default: the GPU where there is one)"),
    "--set": dict(action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated"),
    "--wording": dict(metavar="NAME", help="in a file of facts: the model whose wording is read"),
    "--granularity": dict(default="weight", help="weight or neuron (default: weight)"),
    "--random": dict(type=int, default=3, help="random masks to compare with (default: 3)"),
    "--records": dict(default="test", help="test, validation, or a counterfact.json (default: test)"),
    "--limit": dict(type=int, help="only the first so many records"),
    "--together": dict(type=int, help="records in one batch (default: up to 64, as fit the memory)"),
    "--no-entropy": dict(action="store_true", help="sample no text"),
    "--no-perplexity": dict(action="store_true", help="do not read ordinary text"),
}
"""Options that several commands have, in the same words."""

FOLDERS = ("statistics_of", "_train", "_masks", "_counterfact", "_everything")
"""Functions of commands whose ``--out`` is a folder; that of mask train may be one or a file."""
OWN = {
    **dict.fromkeys(("texts", "masks", "file"), given.path),
    "work": given.result_folder,
    "scheduler": given.address,
    **dict.fromkeys(("batch", "tokens", "devices", "shards", "at"), RULES["count"]),
    "steps": lambda name, value: given.whole(name, value, 1, 10**9),
    "layers": RULES["layer"],
    "retries": RULES["random"],
    "utilization": given.number,
    "model": given.named,
    **{name: RULES[name] for name in ("device", "layer", "seed", "count", "together", "every")},
    **{name: RULES[name] for name in ("lr", "floor", "checkpoint", "workers")},
}
"""The options that are read here; a command refuses the rest itself, before any work."""


def actions(commands, name: str, about: str, metavar: str = "ACTION"):
    """Add a command of two words, such as ``mask train``; returns what takes the second words."""
    return commands.add_parser(name, help=about).add_subparsers(required=True, metavar=metavar)


def command(commands, name: str, run: Callable, about: str, **defaults) -> Callable[..., None]:
    """Add a command to the parser's ``commands``; returns the function that adds its options.

    This takes what ``add_argument`` takes, or only the names of options in ``SHARED``, one or several.
    """
    parser = commands.add_parser(name, help=about)
    parser.set_defaults(run=run, **defaults)

    def option(*names: str, **settings) -> None:
        for name in names:
            parser.add_argument(name, **(settings or SHARED[name]))

    return option


def read(args: argparse.Namespace) -> None:
    """``ValueError`` for the first option that no command could work with; of several values each is read."""
    what = args.run.__name__
    out = given.result_folder if what in FOLDERS else given.result_place if what == "train" else given.result_file
    rules = OWN | {"out": out}
    if getattr(args, "scheduler", None):  # then the workers' devices count, not this machine's
        del rules["device"]
    for name, value in vars(args).items():
        some = value if isinstance(value, list) else [value]
        if name in rules:
            for one in some:
                if one is not None:
                    rules[name](f"--{name.replace('_', '-')}", one)
        some = [one.expanduser() if isinstance(one, Path) else one for one in some]  # a shell leaves the ~ of --out=~/x
        setattr(args, name, some if isinstance(value, list) else some[0])
