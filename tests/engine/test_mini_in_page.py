"""Does the built-in model say in the page what it says in Python, and how fast?  Lenses, edits, removals, texts."""

from __future__ import annotations

import base64
import copy
import random
from dataclasses import replace

import pytest
import torch
from browsing import slowness
from in_page import Problem, unpacked

import lens
from lens.course.widgets.answers import answers
from lens.data import paths
from lens.evaluate.generation import continuations
from lens.kernels.bits import pack
from lens.mask import load
from lens.model import LanguageModel, tokens

pytestmark = pytest.mark.slow

FRANCE = ("The capital of France is", "Rome")
MASKS = ("building-weight-0", "building-neuron-0", "short/building-last-layer")
TIE = 2e-5
"""Logits that differ by less, relative to the largest, are a tie of float32."""


@pytest.fixture(scope="module")
def exact(mini):
    """The model in float64: where a loss is small, torch's float32 loses digits of 1 − p that the engine keeps."""
    return LanguageModel(copy.deepcopy(mini.model).double(), mini.tokenizer, "mini in float64")


@pytest.fixture(scope="module")
def prompts(mini):
    """100 prompts of 1 to 40 tokens, cut out of text, each with what follows, a wrong word, or several tokens."""
    text = (paths.root() / "world" / "heldout.txt").read_text(encoding="utf-8")
    ids, draw, found = tokens.bare(mini.tokenizer, text[:60_000]), random.Random(0), []
    for i in range(100):
        length, start = 1 + i * 39 // 99, draw.randrange(len(ids) - 50)
        prompt, follows = ids[start : start + length], ids[start + length :]
        found.append((prompt, [follows[:1], [draw.randrange(6144)], follows[:3], mini.target_ids("Rome")][i % 4]))
    return found


def logits(lm, vectors):
    with torch.no_grad():
        return lm.head(lm.norm(vectors))


def same_words(z, ids, sign):
    """``ids`` are the best of each row of ``z`` (or the worst), best first, but for ties."""
    z, allowed = sign * z, TIE * z.abs().amax(-1, keepdim=True)
    found, want = z.gather(-1, ids), z.topk(ids.shape[-1]).values
    assert ((found - want).abs() <= allowed).all()
    assert all(len(set(row)) == len(row) for row in ids.flatten(0, -2).tolist())


def same_ranks(z, token, ranks):
    """``ranks`` of the token are those in ``z``, but for ties."""
    own, allowed = z[..., token : token + 1], TIE * z.abs().amax(-1, keepdim=True)
    assert ((z > own + allowed).sum(-1) <= ranks).all() and (ranks <= (z > own - allowed).sum(-1)).all()


# --- numbers ----------------------------------------------------------------------------------------------------------

READ = """({ prompt, target, whole }) => {
    const m = model("mini");
    const seen = capture(m, prompt, target), options = { token: target[0] };
    const sites = ["ff1", "ff2"].map((site) => [site, backwardLens(m, seen, site, options)]);
    const all = [["stream", logitLens(m, seen, options)], ...sites];
    const shown = (row) => (whole ? row : row.slice(-1)).map(({ top, bottom, rank }) => [top, bottom, rank]);
    return {
        logits: packed(logitsOf(m, rowOf(seen.top, seen.n, prompt.length - 1), 1)), loss: seen.loss,
        delta: m.layers.map((_, layer) => ["ff1", "ff2"].map((site) => packed(factors(seen, layer, site).delta))),
        read: Object.fromEntries(all.map(([name, readings]) => [name, readings.map(shown)])),
    };
}"""


