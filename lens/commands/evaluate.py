"""``python -m lens counterfact``, ``sequential``, ``tune``: how good is an editor, and with which settings?"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lens import evaluate
from lens.commands.arguments import command
from lens.data import load_records, load_texts
from lens.data.records import SPLITS
from lens.evaluate.perplexity import sample
from lens.evaluate.prompts import MEASURES
from lens.evaluate.tuning import as_table
from lens.model import LanguageModel, loading
from lens.results.csv_text import as_csv
from lens.results.lock import alone
from lens.results.provenance import comments
from lens.results.whole import write_text


def add(commands) -> None:
    """Add the three commands to the parser's ``commands``."""
    option = _command(commands, "counterfact", counterfact, "edit with each record in turn and measure what it did")
    option("--records")
    option("--out", type=Path, help="file for the rows; the same command again goes on where it stopped")
    option("--beside", type=Path, nargs="+", default=[], help="files of other runs to print beside this one")
    option("--no-entropy", "--no-perplexity")
    option("--tokens", type=int, help="of ordinary text to read, at least (default: 1000)")
    option("--seed", type=int, default=0, help="of the sampled text (default: 0)")
    option("--together")

    option = _command(commands, "sequential", sequential, "edits one on top of another, measured after some of them")
    option("--records")
    option("--at", type=int, nargs="+", default=[1, 3, 10, 30, 100], help="after how many edits to measure")
    option("--out", type=Path, help="CSV file for the measurements")

    option = _command(commands, "tune", tuning, "try an editor's grid of settings on the validation records")
    option("--floor", type=float, default=0.0, help="least efficacy, 0 to 1, of the best (default: 0)")
    option("--out", type=Path, help="CSV file for the table")
    option("--together")


def _command(commands, name: str, run: Callable, about: str) -> Callable[..., None]:
    """A command with the options of all three."""
    option = command(commands, name, run, about)
    option("--model")
    option("--editor", default="shift", help="an editor of lens.edit, or none (default: shift)")
    option("--limit")
    option("--layer", type=int, help="short for --set layer=LAYER")
    option("--set")
    option("--texts", type=Path, metavar="FILE", help="text to take statistics over, for rome, memit or alphaedit")
    option("--device")
    return option


def counterfact(args) -> int:
    others = [evaluate.Report.read(path) for path in args.beside]
    lm, records, chosen = _opened(args, args.records)
    options = dict(settings=chosen, out=args.out, together=args.together, seed=args.seed)
    options |= dict(entropy=not args.no_entropy, perplexity=not args.no_perplexity)
    options |= dict(texts=None if args.tokens is None else sample(lm, args.tokens))
    try:
        report = evaluate.counterfact(lm, records, args.editor, **options)
    except KeyboardInterrupt:
        kept = "the same command goes on where it stopped" if args.out else "nothing is kept without --out FILE"
        raise KeyboardInterrupt(kept) from None
    print(report.table(*others))
    if report.rows and len(report.errors) == len(report.rows):
        raise ValueError(f"Every record failed, the first with: {report.errors[0].error}")
    return 0


def sequential(args) -> int:
    lm, records, chosen = _opened(args, args.records, args.out)
    with alone(args.out):
        steps = evaluate.sequential(lm, records, args.editor, args.at, settings=chosen)
        _write(args.out, lm, [{"editor": args.editor, **step} for step in steps])
    for step in steps:
        print(f"{step['edits']:4d} edits: " + _line(step))
    return 0


def _line(step: dict) -> str:
    shares = {m: step[f"{m}_accuracy"] for m in MEASURES}
    said = (f"{m} " + ("-" if share is None else f"{100 * share:.1f} %") for m, share in shares.items())
    return f"{', '.join(said)} (accuracy), perplexity {step['perplexity']:.3g}"


def replaceable(out: Path | None) -> None:
    """``ValueError`` for an existing file that no command wrote as a table."""
    if out and out.is_file() and out.stat().st_size and not out.read_bytes().startswith(b"# "):
        raise ValueError(f"{out} is there and is no table of this command: give another --out, or remove that file.")


def tuning(args) -> int:
    lm, records, chosen = _opened(args, "validation", args.out)
    keep = partial(_write, args.out, lm)
    with alone(args.out):
        results = evaluate.grid_search(lm, records, args.editor, settings=chosen, together=args.together, each=keep)
    print(as_table(results))
    if (found := evaluate.best(results, args.floor)) is None:
        raise ValueError(f"No setting of the grid has an efficacy of {args.floor:.0%} on these records.")
    keys = list(found)[: list(found).index("efficacy_accuracy")]  # what was varied comes first
    print("The best: " + ", ".join(f"{key} = {found[key]}" for key in keys) + ".")
    return 0


def _opened(args, which: str, replaced: Path | None = None) -> tuple[LanguageModel, list[dict], dict]:
    """The model, the records (built-in ones that it answers right, or a file's, all) and the editor's settings.

    What is wrong with the other options, or with the file that is ``replaced``, is said before the model is opened.
    """
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit is {args.limit}: give at least 1.")
    held = None if which in SPLITS else load_records(which)[: args.limit]
    chosen = {} if args.layer is None else {"layer": args.layer}
    chosen |= {} if args.texts is None else {"texts": load_texts(args.texts)}
    chosen |= settings(args.set)
    replaceable(replaced)
    lm = loading.load(args.model, device=args.device)
    return lm, evaluate.records_for(lm, which, most=args.limit) if held is None else held, chosen


def _write(out: Path | None, lm: LanguageModel, rows: list[dict]) -> None:
    if out:
        write_text(out, as_csv(rows, *comments(lm.device, f"{lm.name} {lm.fingerprint}")))


def settings(given: list[str]) -> dict:
    """What ``--set key=value`` says, each time; values are read as JSON where they are that, else as text."""
    chosen = {}
    for item in given:
        key, sign, value = item.partition("=")
        if not key or not sign:
            raise ValueError(f"--set {item}: write it as KEY=VALUE, such as eta=0.5.")
        try:
            chosen[key] = json.loads(value)
        except (ValueError, RecursionError):
            chosen[key] = value
    return chosen
