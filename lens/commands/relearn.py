"""``python -m lens relearn``: what comes back of removed facts when a model is trained on others, as a table."""

from __future__ import annotations

import csv
import sys
from itertools import product
from pathlib import Path

from tqdm.auto import tqdm

from lens import data, evaluate, mask
from lens import relearn as learning
from lens.commands.arguments import command
from lens.commands.mask import ALL
from lens.data import manifest
from lens.model import loading
from lens.relearn.tuning import rates
from lens.results.csv_text import as_csv
from lens.results.damaged import check, damaged
from lens.results.lock import alone
from lens.results.provenance import comments
from lens.results.whole import write_text

VARIANTS = ("original", "remaining", "random")
KEY = ("target_kg", "variant", "method", "questions", "seed")
TASKS = ("world", "commonsense_qa")


def add(commands) -> None:
    """Add the command ``relearn`` to the parser's ``commands``."""
    option = command(commands, "relearn", relearn, "can removed facts come back? resumes a run that was stopped")
    option("--model")
    option("--target", nargs="+", default=["building"], help=f"TargetKGs; {ALL}: every built-in one")
    option("--method", nargs="+", default=["head", "lora", "full"], help="head, lora, full (default: all)")
    option("--variant", nargs="+", default=VARIANTS, choices=VARIANTS, help="models (default: all three)")
    option("--seed", type=int, nargs="+", default=[0], help="of mask, split and training (default: 0)")
    without = "the remaining model (else the original) also without questions about the KG"
    option("--without", action="store_true", help=without)
    option("--masks", type=Path, help="folder of subnetworks TARGET-weight-SEED.safetensors")
    option("--task", default="world", choices=TASKS, help="questions (default: world)")
    option("--readout", default="likelihood", help="likelihood or classifier (default: likelihood)")
    option("--free", action="store_true", help="full training may train the removed weights again, from zero")
    option("--on", default="test", choices=("test", "validation"), help="questions asked (default: test)")
    option("--lr", type=float, help="learning rate (default: the method's own)")
    option("--steps", type=int, default=8, help="training steps (default: 8)")
    option("--every", type=int, default=4, help="steps between two checks (default: 4)")
    option("--batch", type=int, default=12, help="questions a step (default: 12)")
    option("--out", type=Path, required=True, help="file for the rows, .csv")
    option("--device")


def relearn(args) -> int:
    if args.out.suffix != ".csv":
        raise ValueError(f"--out {args.out}: give a file that ends in .csv.")
    with alone(args.out):
        return _relearn(args)


