"""Which chapter needs which? The graph that the chapters' own header tables describe, as a picture and as a table.

`links` reads the rows *Needed* and *Helpful*; `levels` puts every chapter below all that it needs; `draw` makes an
SVG that takes its colors from the page, so that it follows dark mode. An arrow that follows from others is left out.
"""
import re
from graphlib import CycleError, TopologicalSorter
from html import escape
from textwrap import wrap

from notebooks import NotebookError, short_title

WIDTH, HEIGHT, GAP, RISE = 158, 44, 16, 34  # of a box, and between boxes
LETTERS = 20  # of a line in a box


def links(nb, row):
    """The chapters that a row of the header table (*Needed*, *Helpful*) links to."""
    found = re.search(rf"(?m)^\| {row} \|(.*)\|$", nb.cells[0].source)
    return re.findall(r"\]\((\w+)\.ipynb\)", found[1]) if found else []


def needed(chapters):
    """{name: the chapters it needs}; `NotebookError` if one is unknown, or if they need each other in a circle."""
    graph = {name: links(nb, "Needed") for name, nb in chapters.items()}
    for name, before in graph.items():
        for other in set(before) - set(graph):
            raise NotebookError(f"{name}.ipynb says that it needs {other}.ipynb, which is no chapter of _toc.yml; "
                                "correct its row 'Needed'.")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise NotebookError(f"chapters need each other in a circle: {' → '.join(error.args[1])}; drop one of these "
                            "from a row 'Needed'.") from None
    return graph


def levels(graph):
    """{name: how many chapters must be read before it, one after another}."""
    level = {}
    for name in TopologicalSorter(graph).static_order():
        level[name] = 1 + max((level[other] for other in graph[name]), default=-1)
    return level


def arrows(graph):
    """Pairs (before, after), without those that follow from others."""
    above = {}
    for name in TopologicalSorter(graph).static_order():
        above[name] = set(graph[name]).union(*(above[other] for other in graph[name]))
    return [(before, name) for name in graph for before in dict.fromkeys(graph[name])
            if not any(before in above[other] for other in graph[name])]


def place(graph):
    """{name: (column, level)}: a level is a row, whose chapters stand below what they need and do not overlap."""
    level, parents = levels(graph), {}
    for before, name in arrows(graph):
        parents.setdefault(name, []).append(before)
    rows = [[name for name in graph if level[name] == row] for row in range(max(level.values()) + 1)]
    column = {}
    for row, names in enumerate(rows):
        wish = {name: sum(column[other] for other in parents.get(name, [])) / max(1, len(parents.get(name, [])))
                for name in names}
        names.sort(key=wish.get)
        middle = sum(wish.values()) / len(names) - (len(names) - 1) / 2
        column.update({name: middle + number for number, name in enumerate(names)})
    left = min(column.values())
    return {name: (column[name] - left, level[name]) for name in graph}


def draw(chapters):
    """The graph as inline SVG: a box with a link for each chapter, an arrow to each chapter from what it needs."""
    graph = needed(chapters)
    places = place(graph).items()
    spot = {name: (round(column * (WIDTH + GAP)), row * (HEIGHT + RISE)) for name, (column, row) in places}
    width = max(x for x, _ in spot.values()) + WIDTH + 2
    height = max(y for _, y in spot.values()) + HEIGHT + 2
    parts = [f'<div class="prerequisites"><svg viewBox="-1 -1 {width} {height}" width="{width}" role="group" '
             'aria-label="Prerequisites: an arrow leads from each chapter to those that need it; the table below says '
             'the same.">',
             '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
             'orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>']
    for before, name in arrows(graph):
        (x1, y1), (x2, y2) = spot[before], spot[name]
        x1, x2, y1 = x1 + WIDTH // 2, x2 + WIDTH // 2, y1 + HEIGHT
        bend = RISE * 0.6
        parts.append(f'<path class="arrow" marker-end="url(#tip)" '
                     f'd="M{x1} {y1}C{x1} {y1 + bend:.0f} {x2} {y2 - bend:.0f} {x2} {y2}"/>')
    for name, (x, y) in spot.items():
        lines = wrap(short_title(chapters[name]), LETTERS, break_on_hyphens=False)
        first = y + HEIGHT / 2 + 5 - 8 * (len(lines) - 1)
        text = "".join(f'<tspan x="{x + WIDTH // 2}" y="{first + 16 * number:.0f}">{escape(line)}</tspan>'
                       for number, line in enumerate(lines))
        parts.append(f'<a href="{name}.html"><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
                     f"<text>{text}</text></a>")
    return "\n".join([*parts, "</svg></div>"])


def table(chapters):
    """The same as a Markdown table, with what is helpful beside what is needed."""
    def names(nb, row):
        known = [name for name in links(nb, row) if name in chapters]
        return ", ".join(f"[{short_title(chapters[name])}]({name}.ipynb)" for name in known) or "–"
    rows = ["| chapter | needs | helpful |", "|---|---|---|"]
    rows += [f"| [{short_title(nb)}]({name}.ipynb) | {names(nb, 'Needed')} | {names(nb, 'Helpful')} |"
             for name, nb in chapters.items()]
    return "\n".join(rows)
