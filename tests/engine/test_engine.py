"""Does the engine in the page compute what Python computes?  Logits, δ, words, ranks, edits, removals."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from in_page import Engine, save, unpacked

import lens
from lens.course.widgets.engine import PARTS, listing
from lens.course.widgets.explorer import PAGE

SITES = ("attn_q", "attn_k", "attn_v", "attn_out", "ff1", "ff2")

# --- how it is written ------------------------------------------------------------------------------------------------


def test_the_engine_is_short_and_one_script_with_the_pages_of_explorers():
    files = sorted((PAGE / "engine").glob("*.js"))
    assert {path.stem for path in files} == set(PARTS)
    lengths = {path.stem: len(path.read_text("utf-8").splitlines()) for path in files}
    assert max(lengths.values()) <= 250 and sum(lengths.values()) <= 1000, lengths
    names = re.compile(r"^(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
    own = [name for path in files for name in names.findall(path.read_text("utf-8"))]
    assert len(own) == len(set(own)), "two things have one name"
    others = {name for path in PAGE.glob("*.js") for name in names.findall(path.read_text("utf-8"))}
    assert not others & set(own), "an explorer's page has this name"
    for path in files:
        assert not re.search(r"\b(import|export|fetch|eval|innerHTML|require)\b", path.read_text("utf-8")), path.name


def test_a_listing_is_the_text_of_the_file_and_an_unknown_name_is_refused(refuses):
    text = (PAGE / "engine" / "backward.js").read_text("utf-8")
    shown = listing("linearBack", "backward").data
    first, second = shown.removeprefix("```js\n").removesuffix("\n```").split("\n\n")
    for part, name in ((first, "linearBack"), (second, "backward")):
        assert part in text and part.startswith("/**") and f"function {name}(" in part and part.endswith("\n}")
    with refuses(ValueError, "The engine has no function 'nothing': choose one of"):
        listing("nothing")


# --- every number, on a lopsided random model -------------------------------------------------------------------------

FACTORS = """({ name, prompt, target }) => {
    const m = model(name);
    const seen = capture(m, prompt, target);
    const sites = ["attn_q", "attn_k", "attn_v", "attn_out", "ff1", "ff2"];
    return {
        logits: packed(logitsOf(m, seen.top, seen.n)), loss: seen.loss,
        factors: m.layers.map((_, layer) => sites.map((site) => {
            const { x, delta } = factors(seen, layer, site);
            return [packed(x), packed(delta)];
        })),
    };
}"""

CASES = [([5], [7]), ([1, 2], [3, 4, 5]), ([9, 8, 7, 9, 8], [250]), (list(range(20, 33)), [2, 2])]


def same_factors(engine, name, lm, error):
    for prompt, target in CASES:
        found = engine.ask(FACTORS, {"name": name, "prompt": prompt, "target": target})
        trace = lens.capture(lm, prompt, target)
        with torch.no_grad():
            want = lm.model(torch.tensor([prompt + target[:-1]])).logits[0]
        assert error(unpacked(found["logits"], *want.shape), want) < 1e-5
        assert abs(found["loss"] - float(trace.loss)) < 1e-5
        for layer, sites in enumerate(found["factors"]):
            for site, pair in zip(SITES, sites):
                g = trace.gradient(layer, site)
                for text, want in zip(pair, (g.x, g.delta)):  # of one token, δ of q and k is 0 but for rounding
                    off = (unpacked(text, *want.shape) - want).abs().max()
                    assert off <= 1e-4 * want.abs().max() + 1e-9, (prompt, layer, site)


def test_x_and_delta_of_every_site_are_autograds(engine, tiny, error, tmp_path):
    lm = tiny("gpt2")
    engine.open("tiny", save(lm, tmp_path))
    same_factors(engine, "tiny", lm, error)


def test_node_reads_the_same_script(tiny, error, tmp_path):
    if not shutil.which("node"):
        pytest.skip("no node")
    engine, lm = Engine(tmp_path), tiny("gpt2", seed=1)
    engine.open("tiny", save(lm, tmp_path))
    same_factors(engine, "tiny", lm, error)
    engine.close()


def test_an_edit_and_its_undoing_on_a_random_model(engine, tiny, error, tmp_path):
    lm = tiny("gpt2", seed=2)
    engine.open("other", save(lm, tmp_path))
    found = engine.ask(
        """({ prompt, target, sites }) => {
            const m = model("other"), before = traces(m);
            const first = applyEdit(m, gradientStep(m, prompt, target, [0, 2], sites, 0.1));
            const second = applyEdit(m, shift(m, prompt, target, 2, 0.3));
            let refused = "";
            try { first.undo(); } catch (error) { refused = error.message; }
            const logits = packed(logitsOf(m, forward(m, prompt).top, prompt.length));
            second.undo();
            first.undo();
            first.undo();
            let failed = "";
            const short = [{ layer: 0, site: "ff2", bits: new Uint8Array(3) }];
            try { removeWeights(m, short); } catch (error) { failed = error.message; }
            const same = traces(m).every((t, i) => t === before[i]);
            return { logits, refused, failed, same, left: m.changes.length };
        }""",
        {"prompt": CASES[1][0], "target": CASES[1][1], "sites": SITES},
    )
    prompt, target = CASES[1]
    trace = lens.capture(lm, prompt, target)
    with torch.no_grad():
        for layer in (0, 2):
            for site in SITES:
                lm.weight(layer, site).sub_(0.1 * trace.gradient(layer, site).dense())
        a = lens.capture(lm, prompt, target, layers=[2], sites=["ff2"]).gradient(2, "ff2").x
        due = [len(prompt) - 1 + j for j in range(len(target))]
        lm.weight(2, "ff2").add_(0.3 * a[due].T @ lm.unembedding[target])
        want = lm.model(torch.tensor([prompt])).logits[0]
    assert error(unpacked(found["logits"], *want.shape), want) < 1e-4
    assert found["same"] and found["left"] == 0
    assert found["refused"] == "A later change lies on the same weights: undo that one first."
    assert found["failed"] == "The mask of ff2 in layer 0 has 3 bytes, not one bit a weight."
