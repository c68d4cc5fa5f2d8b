"""How good is an editor?  CounterFact's measures, record by record, for one editor on one model.

Edits are made one after another, each of the unedited model, and evaluated side by side: their factors run as branches
of one batch, so the weights are never written.  An edit without factors (fine-tuning's dense ΔW) is put into the model
and evaluated alone, by the same code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

import torch
from tqdm.auto import tqdm

from lens.data.records import check_records
from lens.edit.branch import thin
from lens.edit.edit import Edit
from lens.evaluate.editors import Editor, resolve
from lens.evaluate.entropy import ngram_entropy
from lens.evaluate.perplexity import Perplexity, sample
from lens.evaluate.prompts import Case, shares
from lens.evaluate.report import Report
from lens.evaluate.rows import Row
from lens.evaluate.run_file import FORMAT, RunFile, digest
from lens.given import door
from lens.kernels import Key
from lens.model import LanguageModel
from lens.results.damaged import full
from lens.results.lock import held_alone
from lens.results.provenance import provenance
from lens.results.sentence import sentence

KEPT = {"cpu": 1 << 30, "cuda": 1 << 32}
"""Bytes of keys and values held at one time while texts are sampled."""

TEXTS = 10
"""Generation prompts of a record, as CounterFact has them."""


@door
@held_alone("out")
def counterfact(
    lm: LanguageModel,
    records: Sequence[Mapping],
    editor: Editor,
    *,
    settings: Mapping | None = None,
    out: str | Path | None = None,
    together: int | None = None,
    entropy: bool = True,
    perplexity: bool = True,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Report:
    """Edit the model with each record in turn and measure what that did; a ``Report`` of one row per record.

    ``records``: CounterFact's (``lens.data.records()``, ``lens.data.load_records(path)``).  ``editor``: a name such as
    "shift", "none" for the unedited model, or a function ``(lm, request, **settings) -> Edit``; ``settings`` overrides
    its hyperparameters.  A row holds the shares of ``lens.evaluate.prompts``, the n-gram entropy of text sampled behind
    the generation prompts (``entropy``), and the perplexity of ``texts`` (default: about 1,000 held-out tokens) under
    the edited model (``perplexity``).  ``seed`` is that of the sampling.  ``together`` records are evaluated in one
    batch (default: up to 64, as fit the memory that ``KEPT`` allows); it changes results by no more than rounding.

    ``out``: a file that rows are added to as they are made.  Run again with the same file, the records in it are
    skipped, but for those that failed; it is refused with ``ValueError`` where it was made with another model, editor,
    seed, other settings or records, and so is a lambda, which has no name to be known by.  What goes wrong with one
    record (a subject that is not in its prompt, say) is its row's ``error``; memory running out and Ctrl-C end the run.
    The model's weights are afterwards what they were, bit for bit.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> report = counterfact(lm, lens.data.records()[:4], "shift", entropy=False, progress=False)
    >>> report.summary()["efficacy_accuracy"].count
    4
    """
    together = fitting(lm) if together is None else together
    if together < 1:
        raise ValueError(f"together is {together}: at least one record is evaluated at a time.")
    seed = Key(seed).check().seed
    records = check_records(records)
    name, chosen, make = resolve(lm, editor, settings)
    if out is not None and name == "<lambda>":
        raise ValueError("A run file knows its editor by name, and a lambda has none: give a function made with def.")
    texts = (tuple(texts) if texts is not None else sample(lm)) if perplexity else None
    # The words on where an editor's settings are from decide nothing.
    source = {"source": chosen.pop("source")} if isinstance(editor, str) and "source" in chosen else {}
    header = {
        "format": FORMAT,
        "model": lm.name,
        "fingerprint": lm.weights.current_fingerprint,
        "editor": name,
        "settings": json.loads(json.dumps(chosen, default=_named)),
        **source,
        "seed": seed,
        "options": {"entropy": entropy, "perplexity": digest(texts) if texts else None},
        "together": together,
        "dtype": str(lm.dtype),
        "device": str(lm.device),
        **provenance(lm.device),
    }
    measure = _Measure(lm, make, Perplexity(lm, texts) if perplexity else None, entropy, seed)
    run = RunFile(out, header) if out is not None else None
    rows = run.rows if run else {}
    for record in records:
        _same(rows.get(record["case_id"]), record, out)
    rows = {case: row for case, row in rows.items() if not row.error}
    with tqdm(total=len(records), unit="record", desc=name, disable=not progress) as bar:
        for start in range(0, len(records), together):
            group = records[start : start + together]
            missing = [record for record in group if record["case_id"] not in rows]
            if missing:
                new = measure(missing)
                if run:
                    run.append(new)
                rows |= {row.case_id: row for row in new}
            bar.update(len(group))
    return Report(header, tuple(rows[record["case_id"]] for record in records))


def fitting(lm: LanguageModel) -> int:
    """How many records to evaluate at a time: 64, or as many as keep the keys and values of their texts in ``KEPT``."""
    from lens.evaluate.generation import LENGTH

    token = 2 * len(lm.layers) * lm.width * lm.dtype.itemsize
    kept = KEPT["cpu" if lm.device.type == "cpu" else "cuda"]
    return max(1, min(64, kept // (TEXTS * LENGTH * token)))


class _Measure:
    """Makes the edits of some records and evaluates them together."""

    def __init__(self, lm, make, perplexity: Perplexity | None, entropy: bool, seed: int):
        self._lm, self._make, self._perplexity, self._entropy, self._seed = lm, make, perplexity, entropy, seed

    def __call__(self, records: Sequence[Mapping]) -> list[Row]:
        rows: dict[int, Row] = {}
        group: list[tuple[Mapping, Case, Edit]] = []
        for record in records:
            with _noted(record, rows):
                case = Case.of(self._lm, record)
                edit = self._make(case.request)
                if thin(self._lm, edit.changes):
                    group.append((record, case, edit))
                else:
                    with edit:
                        rows[case.case_id] = self._evaluate([case], [edit], False)[0]
        try:
            found = self._evaluate([case for _, case, _ in group], [edit for *_, edit in group], True) if group else ()
            rows, group = rows | {row.case_id: row for row in found}, []
        except Exception as error:
            if full(error):
                raise
        for record, case, edit in group:  # one of them spoiled it for all: each alone
            with _noted(record, rows):
                rows[case.case_id] = self._evaluate([case], [edit], True)[0]
        return [replace(rows[record["case_id"]], record=_asks(record)) for record in records]

    def _evaluate(self, cases: list[Case], edits: list[Edit], branching: bool) -> list[Row]:
        """Rows of cases whose edits run as branches, or of one whose edit is in the weights."""
        changes = [edit.changes for edit in edits] if branching else None
        found = shares(self._lm, cases, changes)
        entropies = self._entropies(cases, changes) if self._entropy else [None] * len(cases)
        perplexities = [self._perplexity_of(edit, branching) if self._perplexity else None for edit in edits]
        names = [(case.case_id, case.request.subject, case.request.target_new) for case in cases]
        return [
            Row(*name, **share, entropy=h, perplexity=ppl, seconds=edit.seconds, note=edit.note)
            for name, edit, share, h, ppl in zip(names, edits, found, entropies, perplexities)
        ]

    def _entropies(self, cases: list[Case], changes: list | None) -> list[float | None]:
        from lens.evaluate.generation import continuations

        rows = [i for i, case in enumerate(cases) for _ in case.generation]
        prompts = [prompt for case in cases for prompt in case.generation]
        texts = continuations(
            self._lm, prompts, [cases[i].case_id for i in rows], edits=changes, rows=rows, seed=self._seed
        )
        return [ngram_entropy([text for i, text in zip(rows, texts) if i == k]) for k in range(len(cases))]

    @cached_property
    def _unedited(self) -> float:
        return self._perplexity()

    def _perplexity_of(self, edit: Edit, branching: bool) -> float:
        if not edit.changes:
            return self._unedited
        if branching:
            return self._perplexity(edit.changes)
        return self._perplexity(lowest=min(c.layer % len(self._lm.layers) for c in edit.changes))


@contextmanager
def _noted(record: Mapping, rows: dict[int, Row]) -> Iterator[None]:
    """What goes wrong inside the block is the ``error`` of the record's row, unless memory ran out."""
    try:
        yield
    except Exception as error:
        if full(error):
            raise
        rows[record["case_id"]] = Row(*_identity(record), error=sentence(error))


