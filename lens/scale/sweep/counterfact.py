"""How is CounterFact run on many workers?  A job for each editor and each shard of the records; all make one report.

Records that are evaluated in one batch stay in one shard.  The report is thereby, bit for bit (but for the seconds that
the edits took), that of one run over all records with the same ``together``, on the same kind of machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path

from lens import data, evaluate
from lens.data.records import SPLITS
from lens.evaluate.counterfact import fitting
from lens.evaluate.editors import resolve
from lens.evaluate.report import Report
from lens.evaluate.rows import Row
from lens.evaluate.run_file import IDENTITY
from lens.given import door, path
from lens.scale.sweep.job import Job
from lens.scale.sweep.models import check_same, digest, opened, place_of
from lens.scale.sweep.results import Outcome


@door(device=None, records=path)
def counterfact_jobs(
    model: str = "mini",
    editors: str | Sequence[str] = ("shift",),
    records: str | Path = "test",
    shards: int = 8,
    *,
    limit: int | None = None,
    settings: Mapping[str, Mapping] | None = None,
    together: int | None = None,
    entropy: bool = True,
    perplexity: bool = True,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
) -> list[Job]:
    """At most ``shards`` jobs for each editor, over ``records``: "test", "validation", or a counterfact.json.

    A job does what ``lens.evaluate.counterfact`` does with its shard, and goes on from the last rows that an earlier
    attempt wrote.  ``settings``: editor → hyperparameters.  ``limit``: only the first so many records.  ``together``
    records are evaluated in one batch (default: as many as fit the memory here, of at most 64, so that shards are of
    one size).  Give the results to ``reports``.  The model is opened here, for its fingerprint.

    Raises ``ValueError`` for an editor, a setting or records that do not exist.

    >>> [job.name for job in counterfact_jobs("mini", ["shift", "none"], shards=2)]
    ['shift-0', 'shift-1', 'none-0', 'none-1']
    """
    settings, editors = settings or {}, [editors] if isinstance(editors, str) else list(editors)
    if unused := [editor for editor in settings if editor not in editors]:
        raise ValueError(f"There are settings for {unused[0]!r}, which is none of the editors {', '.join(editors)}.")
    where = {"model": place_of(model), "device": device, "dtype": dtype}
    records = records if records in SPLITS else place_of(records)
    chosen = _records(records)[:limit]
    count = len(chosen)
    with opened(**where) as lm:
        where["fingerprint"] = lm.fingerprint
        resolved = {editor: resolve(lm, editor, settings.get(editor))[1] for editor in editors}
        if together is None:
            size = ceil(count / shards)
            together = ceil(size / ceil(size / fitting(lm)))
    size = ceil(ceil(count / together) / shards) * together
    options = {"together": together, "entropy": entropy, "perplexity": perplexity, "seed": seed}
    jobs = []
    for editor in editors:
        known = where | {"editor": editor, "records": records}
        known |= {"hyperparameters": json.loads(json.dumps(resolved[editor], default=str))}
        known |= {"options": options | {"settings": dict(settings.get(editor, {}))}}
        for number, first in enumerate(range(0, count, size)):
            end = min(first + size, count)
            shard = {"first": first, "end": end, "digest": digest(chosen[first:end])}
            jobs.append(Job(f"{editor}-{number}", f"{__name__}:edit_and_measure", known | shard))
    return jobs


def edit_and_measure(folder: Path, *, editor, records, first, end, digest, hyperparameters, options, **where) -> dict:
    """One job of ``counterfact_jobs``; ``folder`` keeps the rows as they are made."""
    shard = _records(records)[first:end]
    check_same(shard, digest, records)
    with opened(**where) as lm:
        report = evaluate.counterfact(lm, shard, editor, out=folder / "rows.jsonl", progress=False, **options)
    return {"header": report.header, "rows": [{"editor": editor} | asdict(row) for row in report.rows]}


def reports(outcomes: Iterable[Outcome]) -> dict[str, Report]:
    """A ``Report`` for each editor, of the rows of all its shards: what ``lens.evaluate.counterfact`` gives at once.

    A shard that failed is missing; the report's count of cases says so.  Raises ``ValueError`` where two shards of an
    editor were made with other models, settings, seeds or options.
    """
    found: dict[str, Report] = {}
    for outcome in outcomes:
        if outcome.error:
            continue
        header = outcome.value["header"]
        rows = tuple(Row(**{k: v for k, v in row.items() if k != "editor"}) for row in outcome.value["rows"])
        before = found.setdefault(header["editor"], Report(header, ()))
        for key, what in IDENTITY.items():
            if before.header[key] != header[key]:
                raise ValueError(f"The shard {outcome.job.name} was made with {what} than the first of its editor.")
        found[header["editor"]] = Report(before.header, before.rows + rows)
    return found


def _records(name: str) -> Sequence[dict]:
    return data.records(name) if name in SPLITS else data.load_records(name)
