"""``python -m lens sweep masks`` and ``counterfact``: many runs, here or on the workers of a Dask cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from lens import given
from lens.commands.arguments import actions, command
from lens.commands.evaluate import settings
from lens.commands.mask import ALL
from lens.results.csv_text import as_csv
from lens.results.whole import write_text
from lens.scale import sweep
from lens.scale.sweep import connecting
from lens.scale.sweep.cluster import made
from lens.scale.sweep.models import place_of


def add(commands) -> None:
    """Add the command ``sweep`` with its two actions to the parser's ``commands``."""
    sweep = actions(commands, "sweep", "many runs, here or on a cluster")
    option = _command(sweep, "masks", _masks, "find and measure a subnetwork for each target and seed")
    option("--target", nargs="+", default=[ALL], help=f"TargetKGs, or files of facts (default: {ALL})")
    option("--wording")
    option("--seed", type=int, nargs="+", default=[0], help="one subnetwork for each (default: 0)")
    option("--granularity", "--random", "--set")

    option = _command(sweep, "counterfact", _counterfact, "measure editors on shards of the records")
    option("--editor", nargs="+", default=["shift"], help="editors of lens.edit, or none (default: shift)")
    option("--records", "--limit")
    option("--shards", type=int, default=8, help="jobs for each editor (default: 8)")
    option("--together", "--no-entropy", "--no-perplexity")
    option("--seed", type=int, default=0, help="of the sampled text (default: 0)")
    option(
        "--set", action="append", default=[], metavar="EDITOR.KEY=VALUE", help="an editor's setting; may be repeated"
    )


def _command(commands, name: str, run: Callable, about: str) -> Callable[..., None]:
    """A command with the options of both actions."""
    option = command(commands, name, run, about)
    option("--model")
    option("--out", type=Path, required=True, help="folder for the results; what is in it is not done again")
    option("--scheduler", metavar="ADDRESS", help="run on this Dask scheduler's workers: tcp://…")
    option("--workers", type=int, metavar="N", help="run in so many processes of this machine")
    option("--resource", action="append", default=[], metavar="NAME=AMOUNT", help="a job takes it of its worker: GPU=1")
    option("--retries", type=int, default=2, help="further attempts for a job that fails (default: 2)")
    option("--device")
    return option


def _masks(args) -> int:
    targets = None if ALL in args.target else [place_of(target) for target in args.target]
    options = dict(settings=settings(args.set), random=args.random, wording=args.wording, device=args.device)
    results = _run(args, sweep.mask_jobs, place_of(args.model), targets, args.seed, args.granularity, **options)
    rows = results.table()
    if rows:
        write_text(args.out / "table.csv", as_csv(rows))
        print(f"{len(results) - len(results.failed)} jobs, {len(rows)} rows: {args.out / 'table.csv'}.")
    return _failed(results)


def _counterfact(args) -> int:
    chosen: dict[str, dict] = {}
    for name, value in settings(args.set).items():
        editor, dot, key = name.partition(".")
        if not dot:
            raise ValueError(f"--set {name}: say whose setting it is, such as {args.editor[0]}.{name}.")
        chosen.setdefault(editor, {})[key] = value
    options = dict(limit=args.limit, settings=chosen, together=args.together, seed=args.seed, device=args.device)
    options |= dict(entropy=not args.no_entropy, perplexity=not args.no_perplexity)
    asked = place_of(args.model), args.editor, place_of(args.records), args.shards
    results = _run(args, sweep.counterfact_jobs, *asked, **options)
    first, *others = sweep.reports(results).values() or (None,)
    if first:
        print(first.table(*others))
    return _failed(results)


def _run(args, builder: Callable, *arguments, **options):
    """The results of the jobs that ``builder`` makes: on a cluster, for this machine need not hold the model."""
    if args.scheduler and args.workers is not None:
        raise ValueError("--scheduler and --workers name two clusters: give one of them.")
    resources = settings(args.resource) or None
    given.read({"--resource": resources}, **{"--resource": given.RULES["resources"]})
    try:
        with nullcontext(args.scheduler) if args.workers is None else connecting.local(args.workers) as cluster:
            if cluster is None:
                jobs = builder(*arguments, **options)
            else:
                jobs = made(cluster, builder, *arguments, resources=resources, **options)
            return sweep.run(jobs, args.out, cluster, retries=args.retries, resources=resources)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with what is missing") from None


def _failed(results) -> int:
    """1 where jobs failed, one line on stderr for each; else 0."""
    for line in results.report().splitlines():
        print(f"lens: {line}", file=sys.stderr)
    return 1 if results.failed else 0
