"""How does a folder of notebooks become the book?

    python book/build.py [--force] [--model NAME] [--ship]

1. `execute.py` runs each chapter of `_toc.yml`, or reuses its executed copy (--force, CI or LENS_AGAIN: never).
   With --model, on another model, for an edition beside the book; with --ship, what the chapters claim is kept as a
   result file in `data/claims/`, for the other editions.
2. The executed chapters, the Markdown pages and the style are staged in `book/_build/source/`, where
   exercises get their folded solutions (`notebooks.py`), the landing page its cards (`landing.py`), the status
   page its measured times, the teaching notes their graph (`graph.py`) and table of exercises, the API reference its
   names (`api.py`), "What carries over" the chapters' claims (`claims.py`), and the landing
   page its explorer (`first.py`); beside the pages lies the model that they can run.
3. jupyter-book turns them into HTML with execution off and every warning an error.
"""
import argparse
import base64
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from errno import EACCES, ENOSPC, EROFS
from importlib.metadata import version

import api
import claims
import excerpts
import first
import graph
import landing
import nbformat
import reading
import yaml
from address import AddressError, read_address
from course import points_table
from execute import BOOK, MINI, ROOT, BuildError, execute_all, folder_of, processors, write
from notebooks import NotebookError, heading_and_claim, page, read, student

CITATION = re.compile(r"\[([^\]]+)\]\(bibliography\.md#([\w:-]+)\)")
# Left out of every page: thebe, which would be fetched from the network, font preloads, which browsers
# refuse in local files, the role of a list on a bibliography whose entries are no list items, and the name of
# what unfolds, which says less than its text.
UNWANTED = re.compile(r'(?s)<link rel="preload"[^>]*crossorigin[^>]*>\s*|<link [^>]*sphinx-thebe\.css[^>]*>\s*|'
                      r'<script[^>]*sphinx-thebe\.js[^>]*></script>\s*|<script>const THEBE_JS_URL.*?</script>\s*|'
                      r'<script type="text/x-thebe-config">.*?</script>\s*|'
                      r'(?<=<div )role="list" (?=class="citation-list")|'
                      r'(?<=<summary) aria-label="Toggle hidden content"(?=>)')
# Colab opens the chapters without solutions, which .github/workflows/book.yml puts on a branch of their own.
COLAB = re.compile(r"(colab\.research\.google\.com/github/[^/\"]+/[^/\"]+)/blob/main/book/")
PACKAGES = ["torch", "transformers", "numpy", "matplotlib", "jupyter-book", "sphinx"]


def pages(toc):
    """Names of all pages of the table of contents, in order."""
    return [toc["root"]] + [entry["file"] for part in toc["parts"] for entry in part["chapters"]]


def check_sources(names):
    for name in names:
        if not any((BOOK / f"{name}{suffix}").exists() for suffix in (".ipynb", ".md")):
            raise BuildError(f"_toc.yml names {name}, but there is neither book/{name}.ipynb nor book/{name}.md.")


def machine():
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {processors()} cores"


