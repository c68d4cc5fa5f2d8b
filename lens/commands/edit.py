"""``python -m lens edit statistics`` and ``mend train``: what ROME, MEMIT and MEND need of a model beforehand."""

from __future__ import annotations

from pathlib import Path

from lens.data import load_texts, manifest, paths
from lens.edit import covariance, settings
from lens.edit.mend_training import recipe_for, train
from lens.edit.statistics import again
from lens.model import loading


def add(commands) -> None:
    """Add the commands ``edit`` and ``mend`` to the parser's ``commands``."""
    editing = commands.add_parser("edit", help="editors").add_subparsers(required=True, metavar="ACTION")
    statistics = editing.add_parser("statistics", help="take the second moment of FF2's inputs, for ROME and MEMIT")
    statistics.add_argument("--model", default="mini", help="built-in, hub id or folder (default: mini)")
    statistics.add_argument("--layers", type=int, nargs="+", help="default: those that ROME and MEMIT edit")
    statistics.add_argument("--texts", type=Path, metavar="FILE", help="text of the kind the model was trained on")
    statistics.add_argument("--count", type=int, default=100_000, help="tokens of that text (default: 100000)")
    statistics.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")
    statistics.add_argument("--out", type=Path, help="take them anew, into this folder (default: the cache folder)")
    statistics.set_defaults(run=statistics_of)

    mend = commands.add_parser("mend", help="the editor MEND").add_subparsers(required=True, metavar="ACTION")
    training = mend.add_parser("train", help="train its network for a model; resumes a run that was stopped")
    training.add_argument("--model", default="mini", help="built-in, hub id or folder (default: mini)")
    training.add_argument("--out", type=Path, help="file for the network (default for mini: the shipped one)")
    training.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    training.add_argument("--seed", type=int, help="of the initial weights and the examples (default: the recipe's)")
    training.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")
    training.set_defaults(run=mend_train)


def statistics_of(args) -> None:
    texts = None if args.texts is None else load_texts(args.texts)
    lm = loading.load(args.model, device=args.device)
    layers = args.layers or sorted(
        {settings(lm, "rome")["layer"], *(i for name in ("memit", "alphaedit") for i in settings(lm, name)["layers"])}
    )
    if args.out:
        taken = again(lm, layers, args.out, texts, args.count)
    else:
        taken = covariance(lm, layers, texts, args.count)
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
