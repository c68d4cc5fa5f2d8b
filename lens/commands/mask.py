"""``python -m lens mask train`` and ``evaluate``: a TargetKG's subnetwork, and what is left without it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

from lens import data, mask
from lens import evaluate as evaluation
from lens.commands.arguments import actions, command
from lens.commands.evaluate import replaceable, settings
from lens.data import manifest, paths
from lens.model import loading
from lens.results.csv_text import as_csv
from lens.results.lock import alone
from lens.results.provenance import comments, provenance
from lens.results.whole import write_text

ALL = "all"


def add(commands) -> None:
    """Add the command ``mask`` with its two actions to the parser's ``commands``."""
    mask = actions(commands, "mask", "knowledge-critical subnetworks")
    option = command(mask, "train", train, "find subnetworks; resumes a run that was stopped, skips what is done")
    option("--model")
    option(
        "--target", nargs="+", default=["building"], help=f"TargetKGs, or a file of facts; {ALL}: every built-in one"
    )
    option("--wording")
    option("--seed", type=int, nargs="+", default=[0], help="one subnetwork for each (default: 0)")
    option("--granularity", "--set")
    option("--out", type=Path, help="file, or folder for several (default for built-in models: data/runs)")
    option("--checkpoint", type=Path, help="file that keeps the run while it lasts (default: beside --out)")
    option("--again", action="store_true", help="train anew what is done already")
    option("--device")

    option = command(mask, "evaluate", evaluate, "measure a TargetKG and its controls without a subnetwork")
    option("files", type=Path, nargs="+", metavar="FILE", help="subnetworks that mask train wrote")
    option("--model", help="built-in, hub id or folder (default: the built-in one that the file names)")
    option("--target", help="TargetKG, or a file of facts (default: the one that the file names)")
    option("--wording", "--random")
    option("--alone", action="store_true", help="also the subnetwork alone")
    option("--out", type=Path, help="file for the numbers, .csv or .json")
    option("--device")


def train(args) -> int:
    targets = [name for given in args.target for name in (data.target_kgs() if given == ALL else [given])]
    runs = list(dict.fromkeys((target, seed) for target in targets for seed in args.seed))
    if args.checkpoint and len(runs) > 1:
        raise ValueError(f"--checkpoint names one file, and these are {len(runs)} runs: leave it out, or ask for one.")
    if args.checkpoint and args.out and args.checkpoint.resolve() == args.out.resolve():
        raise ValueError(f"--checkpoint and --out both name {args.out}: give two files.")
    if args.out is None and args.model not in (*paths.BUILT_IN, *paths.FETCHED):
        raise ValueError(f"Say with --out where the subnetwork for {args.model!r} should go.")
    chosen = settings(args.set)
    for name in {"seed", "granularity"} & chosen.keys():
        raise ValueError(f"--set {name} would not be in the file's name: say it with --{name}.")
    for target in targets:  # what is wrong with one is said before anything runs
        data.knowledge(target, model=args.wording)
    lm = loading.load(args.model, device=args.device)
    known = cache(partial(evaluation.knowledge_for, lm, model=args.wording))
    for target, seed in runs:
        kg = known(target)
        name = f"{kg.name}-{args.granularity}-{seed}.safetensors"
        out = args.out or paths.root() / "runs" / args.model
        out = out / name if len(runs) > 1 or args.out is None or out.is_dir() else out
        config = mask.config_for(lm, args.granularity, **{"seed": seed} | chosen)
        about = {"target": target, "wording": args.wording, "facts": _facts(kg)}
        if not args.again and _is_done(out, lm, config, about):
            print(f"{out} is there already: --again trains it anew.")
            continue
        checkpoint = args.checkpoint or out.with_name(f".{out.name}.checkpoint")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        try:
            with alone(out):
                found = mask.train(lm, kg.target, kg.control, kg.text, config, checkpoint=checkpoint)
                mask.save(replace(found, about=found.about | about), out)
                checkpoint.unlink(missing_ok=True)
        except KeyboardInterrupt:
            print(f"lens: interrupted; the same command goes on with {out}.", file=sys.stderr)
            return 130
        manifest.written(out)
        hard = ", ".join(f"{name} {value:.3g}" for name, value in found.history[-1]["hard"].items())
        print(f"{out}: {hard}; {found.about['seconds']:.0f} s.")
    return 0


def _is_done(out: Path, lm, config, about: dict) -> bool:
    """Does ``out`` hold what the run would write?  ``ValueError`` where it holds another subnetwork."""
    try:
        found = mask.load(out, lm)
    except OSError:  # none, or a damaged one
        return False
    if found.config != config:
        raise ValueError(f"The subnetwork in {out} was found with other settings: give another --out, or --again.")
    for name, value in about.items():
        if found.about.get(name, value) != value:
            raise ValueError(
                f"The subnetwork in {out} is of another {name} ({found.about[name]!r}, and now it is {value!r}): give "
                "another --out, or --again."
            )
    return True


def _facts(kg) -> str:
    """A digest of what a run is made of: prompts with their targets, and texts."""
    asked = [[(p.text, p.target) for p in some] for some in (kg.target, kg.control)]
    return sha256(json.dumps([asked, list(kg.text)]).encode()).hexdigest()


def evaluate(args) -> int:
    if args.out and args.out.suffix not in (".csv", ".json"):
        raise ValueError(f"--out {args.out}: give a file that ends in .csv or .json.")
    if args.random < 0:
        raise ValueError(f"--random is {args.random}: give 0 or more.")
    if args.out and args.out.suffix == ".csv":
        replaceable(args.out)
    subnetworks = [mask.load(path) for path in args.files]
    rows: list[dict] = []
    models: dict = {}
    fingerprints: dict[str, str] = {}
    for path, subnetwork in zip(args.files, subnetworks):
        target = args.target or subnetwork.about.get("target")
        if target is None:
            raise ValueError(f"The file {path} does not say what its subnetwork was to remove: give --target.")
        name = args.model or subnetwork.model
        if not args.model and name not in (*paths.BUILT_IN, *paths.FETCHED):
            raise ValueError(f"The file {path} names the model {name!r}: say with --model which one to open.")
        if name not in models:
            models = {name: loading.load(name, device=args.device)}  # one at a time
        kg = evaluation.knowledge_for(models[name], target, model=args.wording or subnetwork.about.get("wording"))
        result = evaluation.knowledge(models[name], kg, subnetwork, random=args.random, alone=args.alone)
        rows += [{"file": path.name} | row for row in result.rows()]
        fingerprints[models[name].name] = models[name].fingerprint
        if args.out:  # after each file: what was measured is kept
            _write(args.out, rows, fingerprints, models[name].device)
        print(f"{path}\n\n{result}\n")
    return 0


def _write(out: Path, rows: list[dict], fingerprints: dict[str, str], device) -> None:
    if out.suffix == ".json":
        (first, *more) = fingerprints.values()
        made = provenance(device) | {"fingerprint": fingerprints if more else first, "rows": rows}
        write_text(out, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    else:
        write_text(out, as_csv(rows, *comments(device, "; ".join(map(" ".join, fingerprints.items())))))