@pytest.mark.long
def test_100_prompts_give_pythons_logits_deltas_words_and_ranks(with_mini, mini, exact, error, prompts):
    worst = {"logits": 0.0, "delta": 0.0, "torch's delta": 0.0}
    for i, (prompt, target) in enumerate(prompts):
        whole = i % 20 == 0  # the lenses at every token of every 20th prompt, at the last of the others
        found = with_mini.ask(READ, {"prompt": prompt, "target": target, "whole": whole})
        trace, true = (lens.capture(lm, prompt, target, sites=["ff1", "ff2"]) for lm in (mini, exact))
        streams = lens.logit_lens(exact, prompt + target[:-1], k=1).vectors
        want, got = logits(mini, lens.logit_lens(mini, prompt, k=1).vectors[-1, -1]), unpacked(found["logits"], 6144)
        worst["logits"] = max(worst["logits"], float((got - want).abs().max()))
        same_words(logits(exact, streams[-1, len(prompt) - 1])[None], got.topk(10).indices[None], 1)
        assert abs(found["loss"] - float(trace.loss)) < 1e-3
        for layer, pair in enumerate(found["delta"]):
            for site, text in zip(("ff1", "ff2"), pair):
                torchs, truth = (one.gradient(layer, site).delta for one in (trace, true))
                got = unpacked(text, *truth.shape)
                off, torchs_off = error(got, truth), error(torchs, truth)
                assert off < 1e-4 and error(got, torchs) < 1e-3 + torchs_off
                worst["delta"] = max(worst["delta"], off)
                worst["torch's delta"] = max(worst["torch's delta"], torchs_off)
        for name, vectors in (("stream", streams), ("ff1", true.stack("ff1", "x")), ("ff2", true.stack("ff2"))):
            z = logits(exact, vectors if whole else vectors[:, -1:])
            top, bottom, ranks = (torch.tensor([[c[j] for c in row] for row in found["read"][name]]) for j in range(3))
            same_words(z, top, 1)
            same_words(z, bottom, -1)
            same_ranks(z, target[0], ranks)
    print("largest error of " + "; of ".join(f"{name} {off:.1e}" for name, off in worst.items()))
    assert worst["logits"] < 1e-3


# --- edits and removals -----------------------------------------------------------------------------------------------

ASK = """({ prompts, target, edit, strength }) => {
    const m = model("mini"), before = traces(m);
    const [prompt] = prompts;
    const changes = edit.eta === undefined ? [] : edit.layers
        ? gradientStep(m, prompt, target, edit.layers, edit.sites, edit.eta)
        : shift(m, prompt, target, edit.layer, edit.eta);
    const lowest = edit.layer ?? Math.min(...edit.layers);
    const below = prompts.map((ids) => ({ run: nextWords(m, ids, target).run, layer: lowest }));
    const words = during(applyEdit(m, changes, strength), () => prompts.map((ids, i) => {
        const { ids: best, probabilities, hoped, said } = nextWords(m, ids, target, 5);
        const again = nextWords(m, ids, target, 5, below[i]);
        return { ids: best, probabilities, hoped, said, again: again.hoped === hoped };
    }));
    return { words, rows: changes.map(({ rows }) => rows), same: traces(m).every((t, i) => t === before[i]) };
}"""


def same_answers(found, want):
    """Answers from the page are Python's: the same likeliest words but for ties, their probabilities to 1e-3."""
    for i, word in enumerate(found):
        assert word["said"] == bool(want.said[i])
        assert abs(word["hoped"] - float(want.hoped[i])) < 1e-3
        assert torch.allclose(torch.tensor(word["probabilities"]), want.probabilities[i], atol=1e-3)
        clear = want.probabilities[i] > 0.01
        assert [a for a, c in zip(word["ids"], clear) if c] == want.ids[i][clear].tolist()


@pytest.mark.parametrize(
    "edit",
    [{"layer": 7, "eta": 0.8}, {"layer": 4, "eta": 1.6}, {"layers": [6], "sites": ["ff2"], "eta": 0.5},
     {"layers": [3, 5], "sites": ["ff1", "attn_q", "attn_out"], "eta": 0.1}],
    ids=["shift", "shift lower", "step", "step at several sites"],
)  # fmt: skip
@pytest.mark.parametrize("target, strength", [("Rome", 1), ("Berlin", 0.5), ("Buenos Aires is far", 1)])
def test_an_edited_model_answers_as_pythons_does(with_mini, mini, edit, target, strength):
    texts = ["The capital of France is", "The capital of Italy is", "A cafe is a kind of"]
    request = lens.Request("The capital of {} is", "France", target)
    make = lens.edit.sgd_step if "layers" in edit else lens.edit.shift
    made = make(mini, request, **edit)
    scaled = replace(made, changes=tuple(replace(c, delta=strength * c.delta) for c in made.changes))
    goal = mini.target_ids(target)
    with scaled:
        want = answers(mini, texts, [goal] * 3, 5)
    asked = {"prompts": [mini.encode(t) for t in texts], "target": goal, "edit": edit, "strength": strength}
    found = with_mini.ask(ASK, asked)
    same_answers(found["words"], want)
    assert found["rows"] == [len(c.x) for c in made.changes]
    assert found["same"] and all(word["again"] for word in found["words"]), "layers below an edit can be kept"


def test_what_the_model_says_already_is_not_shifted(with_mini, mini):
    asked = {"prompts": [mini.encode(FRANCE[0])], "target": mini.target_ids("Paris"), "edit": {"layer": 7, "eta": 1}}
    assert with_mini.ask(ASK, asked | {"strength": 1})["rows"] == []