def _named(value: object) -> object:
    """What a setting is, where JSON has none: its fields, a digest of its numbers, or words, without its place in
    memory, which differs between processes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "__array__"):
        held = torch.as_tensor(value).detach().cpu()
        if held.ndim == 0:
            return held.item()
        numbers = sha256(held.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        return f"{held.dtype} {list(held.shape)} {numbers.hexdigest()}"
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _identity(record: Mapping) -> tuple[int, str, str]:
    rewrite = record["requested_rewrite"]
    return record["case_id"], *(normalize("NFC", text) for text in (rewrite["subject"], rewrite["target_new"]["str"]))


def _asks(record: Mapping) -> str:
    """A digest of all that a record asks."""
    return sha256(json.dumps({**record, "case_id": None}, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _same(row: Row | None, record: Mapping, out) -> None:
    """``ValueError`` where a row in the file has this record's case_id and is about something else."""
    case, subject, target = _identity(record)
    if row is not None and (row.subject, row.target_new) != (subject, target):
        raise ValueError(
            f"Case {case} in {out} is {row.subject!r} → {row.target_new!r}, and now it is {subject!r} → {target!r}: "
            "the run was made with other records, so give another file."
        )
    if row is not None and row.record not in (None, _asks(record)):
        raise ValueError(
            f"Case {case} in {out}, {subject!r} → {target!r}, was asked with other prompts or another true answer: the "
            "run was made with other records, so give another file."
        )
