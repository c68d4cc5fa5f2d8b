"""``python -m lens edit statistics`` and ``mend train``: what ROME, MEMIT and MEND need of a model beforehand."""

from __future__ import annotations

from pathlib import Path

from lens.commands.arguments import actions, command
from lens.data import load_texts, manifest, paths
from lens.edit import covariance, settings
from lens.edit.mend_training import recipe_for, train
from lens.edit.statistics import again
from lens.model import loading


def add(commands) -> None:
    """Add the commands ``edit`` and ``mend`` to the parser's ``commands``."""
    editing = actions(commands, "edit", "editors")
    second_moment = "take the second moment of FF2's inputs, for ROME and MEMIT"
    option = command(editing, "statistics", statistics_of, second_moment)
    option("--model")
    option("--layers", type=int, nargs="+", help="default: those that ROME and MEMIT edit")
    option("--texts", type=Path, metavar="FILE", help="text of the kind the model was trained on")
    option("--count", type=int, default=100_000, help="tokens of that text (default: 100000)")
    option("--device")
    option("--out", type=Path, help="take them anew, into this folder (default: the cache folder)")

    mend = actions(commands, "mend", "the editor MEND")
    option = command(mend, "train", mend_train, "train its network for a model; resumes a run that was stopped")
    option("--model")
    option("--out", type=Path, help="file for the network (default for mini: the shipped one)")
    option("--steps", type=int, help="training steps (default: the recipe's)")
    option("--seed", type=int, help="of the initial weights and the examples (default: the recipe's)")
    option("--device")


def statistics_of(args) -> None:
    texts = None if args.texts is None else load_texts(args.texts)
    lm = loading.load(args.model, device=args.device)
    layers = args.layers or sorted(
        {settings(lm, "rome")["layer"], *(i for name in ("memit", "alphaedit") for i in settings(lm, name)["layers"])}
    )
    asked = texts, args.count
    taken = again(lm, layers, args.out, *asked) if args.out else covariance(lm, layers, *asked)
    for layer, one in taken.items():
        print(f"Layer {layer}: C [{len(one.C)}, {len(one.C)}] over {one.count} tokens.")
    if args.out:
        manifest.written(args.out)


def mend_train(args) -> None:
    if args.out is None and args.model != "mini":
        raise ValueError(f"Say with --out FILE where the network for {args.model!r} should go.")
    out = args.out or paths.root() / "mend" / "mini.safetensors"
    lm = loading.load(args.model, device=args.device)
    print(f"The network is in {train(lm, out, recipe_for(lm, steps=args.steps, seed=args.seed))}.")
    manifest.written(out)