def status_table(executed):
    rows = ["| chapter | run time | code cells | executed | in this build |", "|---|---|---|---|---|"]
    for name, (notebook, reused) in executed.items():
        run = notebook.metadata.lens_book
        title, _ = heading_and_claim(notebook)
        origin = "reused" if reused else "run"
        rows.append(f"| [{title}]({name}.ipynb) | {run.seconds:.1f} s | {run.cells} | {run.executed} | {origin} |")
    total = sum(notebook.metadata.lens_book.seconds for notebook, _ in executed.values())
    cells = sum(notebook.metadata.lens_book.cells for notebook, _ in executed.values())
    rows.append(f"| all chapters | {total:.1f} s | {cells} | | |")
    facts = [("machine", machine()), ("system", platform.platform(terse=True)), ("Python", platform.python_version())]
    facts += [(name, version(name)) for name in PACKAGES]
    facts += [("built", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))]
    rows += ["", "| built with | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    return "\n".join(rows)


def link_citations(text, keys):
    """Plain links to bibliography.md#key point to that entry of the built page."""
    def link(match):
        if match[2] not in keys:
            raise BuildError(f"a text cites bibliography.md#{match[2]}, but references.bib has no entry {match[2]}.")
        return f'<a class="citation" href="bibliography.html#{match[2]}">{match[1]}</a>'
    return CITATION.sub(link, text)


def finished(html):
    """A page without what is unwanted; Colab opens the student's notebook; each figure says its own width."""
    def sized(match):
        wide = " data-wide" if int(match[2]) > 400 else ""  # wider than a phone shows with legible text
        return f'<img{wide} {match[1]}style="--width: {match[2]}px; width: {match[2]}px;'
    html = COLAB.sub(r"\1/blob/notebooks/", UNWANTED.sub("", html))
    return re.sub(r'<img ([^>]*)style="width: (\d+)px;', sized, html)


def offer(html, name, text):
    """Let the page's own link and the theme's button download a notebook: from a folder, a browser only shows a file."""
    write(html / "_sources" / f"{name}.ipynb", text)
    page, held = html / f"{name}.html", base64.b64encode(text.encode()).decode()
    link = f'href="data:application/x-ipynb+json;base64,{held}" download="{name}.ipynb"'
    write(page, page.read_text(encoding="utf-8").replace(f'href="_sources/{name}.ipynb"', link))


def stage(toc, executed, model):
    """Everything jupyter-book reads, in one generated folder."""
    source = folder_of(model) / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    keys = set(re.findall(r"(?m)^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text(encoding="utf-8")))
    chapters = {name: notebook for name, (notebook, _) in executed.items()}
    tables = {"<!-- cards of chapters -->": landing.cards(toc, executed, source / "cards"),
              "<!-- table of run times -->": status_table(executed),
              "<!-- table of reading -->": reading.table(chapters),
              "<!-- graph of chapters -->": graph.draw(chapters),
              "<!-- table of prerequisites -->": graph.table(chapters),
              "<!-- table of exercises -->": points_table(chapters),
              "<!-- reference of the package -->": api.reference(),
              "<!-- table of claims -->": claims.page(chapters, model),
              "<!-- first explorer -->": first.explorer()}
    for name in pages(toc):
        if name in executed:
            notebook = page(chapters[name], download=f"_sources/{name}.ipynb")
            notebook.cells[0].source += "\n\n" + claims.slides(name, chapters[name])
            if model != MINI:
                ran_on = chapters[name].metadata.lens_book.model
                notebook.cells[0].source = claims.under_the_title(notebook.cells[0].source, model, ran_on)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    for output in cell.outputs:  # the page shows a claim's sentence; its data was collected
                        output.get("data", {}).pop(claims.MIME, None)
                else:
                    cell.source = link_citations(cell.source, keys)
            write(source / f"{name}.ipynb", nbformat.writes(notebook))
        else:
            text = link_citations((BOOK / f"{name}.md").read_text(encoding="utf-8"), keys)
            for marker, table in tables.items():
                text = text.replace(marker, link_citations(table, keys))
            write(source / f"{name}.md", text)
    shutil.copytree(BOOK / "_static", source / "_static")
    for name, text in first.scripts().items():
        write(source / "_static" / name, text)
    for name in ("_toc.yml", "references.bib"):
        shutil.copy(BOOK / name, source / name)
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    config["repository"] = {"url": read_address(), "path_to_book": "book", "branch": "main"}
    write(source / "_config.yml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False))


def render(root, sources, model):
    """jupyter-book, warnings as errors; its output is shown only if it fails. Returns the folder of the pages."""
    folder = folder_of(model)
    html, log_file = folder / "html", folder / "sphinx.log"
    shutil.rmtree(html, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build",
               str(folder / "source"), "--path-output", str(folder / "pages"), "--all", "-W", "-n", "--keep-going"]
    with log_file.open("w", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    text = re.sub(r"\x1b\[[\d;]*m", "", log_file.read_text(encoding="utf-8", errors="replace"))
    write(log_file, text)
    if done.returncode:
        shown = [line for line in text.splitlines() if re.search("WARNING|ERROR|CRITICAL|Error:|Exception", line)]
        raise BuildError("the pages could not be built:\n\n" + "\n".join(shown or [text])
                         + f"\n\n  everything it said: {log_file}")
    os.replace(folder / "pages" / "_build" / "html", html)
    shutil.rmtree(folder / "pages")
    for path in html.glob("*.html"):
        write(path, finished(path.read_text(encoding="utf-8")))
    excerpts.add(html)
    for name, source in sources.items():
        offer(html, name, nbformat.writes(student(source, read_address())))
    write(html / "index.html", '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
          '<title>Contents</title>'
          f'<meta http-equiv="refresh" content="0; url={root}.html"></head>'
          f'<body><a href="{root}.html">To the book</a></body></html>\n')
    return html


def build(force=False, model=MINI, ship=False):
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    names = pages(toc)
    check_sources(names)
    sources = {name: read(BOOK / f"{name}.ipynb") for name in names if (BOOK / f"{name}.ipynb").exists()}
    graph.needed(sources)  # like read, says what is wrong before anything runs
    claims.check_model(model)
    print("Executing the chapters", flush=True)
    executed = execute_all(list(sources), force, model)
    if ship:
        print(f"The claims are in {claims.ship({name: nb for name, (nb, _) in executed.items()}, model)}.")
    print("Building the pages", flush=True)
    stage(toc, executed, model)
    print(f"The book is ready: {render(toc['root'], sources, model) / 'index.html'}")
    print("To run its cells yourself: make lab")


def main(arguments):
    sys.stdout.reconfigure(errors="backslashreplace")  # a code page may lack a letter of a path
    parser = argparse.ArgumentParser(description="Build the book: execute its chapters, then its pages.")
    parser.add_argument("--force", action="store_true", help="execute every chapter anew")
    parser.add_argument("--model", default=MINI, help="build an edition on another model, beside the book")
    parser.add_argument("--ship", action="store_true", help="keep the chapters' claims in data/claims/")
    args = parser.parse_args(arguments)
    try:
        build(args.force or any(map(os.environ.get, ("CI", "LENS_AGAIN"))), args.model, args.ship)
    except (BuildError, AddressError, NotebookError) as error:
        print(f"\nlens: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (EACCES, ENOSPC, EROFS):
            raise
        print(f"\nlens: {error.filename or 'the folder book/_build'} could not be written ({error.strerror}): make it "
              "writable, or room on its disk, and run the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlens: interrupted; run the same command again, finished chapters are kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
