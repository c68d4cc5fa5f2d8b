"""How many edits does a model bear?  One on top of another, measured after the first, the third, the tenth, …

Each edit is computed on the model that the edits before it have left; an editor that takes the ``earlier`` requests is
given them.  Its factors are added to the weights and thrown
away; what is kept is one copy of each weight from before its first change, so that a hundred edits of one matrix cost
no more memory than one, and the end puts every weight back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean

import torch
from tqdm.auto import tqdm

from lens.data.records import check_records
from lens.edit.edit import Edit
from lens.evaluate.editors import Editor, remembers, resolve
from lens.evaluate.perplexity import Perplexity, sample
from lens.evaluate.prompts import SHARES, Case, shares
from lens.given import door, several, whole
from lens.model import LanguageModel
from lens.model.weights import Written


@door(at=lambda name, value: several(name, value, "a number of edits", lambda item: True))
def sequential(
    lm: LanguageModel,
    records: Sequence[Mapping],
    editor: Editor,
    at: Iterable[int] = (1, 3, 10, 30, 100),
    *,
    settings: Mapping | None = None,
    perplexity: bool = True,
    texts: Sequence[str] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Apply the records' edits one on top of another, and measure after each count in ``at``.

    Gives one dict per count: ``edits``; the six shares of ``lens.evaluate.prompts`` as means over all edits so far
    ("paraphrase_accuracy", …); the efficacy and paraphrase of the latest edit alone ("latest_paraphrase_accuracy", …);
    ``perplexity`` of ``texts``.  The first, with ``edits`` 0, is the unedited model on all the records that are edited
    later, the first ``max(at)``.  The arguments are those of ``counterfact``.

    The model is bit for bit as before at the end, also where an editor raises or Ctrl-C is pressed.  Raises
    ``ValueError`` where ``at`` counts more edits than there are records, and what the editor raises.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> steps = sequential(lm, lens.data.records("validation"), "shift", at=(1, 2), perplexity=False, progress=False)
    >>> [step["edits"] for step in steps], steps[0]["efficacy_accuracy"]
    ([0, 1, 2], 0.0)
    """
    counts = sorted({whole("an item of at", count) for count in at})
    if not counts or counts[0] < 1 or counts[-1] > len(records):
        raise ValueError(f"There are {len(records)} records and at is {counts}: give counts from 1 to {len(records)}.")
    name, _, make = resolve(lm, editor, settings)
    remembering = remembers(editor) and "earlier" not in (settings or {})
    cases = [Case.of(lm, record) for record in check_records(records[: counts[-1]])]
    texts = (sample(lm) if texts is None else tuple(texts)) if perplexity else ()

    def measure(done: int) -> dict:
        so_far = shares(lm, cases[:done] or cases)
        step = {"edits": done} | {key: _mean(one[key] for one in so_far) for key in SHARES}
        if done:
            latest = {k: v for k, v in so_far[-1].items() if not k.startswith("neighborhood")}
            step |= {f"latest_{key}": value for key, value in latest.items()}
        return step | ({"perplexity": Perplexity(lm, texts)()} if perplexity else {})

    with lm.weights.block(f"edits one on top of another by {name}") as written:
        steps = [measure(0)]
        for done, case in enumerate(tqdm(cases, unit="edit", desc=name, disable=not progress), 1):
            earlier = {"earlier": [one.request for one in cases[: done - 1]]} if remembering else {}
            _write(lm, make(case.request, **earlier), written)
            if done in counts:
                steps.append(measure(done))
        return steps


@torch.no_grad()
def _write(lm: LanguageModel, edit: Edit, written: Written) -> None:
    """Add an edit to the weights; what each weight held is kept when it is first touched."""
    for change in edit.changes:
        parameter, weight = lm.site(change.layer, change.site).weight, change.weight(lm)
        if id(parameter) not in written.parameters:
            lm.weights.claim(written, parameter)
            written.restore.append(partial(parameter.copy_, parameter.detach().clone()))
        change.add_to(weight)
    lm.weights.wrote(written)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