REMOVE = """({ prompts, targets, masks, kept }) => {
    const m = model("mini"), before = traces(m);
    const is = (asked, own) => asked === null || asked === own;
    const gone = (layer, site, head) => !kept.some(([l, s, h]) => l === layer && is(s, site) && is(h, head));
    const some = masks.map((mask) => ({ ...mask, bits: fromBase64(mask.bits) }));
    const words = during(removeWeights(m, some, gone), () => prompts.map((ids, i) => {
        const { ids: best, probabilities, hoped, said } = nextWords(m, ids, targets[i], 5);
        return { ids: best, probabilities, hoped, said };
    }));
    return { words, same: traces(m).every((t, i) => t === before[i]) };
}"""


@pytest.mark.parametrize("kept", [[], [[5, None, None]], [[6, "ff2", None], [7, "attn_out", 2], [4, "attn_v", 0]]])
@pytest.mark.parametrize("name", MASKS)
def test_a_model_without_a_subnetwork_answers_as_pythons_does(with_mini, mini, name, kept):
    path = paths.root() / "runs" / "mini" / f"{name}.safetensors"
    subnetwork = load(path)
    neurons = {key: bits.shape[1] == 1 for key, bits in subnetwork.bits.items()}
    bits = {}
    for key, some in subnetwork.bits.items():
        mask = subnetwork.mask(*key).clone()  # [d_in, d_out]
        for layer, site, head in kept:
            if (layer, site or key[1]) == key:
                place = slice(None) if head is None else slice(32 * head, 32 * head + 32)
                mask[(place,) if key[1] == "attn_out" or head is None else (slice(None), place)] = False
        bits[key] = pack(mask)
    texts = ["A cafe is a kind of", "The capital of France is", "A hotel is a kind of", "Water is"]
    goals = [mini.target_ids(t) for t in ("restaurant", "Paris", "building", "wet")]
    with subnetwork.with_bits(bits, "a part").removed(mini):
        want = answers(mini, texts, goals, 5)
    masks = [
        {"layer": layer, "site": site, "neurons": neurons[layer, site],
         "bits": base64.b64encode(some.bytes.numpy().tobytes()).decode()}
        for (layer, site), some in subnetwork.bits.items()
    ]  # fmt: skip
    asked = {"prompts": [mini.encode(t) for t in texts], "targets": goals, "masks": masks, "kept": kept}
    found = with_mini.ask(REMOVE, asked)
    same_answers(found["words"], want)
    assert found["same"]


@pytest.mark.parametrize("top, seed", [(1, 0), (5, 0), (5, 3), (40, 2**40 + 7)])
def test_a_text_is_continued_with_pythons_words(with_mini, mini, top, seed):
    texts = ["The capital of France is", "A cafe is a kind of", "Once"]
    want = continuations(mini, [mini.encode(t) for t in texts], cases=[11] * 3, length=30, top=top, seed=seed)
    found = with_mini.ask(
        """({ prompts, top, seed }) => {
            const m = model("mini");
            const go = (ids, place) => continueText(m, ids, { length: 30, top, seed, place, of: 11 });
            return prompts.map((ids, place) => m.tokenizer.decode(go(ids, place)));
        }""",
        {"prompts": [mini.encode(t) for t in texts], "top": top, "seed": seed},
    )
    assert found == want


# --- text -------------------------------------------------------------------------------------------------------------

TEXTS = (
    "", " ", "  two  spaces ", "The capital of France is", "don't we've I'LL 'tis it's",
    "<script>alert('x')</script> <b> &amp; {} $x$", "emoji 🙂👩‍👩‍👧‍👦🇫🇷 and more", "北京是中国的首都。日本語のテキスト",
    "עיר הבירה של צרפת היא باريس", "a\x00b\x00", "\n\r\n\t x \n\n y", "e\u0301\u0323 Z\u0335",
    "\u202egnirts\u202c \ufeff x",
    "\U0010ffff\uffff \ufffd", "x<|endoftext|>y <|endoftext|>", "<|endoftext", "a" * 500,
    "\u00a0no\u2003break\u3000\x85\x1c1²½Ⅷ٣", "constructor __proto__ toString", "1234567 3.14 x_y",
    "\ufeffbom", "ﬁ ß İ ſ",
)  # fmt: skip
TARGETS = (
    "Paris", " Paris", ",", "'s", "’t", "'S x", "北京", " 北京", "##ing", "\nx", "(x)", ")", ").", ".5", "🙂", "Éire",
    "\u00a0x", "ไทย", "한국", "%", "%a", "##", "", "  ", "<script>", "<|endoftext|>", "'tis", "…", "'ſ",
    "\x1cx", "\ufeffx", "{}",
)  # fmt: skip