def _relearn(args) -> int:
    if wrong := [method for method in args.method if method not in learning.METHODS]:
        raise ValueError(f"There is no method {wrong[0]!r}: choose of {', '.join(learning.METHODS)}.")
    targets = list(dict.fromkeys(t for given in args.target for t in (data.target_kgs() if given == ALL else [given])))
    methods, variants, seeds = (list(dict.fromkeys(some)) for some in (args.method, args.variant, args.seed))
    kgs = {target: data.knowledge(target) for target in targets}
    if args.masks and {*variants} - {"original"}:  # one that is missing is told before any work
        for kg, seed in product(kgs.values(), seeds):
            _subnetwork(args, kg.name, seed)
    lm = loading.load(args.model, device=args.device)
    kgs = {target: evaluate.knowledge_for(lm, target) for target in targets}  # asks for facts that this model knows
    settings = {"steps": args.steps, "every": args.every, "batch": args.batch, "readout": args.readout}
    settings |= {"frozen": not args.free, "lr": args.lr}
    head = _head(lm, args, settings)
    rows = _read(args.out, head) if args.out.exists() else []
    for target, seed in product(targets, seeds):
        made = {r["mask"] for r in rows if (r["target_kg"], r["seed"]) == (target, str(seed)) and r.get("mask")}
        if made and made != {_name(_subnetwork(args, kgs[target].name, seed, lm))}:
            raise ValueError(f"{args.out} has rows of {target}, seed {seed}, with another mask: give another --out.")
    done = {tuple(row[key] for key in KEY) for row in rows}
    trained = [(variant, "both") for variant in variants]
    trained += [("remaining" if "remaining" in variants else "original", "others")] if args.without else []
    jobs = [
        (target, seed, variant, asked, method)
        for seed, target, (variant, asked), method in product(seeds, targets, trained, methods)
        if (target, variant, method, asked, str(seed)) not in done
    ]
    found: dict = {}
    for target, seed, variant, asked, method in tqdm(jobs, desc="relearn", unit="run"):
        if (target, seed) not in found:  # one at a time
            if args.task == "world":
                task = learning.questions(kgs[target], seed=seed, phrasings=1)
            else:
                task = learning.commonsense_qa(kgs[target])
            masks = {"original": None}
            if {variant for variant, _ in trained} - {"original"}:
                sub = _subnetwork(args, kgs[target].name, seed, lm)
                masks |= {"remaining": sub, "random": mask.random_like(sub, seed)}
            also = {"blind": learning.blind(task.test, seed)} if args.on == "test" else {}
            found = {(target, seed): (task.train, getattr(task, args.on), masks, also)}
        train, test, masks, also = found[target, seed]
        train = [q for q in train if asked == "both" or not q.filtered]
        tuned = learning.tune(lm, train, test, method, removed=masks[variant], seed=seed, also=also, **settings)
        facts = {q.fact or i: q.filtered for i, q in enumerate(test)}
        key = dict(zip(KEY, (target, variant, method, asked, str(seed))))
        about = {
            "facts_filtered": sum(facts.values()),
            "facts_rest": len(facts) - sum(facts.values()),
            "seconds": round(tuned.seconds, 2),
            "mask": "" if variant == "original" else _name(masks["remaining"]),
        }
        for row in tuned.curve:
            last = row is tuned.curve[-1]
            right = " ".join(f"{share:.3g}" for share in tuned.right.values()) if last else ""
            numbers = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            rows.append(key | numbers | about | {"right": right})
        write_text(args.out, as_csv(rows, *comments(lm.device, head)))
    manifest.written(args.out)
    print(f"{args.out}: {len(jobs)} runs made, {len(done)} were there.", file=sys.stderr)
    return 0


def _subnetwork(args, name: str, seed: int, lm=None) -> mask.Subnetwork:
    """The mask of a target: of the folder that was given, or shipped; ``ValueError`` for another target's."""
    if not args.masks:
        return mask.shipped(name, seed, model=lm.name)
    file = args.masks / f"{name}-weight-{seed}.safetensors"
    found = mask.load(file, lm)
    if Path(found.about.get("target", name)).stem != name:
        raise ValueError(f"{file} holds the subnetwork of {found.about['target']!r}: give that of {name!r} this name.")
    return found


def _name(subnetwork: mask.Subnetwork) -> str:
    return subnetwork.digest()[:16]


def _head(lm, args, settings: dict) -> str:
    """The line that must agree for a run to go on."""
    all_settings = {"task": args.task, "on": args.on} | settings
    if all_settings["lr"] is None:
        all_settings |= {"lr": " ".join(f"{method} {rate}" for method, rate in rates(lm).items())}
    return f"{lm.name} {lm.fingerprint}; " + ", ".join(f"{key} {value}" for key, value in all_settings.items())


def _read(path: Path, head: str) -> list[dict]:
    """The rows of an earlier run; ``ValueError`` where it was another one."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        lines = file.readlines()
    if f"# {head}\n" not in lines[:3]:
        raise ValueError(f"{path} was made with another model or other settings: give another --out, or remove it.")
    with damaged(path, "table of such runs", "give another --out, or remove it"):
        rows = list(csv.DictReader((line for line in lines if not line.startswith("#")), strict=True))
        check(rows, [dict.fromkeys((*KEY, *(rows[0] if rows else ())), str)])  # as many cells in each
        return rows
