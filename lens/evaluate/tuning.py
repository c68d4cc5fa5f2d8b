"""Which hyperparameters should an editor use on this model?  A grid, on records that no result is reported on.

score = harmonic mean of efficacy, paraphrase and neighborhood (accuracy),   best: the largest score
                                                               among settings with efficacy ≥ floor
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import product

from tqdm.auto import tqdm

from lens.data.paths import entry_name, table
from lens.evaluate.counterfact import counterfact
from lens.evaluate.prompts import MEASURES, SHARES
from lens.given import door
from lens.model import LanguageModel
from lens.results import markdown


def grid(lm: LanguageModel, editor: str) -> dict[str, list]:
    """The values of each hyperparameter to try: ``data/editors.json``, under the editor, "grid", and the model's name.

    >>> import lens
    >>> grid(lens.load("mini"), "shift")["layer"]
    [4, 5, 6, 7]
    """
    name = entry_name(lm.name)
    found = table("editors.json").get(editor, {}).get("grid", {}).get(name)
    if not found:
        raise ValueError(
            f"data/editors.json has no grid of {editor!r} for {name!r}: add one, such as "
            '"grid": {"mini": {"layer": [4, 5], "eta": [0.2, 0.4]}}.'
        )
    return deepcopy(found)


@door
def grid_search(
    lm: LanguageModel,
    records: Sequence[Mapping],
    editor: str,
    *,
    values: Mapping[str, Sequence] | None = None,
    settings: Mapping | None = None,
    progress: bool = True,
    each: Callable[[list[dict]], None] | None = None,
    **options,
) -> list[dict]:
    """Evaluate every combination of ``values`` (default: ``grid``) and give one dict each, in the grid's order.

    A dict holds the combination, the means of the six shares, ``score`` (None where a mean of the three is missing),
    and ``cases`` and ``errors``.  ``settings``
    are the same for all; ``options`` go to ``counterfact``; ``each`` is called with the results so far after each.
    Raises ``ValueError`` for a setting that the grid varies.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> few = lens.data.records("validation")[:4]
    >>> results = grid_search(lm, few, "shift", values={"eta": [0.1, 0.8]}, progress=False)
    >>> [result["eta"] for result in results]
    [0.1, 0.8]
    """
    values = grid(lm, editor) if values is None else values
    if both := sorted(values.keys() & (settings or {}).keys()):
        raise ValueError(
            f"The grid of {editor} tries its own values of {both[0]}: leave {both[0]} out of the settings."
        )
    results: list[dict] = []
    combinations = list(product(*values.values()))
    for combination in tqdm(combinations, unit="setting", desc=editor, disable=not progress):
        chosen = dict(zip(values, combination))
        both = {**(settings or {}), **chosen}
        report = counterfact(
            lm, records, editor, settings=both, entropy=False, perplexity=False, progress=False, **options
        )
        summary = report.summary()
        means = {name: summary[name].mean if name in summary else None for name in SHARES}
        counts = {key: summary[key] for key in ("cases", "errors")}
        score = None if any(means[f"{m}_accuracy"] is None for m in MEASURES) else report.harmonic_mean()
        results.append(chosen | means | {"score": score} | counts)
        if each:
            each(results)
    return results


@door
def best(results: Sequence[Mapping], floor: float = 0.0) -> Mapping | None:
    """The result of the largest score among those whose efficacy accuracy is at least ``floor``; None where none is.

    Records that failed count as 0 in both.  Raises ``ValueError`` where no result has a score.

    >>> best([{"efficacy_accuracy": 0.9, "score": 0.8}, {"efficacy_accuracy": 1.0, "score": 0.7}], floor=0.95)["score"]
    0.7
    """

    def of_all(result: Mapping, name: str) -> float:
        return result[name] * (1 - result["errors"] / result["cases"] if result.get("cases") else 1)

    scored = [result for result in results if result["score"] is not None]
    if results and not scored:
        raise ValueError(
            "No setting has a score: every record failed, or none has prompts of all three kinds; see 'errors'."
        )
    enough = [result for result in scored if of_all(result, "efficacy_accuracy") >= floor]
    return max(enough, key=lambda result: of_all(result, "score"), default=None)


def as_table(results: Sequence[Mapping]) -> str:
    """The results as a Markdown table."""
    cells = [
        [f"{v:.4g}" if isinstance(v, float) else "-" if v is None else str(v) for v in r.values()] for r in results
    ]
    return markdown.table([[key.replace("_", " ") for key in results[0]], *cells])