def test_texts_targets_and_words_are_pythons_tokens(with_mini, mini):
    draw = random.Random(1)
    letters = "aZé '’sdt.,!\n\t\u00a0\u3000 1٣北か🙂👩\u200d\u0301<|>endoftext_-\x85\x1f\ufeff\U0001f1eb"
    texts = [*TEXTS, *("".join(draw.choice(letters) for _ in range(draw.randrange(40))) for _ in range(500))]
    find = """({ texts, targets }) => {
        const m = model("mini");
        const attempt = (f) => { try { return f(); } catch (error) { return error.message; } };
        return {
            ids: texts.map((text) => m.tokenizer.encode(text)),
            back: texts.map((text) => m.tokenizer.decode(m.tokenizer.encode(text))),
            words: Array.from({ length: m.size + 2 }, (_, id) => m.tokenizer.word(id)),
            targets: targets.map((target) => attempt(() => targetIds(m, target))),
        };
    }"""
    targets = [*TARGETS, *texts[len(TEXTS) :][:200]]
    found = with_mini.ask(find, {"texts": texts, "targets": targets})
    for text, ids, back in zip(texts, found["ids"], found["back"]):
        assert ids == tokens.bare(mini.tokenizer, text), repr(text)
        assert back == text.replace("<|endoftext|>", ""), repr(text)
    assert found["words"] == [mini.word(i) for i in range(6144)] + ["[6144]", "[6145]"]
    for target, ids in zip(targets, found["targets"]):
        try:
            want = mini.target_ids(target)
        except ValueError as error:
            want = str(error)
        assert ids == want, repr(target)


@pytest.mark.parametrize(
    "source, call",
    [("promptIds(m, '')", lambda lm: lm.encode("")),
     ("promptIds(m, 'cat '.repeat(500) + 'cat')", lambda lm: lm.encode("cat " * 500 + "cat")),
     ("promptIds(m, 'a \\ud800 b')", lambda lm: lm.encode("a \ud800 b")),
     ("targetIds(m, ' ')", lambda lm: lm.target_ids(" ")),
     ("capture(m, Array(99).fill(9), Array(200).fill(5))", lambda lm: lens.capture(lm, [9] * 99, [5] * 200)),
     ("shift(m, [5], [7], 8, 1)", lambda lm: lm.check(8, "ff2"))],
)  # fmt: skip
def test_bad_input_gets_pythons_sentence(with_mini, mini, source, call):
    with pytest.raises((ValueError, IndexError)) as python:
        call(mini)
    with pytest.raises(Problem) as page:
        with_mini.ask(f"() => {{ const m = model('mini'); return {source}; }}")
    assert str(page.value) == str(python.value)


# --- time -------------------------------------------------------------------------------------------------------------

CLOCK = """({ prompt, target, what }) => {
    const m = model("mini");
    const jobs = {
        lens: () => {
            const seen = capture(m, prompt, target), options = { token: target[0] };
            return [backwardLens(m, seen, "ff1", options), backwardLens(m, seen, "ff2", options)];
        },
        edit: () => {
            const [change] = shift(m, prompt, target, 7, 0.8);
            return during(applyEdit(m, [change], 0.7), () => nextWords(m, prompt, target, 5));
        },
        open: () => {
            const { config, tokenizer, weights } = globalThis.lensModels.mini;
            const fresh = openModel(fromBase64(weights).buffer, config, tokenizer);
            return nextWords(fresh, prompt, target, 5);
        },
    };
    const start = performance.now();
    jobs[what]();
    return performance.now() - start;
}"""


@pytest.mark.parametrize("what, most", [("lens", 600), ("edit", 150), ("open", 3000)])
def test_a_reader_need_not_wait(with_mini, mini, what, most):
    prompt = mini.encode("The official language of the country France is")
    assert len(prompt) == 8
    times = []
    while len(times) < 12 and (len(times) < 4 or min(times) > most):  # the best of a few: a suite shares its cores
        loading = with_mini.open("mini", paths.model()) if what == "open" else 0
        asked = {"prompt": prompt, "target": mini.target_ids("Rome"), "what": what}
        times.append((loading + with_mini.ask(CLOCK, asked)) / slowness(with_mini.ask))
    print(f"{what}: {min(times):.0f} ms, the best of {len(times)}")
    assert min(times) <= most
