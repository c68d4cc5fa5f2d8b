"""The command line: ``python -m lens --help``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lens import kernels
from lens.commands import arguments, bench, check, cost, edit, mask, model, relearn, sweep
from lens.commands import evaluate as evaluation
from lens.commands.arguments import actions, command
from lens.data import manifest, paths
from lens.data.corpus import heldout_paragraphs
from lens.data.records import make_records
from lens.model import loading
from lens.results.whole import write_text
from lens.world.recipe import RECIPES


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors meant for people are one sentence on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a code page may lack λ: better spelled out than the end of a long run
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(argv)
    try:
        arguments.read(args)
        return args.run(args) or 0
    except (ImportError, IndexError, OSError, RuntimeError, ValueError) as error:
        print(f"lens: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        resume = str(stop) or "run the same command again (mini train, mend train and relearn resume)"
        print(f"lens: interrupted; {resume}.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m lens", description="How language models learn: the book's tools.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    command(commands, "info", _info, "versions, device, data")

    data = actions(commands, "data", "the shipped files")
    command(data, "verify", _verify, "check every file against data/MANIFEST.json")
    command(data, "build", _build, "write records.json, heldout.txt and MANIFEST.json anew from the facts")

    mini = actions(commands, "mini", "the built-in models")
    option = command(mini, "train", _train, "train it from scratch; resumes a run that was stopped")
    option("--name", default="mini", choices=RECIPES, help="which of the built-in models (default: mini)")
    option("--out", type=Path, help="folder for the model (default: data/<name>)")
    option("--work", type=Path, default=Path("mini-training"), help="folder for the checkpoint")
    option("--steps", type=int, help="training steps (default: the recipe's)")
    option("--device")
    option = command(mini, "evaluate", _evaluate, "measure it and rewrite its card")
    option("--model", type=Path, help="folder of the model (default: data/<name>)")
    option("--name", default="mini", choices=RECIPES, help="which built-in model (default: mini)")

    for room in (model, check, edit, evaluation, mask, cost, relearn, sweep, bench):
        room.add(commands)
    return top


def _info(_args) -> None:
    import transformers

    import lens

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"lens {lens.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, threads {torch.get_num_threads()}")
    print(f"GPU: {gpu}\ndata: {paths.root()}")
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for operation, path, reason in kernels.paths.table(device):
            print(f"{operation:8} on {device:4} {path:6} {f'({reason})' if reason else ''}".rstrip())


def _verify(_args) -> None:
    print(f"All {manifest.verify()} data files are whole.")


def _build(_args) -> None:
    write_text(paths.world() / "heldout.txt", "\n\n".join(heldout_paragraphs()) + "\n")
    records = make_records()
    write_text(paths.world() / "records.json", json.dumps(records, indent=1) + "\n")
    print(f"Wrote {len(records)} records, heldout.txt and {manifest.write()}.")


def _train(args) -> None:
    from lens.world.train import train

    recipe = RECIPES[args.name]
    recipe = replace(recipe, steps=args.steps) if args.steps is not None else recipe
    out = args.out or paths.model(args.name)
    print(f"The model is in {train(out, args.work, recipe, args.device)}.")
    manifest.written(out)


def _evaluate(args) -> None:
    from lens.world.evaluate import evaluate, totals, write_card

    folder = args.model or paths.model(args.name)
    lm = loading.load(str(folder))
    if not (folder / "recipe.json").is_file():
        raise ValueError(
            f"The model in {folder} has no recipe.json: give a folder that 'python -m lens mini train' made."
        )
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    result = evaluate(lm, recipe.get("without", ()))
    for name, value in totals(result["recall"]).items():
        print(f"{name:40} {100 * value:6.2f} %")
    for name, row in result["perplexity"].items():
        print(f"{'perplexity, ' + name + ' text':40} {row['model']:6.1f} (bigram {row['bigram']:.1f})")
    write_card(folder, result, f"python -m lens mini evaluate --name {args.name}")
    manifest.written(folder)


if __name__ == "__main__":
    sys.exit(main())
