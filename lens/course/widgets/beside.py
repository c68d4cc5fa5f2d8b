"""What must lie beside a page, or in it, so that it can run the built-in model by itself?

Beside the book's pages lie ``mini.js``, the model and the shipped subnetworks with the program that runs them, loaded
when the reader asks, and ``beside.js``, a line that tells every page of it.  A page that stands alone carries both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from lens.course.widgets.engine import PAGE, engine_script, kernel_script, mask_script, model_script
from lens.course.widgets.in_page import digests
from lens.data import paths
from lens.mask import Subnetwork, load

IN_PAGE = "mini"
"""The model that runs in the book's pages."""


def program() -> str:
    """What the Worker runs: engine and kernel, and the loop that answers one request after another."""
    return "\n".join((engine_script(), kernel_script(), (PAGE / "worker.js").read_text("utf-8")))


@cache
def _shipped() -> dict[str, Subnetwork]:
    """The subnetworks that come with the book, by digest."""
    some = [load(path) for path in sorted((paths.root() / "runs" / IN_PAGE).glob("*.safetensors"))]
    return dict(zip(digests(some), some))


def carried(subnetworks: Iterable[Subnetwork]) -> str:
    """A script with those subnetworks that do not come with the book: a page must bring them itself."""
    subnetworks = list(subnetworks)
    return mask_script(one for digest, one in zip(digests(subnetworks), subnetworks) if digest not in _shipped())


@cache
def _data() -> str:
    """The model's files and the subnetworks as one script."""
    return model_script(IN_PAGE, paths.model(IN_PAGE)) + mask_script(_shipped().values())


def page_script() -> str:
    """The file that a page loads: ``lensModels[name]`` with its ``program``, and ``lensMasks``."""
    return f"{_data()}lensModels[{json.dumps(IN_PAGE)}].program = {json.dumps(program())};\n"


def announcement() -> str:
    """The script that tells a page which model lies beside it, and how many bytes the page would load."""
    size = len(page_script().encode())
    where = f"new URL({json.dumps(f'{IN_PAGE}.js')}, document.currentScript.src).href"
    return f"(globalThis.lensBeside ??= {{}})[{json.dumps(IN_PAGE)}] = {{ address: {where}, bytes: {size} }};\n"


def inside() -> str:
    """The same as HTML to stand inside a page, before its explorers: nothing of it runs until a Worker does."""
    texts = {"lens-model": _data(), "lens-program": json.dumps(program())}
    told = {"model": "lens-model", "program": "lens-program", "bytes": sum(map(len, texts.values()))}
    scripts = (  # "<" stands in strings only, where JSON may write it so
        f'<script type="text/plain" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>\n'
        for name, text in texts.items()
    )
    told = f"(globalThis.lensBeside ??= {{}})[{json.dumps(IN_PAGE)}] = {json.dumps(told)};"
    return f"{''.join(scripts)}<script>{told}</script>"
