"""What do the chapters claim, and on which model does it hold?

A cell that calls `lens.claim` carries the claim in its output (`lens.course.claims`). From the executed chapters the
claims are collected here: for the page "What carries over", beside those of the other editions, and, on demand, as the
result file of this edition.
"""
import json
from dataclasses import asdict
from datetime import datetime, timezone

import torch
from execute import MINI, ROOT, BuildError, write

from lens.course.claims import MIME, VERDICTS, Claim, Table, edition
from lens.data import manifest, paths
from lens.model import pretrained
from lens.results.provenance import provenance

FILES = ROOT / "data" / "claims"


def check_model(model):
    """An edition's model must be there before anything runs."""
    if model in paths.FETCHED:
        try:
            pretrained.find(model)
        except OSError as error:
            raise BuildError(str(error)) from None


def collected(chapters):
    """{(chapter, name): Claim} of executed chapters, in the book's order."""
    found = {}
    for chapter, notebook in chapters.items():
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if MIME in output.get("data", {}):
                    one = Claim(**output.data[MIME])
                    if one.chapter != chapter or (chapter, one.name) in found:
                        raise BuildError(f"{chapter} records the claim {one.name!r} twice, or for {one.chapter}.")
                    found[chapter, one.name] = one
    return found


def ship(chapters, model):
    """Write the claims of this edition to `data/claims/`, with what made them; the file's path."""
    chapters = {name: notebook for name, notebook in chapters.items() if notebook.metadata.lens_book.model == model}
    made = provenance(torch.device("cpu")) | {"command": f"python book/build.py --model {model} --ship"}
    made |= {"model": model, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d")}
    made["seconds"] = {name: notebook.metadata.lens_book.seconds for name, notebook in chapters.items()}
    file = FILES / f"{model}.json"
    rows = [asdict(one) for one in collected(chapters).values()]
    write(file, json.dumps(made | {"claims": rows}, indent=1, ensure_ascii=False) + "\n")
    manifest.write()
    return file


def page(chapters, model):
    """The tables of "What carries over": one a chapter, the paper's figure and each model's in columns."""
    columns = {name: edition(name) for name in (MINI, *paths.FETCHED)}
    ran = {name: notebook for name, notebook in chapters.items() if notebook.metadata.lens_book.model == model}
    columns[model] = collected(ran)
    counts = ["| model | " + " | ".join(VERDICTS) + " |", "|---|" + "---|" * len(VERDICTS)]
    keys = list(dict.fromkeys(key for claims in columns.values() for key in claims))
    for name, claims in columns.items():
        said = [claims[key].verdict if key in claims else "not tested" for key in keys]
        counts.append(f"| {name} | " + " | ".join(str(said.count(verdict)) for verdict in VERDICTS) + " |")
    parts = ["\n".join(counts)]
    for chapter, notebook in chapters.items():
        mine = {name: {k: c for k, c in claims.items() if k[0] == chapter} for name, claims in columns.items()}
        if any(mine.values()):
            title = next(cell.source for cell in notebook.cells).splitlines()[0].lstrip("# ")
            parts.append(f"## [{title}]({chapter}.ipynb)\n\n{Table(mine)}")
    return "\n\n".join(parts)


def slides(chapter, notebook):
    """HTML that the chapter's page holds for its lecture mode (`_static/lecture.js`): each claim as words and bars."""
    rows = []
    for one in collected({chapter: notebook}).values():
        value, _, control = one.numbers.partition("; control ")
        ends = [abs(number) for number in (one.value, one.control or 0, *(one.interval or ()))]
        top = max(1 if one.form.endswith("%") else 0, *ends) or 1
        rows.append({"says": one.says, "measure": one.measure + one.where, "count": one.n, "verdict": one.verdict, "value": value,
                     "control": control or None, "shares": [abs(one.value) / top, abs(one.control or 0) / top]})
    held = json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")
    return f'```{{raw}} html\n<script type="application/json" class="lens-claims">{held}</script>\n```' if rows else ""


def under_the_title(text, model, ran_on):
    """The first cell of a chapter of an edition, with a note that says whose numbers these are."""
    title, _, rest = text.partition("\n")
    note = (f"This is the edition on `{model}`: every number and figure below was made by that model. The text between "
            f"them was written for `{MINI}` and may describe its results.")
    if ran_on != model:
        note = (f"This is the edition on `{model}`, and this chapter does not run on that model yet: every number and "
                f"figure below was made by `{ran_on}`.")
    return f"{title}\n\n:::{{admonition}} Another model\n{note}\n:::\n{rest}"
