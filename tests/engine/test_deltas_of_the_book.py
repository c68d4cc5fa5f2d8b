"""Is what the appendix compares with autograd what the engine gives?  With ``LENS_AGAIN=1`` the file is made anew."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch
from in_page import unpacked
from safetensors import safe_open
from safetensors.torch import save_file

from lens.data import manifest, paths
from lens.results.provenance import machine

pytestmark = pytest.mark.slow

ASKED = {"prompt": "The capital of France is", "target": "Rome"}
SITES = ("ff2", "attn_out")
DELTAS = """({ prompt, target, sites }) => {
    const m = model("mini"), seen = capture(m, promptIds(m, prompt), targetIds(m, target));
    const deltas = (site) => m.layers.map((_, layer) => packed(factors(seen, layer, site).delta));
    return Object.fromEntries(sites.map((site) => [site, deltas(site)]));
}"""


def test_the_shipped_deltas_are_the_engines(with_mini, mini):
    found = with_mini.ask(DELTAS, ASKED | {"sites": SITES})
    shape = len(mini.encode(ASKED["prompt"])), mini.width
    got = {site: torch.stack([unpacked(text, *shape) for text in found[site]]) for site in SITES}
    file = paths.root() / "engine" / "deltas.safetensors"
    if os.environ.get("LENS_AGAIN"):
        file.parent.mkdir(exist_ok=True)
        save_file(got, file, ASKED | _made(with_mini))
        manifest.write()
    with safe_open(file, "pt") as held:
        assert {**held.metadata(), **ASKED} == held.metadata()
        for site in SITES:
            want = held.get_tensor(site)
            assert (got[site] - want).norm() <= 1e-5 * want.norm()


def _made(engine) -> dict[str, str]:
    node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout if not engine.page else ""
    return {
        "model": "mini",
        "command": "LENS_AGAIN=1 pytest tests/engine/test_deltas_of_the_book.py",
        "browser": f"Chromium {engine.page.context.browser.version}" if engine.page else f"node {node.strip()}",
        "machine": machine(torch.device("cpu")),
    }
