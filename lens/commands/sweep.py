"""``python -m lens sweep masks`` and ``counterfact``: many runs, here or on the workers of a Dask cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lens import given
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
    sweep = commands.add_parser("sweep", help="many runs, here or on a cluster").add_subparsers(
        required=True, metavar="ACTION"
    )
    masks = sweep.add_parser("masks", help="find and measure a subnetwork for each target and seed")
    _common(masks)
    masks.add_argument("--target", nargs="+", default=[ALL], help=f"TargetKGs, or files of facts (default: {ALL})")
    masks.add_argument("--wording", metavar="NAME", help="in a file of facts: the model whose wording is read")
    masks.add_argument("--seed", type=int, nargs="+", default=[0], help="one subnetwork for each (default: 0)")
    masks.add_argument("--granularity", default="weight", help="weight or neuron (default: weight)")
    masks.add_argument("--random", type=int, default=3, help="random masks to compare with (default: 3)")
    masks.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")
    masks.set_defaults(run=_masks)

    edits = sweep.add_parser("counterfact", help="measure editors on shards of the records")
    _common(edits)
    edits.add_argument("--editor", nargs="+", default=["shift"], help="editors of lens.edit, or none (default: shift)")
    edits.add_argument("--records", default="test", help="test, validation, or a counterfact.json (default: test)")
    edits.add_argument("--limit", type=int, help="only the first so many records")
    edits.add_argument("--shards", type=int, default=8, help="jobs for each editor (default: 8)")
    edits.add_argument("--together", type=int, help="records in one batch (default: up to 64, as fit the memory)")
    edits.add_argument("--no-entropy", action="store_true", help="sample no text")
    edits.add_argument("--no-perplexity", action="store_true", help="do not read ordinary text")
    edits.add_argument("--seed", type=int, default=0, help="of the sampled text (default: 0)")
    edits.add_argument(
        "--set", action="append", default=[], metavar="EDITOR.KEY=VALUE", help="an editor's setting; may be repeated"
    )
    edits.set_defaults(run=_counterfact)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="mini", help="built-in, hub id or folder (default: mini)")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the results; what is in it is not done again"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="run on this Dask scheduler's workers: tcp://…")
    parser.add_argument("--workers", type=int, metavar="N", help="run in so many processes of this machine")
    parser.add_argument(
        "--resource", action="append", default=[], metavar="NAME=AMOUNT", help="a job takes it of its worker: GPU=1"
    )
    parser.add_argument("--retries", type=int, default=2, help="further attempts for a job that fails (default: 2)")
    parser.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")


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
    resources = settings(args.resource) or None
    given.read({"--resource": resources}, **{"--resource": given.RULES["resources"]})
    try:
        with _cluster(args) as client:
            if client is None:
                jobs = builder(*arguments, **options)
            else:
                jobs = made(client, builder, *arguments, resources=resources, **options)
            return sweep.run(jobs, args.out, client, retries=args.retries, resources=resources)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with what is missing") from None


@contextmanager
def _cluster(args) -> Iterator:
    """A client of the cluster that was asked for, None for this process."""
    if args.scheduler and args.workers is not None:
        raise ValueError("--scheduler and --workers name two clusters: give one of them.")
    if args.scheduler:
        with connecting.connected(args.scheduler) as client:
            yield client
    elif args.workers is not None:
        with connecting.local(args.workers) as cluster, connecting.connected(cluster) as client:
            yield client
    else:
        yield None


def _failed(results) -> int:
    """1 where jobs failed, one line on stderr for each; else 0."""
    for line in results.report().splitlines():
        print(f"lens: {line}", file=sys.stderr)
    return 1 if results.failed else 0
