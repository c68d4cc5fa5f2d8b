"""Knowledge and its removal: numbers agree with the plain model, prompt by prompt; lower layers run once."""

from __future__ import annotations

from math import exp, inf, log
from statistics import fmean

import pandas as pd
import pytest
import torch

import lens
from lens import evaluate
from lens.data import Fact, Knowledge, Prompt
from lens.evaluate import Measures
from lens.evaluate import knowledge as measure
from lens.evaluate.knowledge import SETS, sets_of
from lens.evaluate.perplexity import Perplexity
from lens.evaluate.readings import Readings
from lens.kernels import logits, pack
from lens.mask import Config, Subnetwork, grown, random_like, shrunk
from lens.mask.places import places
from lens.mask.training import head_dim
from lens.model.families import FAMILIES


def prompt(text: str, tail: str, held_out: bool = False) -> Prompt:
    return Prompt(text, tail, Fact("own", "t", "target", "is", text, text, tail), 0, held_out)


KG = Knowledge(
    "own",
    (prompt("A hut is", "on"), prompt("The cafe on the hill is a kind of", "restaurant"), prompt("A", "the")),
    (prompt("One calls a hut", "on"), prompt("Is a hut", "on", held_out=True)),
    (prompt("A pear is a", "fruit"), prompt("The sun", "is"), prompt("No one", "is other")),
    (prompt("A cup is", "the thing"), prompt("Another one is", "a")),
    ("The other is on the one.",),
    ("It is on the hill, and the cafe is on it.", "A thing.", "", "x", "Is the cafe there?"),
)


def subnetwork(lm, density: float = 0.3, layers=(1, 2), seed: int = 0, rows: bool = False) -> Subnetwork:
    generator = torch.Generator().manual_seed(seed)
    bits, shapes = {}, {}
    for place in places(lm, layers):
        for site, columns in zip(place.sites, place.columns):
            shapes[place.layer, site] = shape = (place.matrix.shape[0], len(columns))
            bits[place.layer, site] = pack(torch.rand(shape[0], 1 if rows else shape[1], generator=generator) < density)
    return Subnetwork(bits, shapes, Config(), (), lm.name, lm.fingerprint, head_dim(lm))


def one_by_one(lm, one: Prompt | str) -> list[tuple[float, int]]:
    """−log p and rank of every token due, from the whole model's logits for this row alone."""
    ids = lm.encode(one if isinstance(one, str) else one.text)
    due = ids[1:] if isinstance(one, str) else lm.target_ids(one.target)
    row = ids if isinstance(one, str) else [*ids, *due]
    with torch.no_grad():
        z = lm.model(torch.tensor([row])).logits[0, -len(due) - 1 : -1].log_softmax(-1)
    return [(-float(line[token]), int((line > line[token]).sum())) for line, token in zip(z, due)]


def naive(lm, some) -> dict:
    found = [(isinstance(one, str), one_by_one(lm, one)) for one in some if not isinstance(one, str) or len(one) > 1]
    ranks = [rank for text, places in found for _, rank in (places if text else places[:1])]
    losses = [nll for _, places in found for nll, _ in places]
    tops = {f"top{k}": fmean(rank < k for rank in ranks) for k in (1, 5, 10)}
    return {"ppl": exp(fmean(losses)), "rank": fmean(ranks), "log_prob": -sum(losses) / len(ranks), **tops} | {
        "count": len(ranks)
    }


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_number_is_the_plain_models_with_and_without_the_subnetwork(tiny, state, kind):
    lm, rounding = tiny(kind), 1e-6 if kind in ("gptj", "gemma2") else 1e-9  # attention in float32
    sub, sets = subnetwork(lm), sets_of(KG)
    before = state(lm.model)
    result = measure(lm, KG, sub, random=0, alone=True, progress=False)
    after = state(lm.model)
    assert all(value == after[name] for name, value in before.items() if not name.startswith("tensor"))  # hooks, flags
    plain = {name: naive(lm, some) for name, some in sets.items()}
    with sub.removed(lm):
        without = {name: naive(lm, some) for name, some in sets.items()}
    with sub.only(lm):
        alone = {name: naive(lm, some) for name, some in sets.items()}
    assert list(result.found) == ["original", "remaining", "alone"] and list(result["alone"]) == list(SETS)
    for variant, wanted in (("original", plain), ("remaining", without), ("alone", alone)):
        for name, want in wanted.items():
            got = result[variant][name]
            for key in ("ppl", "rank", "top1", "top5", "top10", "count"):
                assert getattr(got, key) == pytest.approx(want[key], rel=rounding), (variant, name, key)
            assert got.delta_ppl == pytest.approx(want["ppl"] - plain[name]["ppl"], rel=rounding, abs=500 * rounding)
            change = want["log_prob"] - plain[name]["log_prob"]
            assert got.delta_log_prob == pytest.approx(change, rel=rounding, abs=rounding)
    assert result["remaining"]["target"].ppl != pytest.approx(result["original"]["target"].ppl, rel=1e-3)


def test_text_has_the_perplexity_and_facts_have_the_scores_that_other_measures_give(tiny):
    lm = tiny("gpt2")
    original = measure(lm, KG, progress=False)["original"]
    texts = [text for text in KG.text_held_out if len(text) > 1]
    assert original["text_held_out"].ppl == pytest.approx(Perplexity(lm, texts)(), rel=1e-9)
    one = [p for p in KG.control if len(lm.target_ids(p.target)) == 1]
    scores = evaluate.score(lm, [p.text for p in one], [p.target for p in one])
    got = Readings(lm, {"one": one}, 2)()["one"]
    assert len(one) == 1 and log(got.ppl) == pytest.approx(float(scores.nll.double().mean()), rel=1e-6)


def test_random_is_the_mean_over_masks_of_equal_density_in_each_site(tiny):
    lm = tiny("llama")
    sub = subnetwork(lm)
    result = measure(lm, KG, sub, random=3, progress=False)
    one_by_one = {str(seed): random_like(sub, seed) for seed in range(3)}
    each = measure(lm, KG, one_by_one, progress=False)
    for name, got in result["random"].items():
        wanted = Measures.mean([each[str(seed)][name] for seed in range(3)])
        assert got == wanted and len({each[str(seed)][name].ppl for seed in range(3)}) == 3
        assert got.ppl == pytest.approx(fmean(each[str(seed)][name].ppl for seed in range(3)))
    assert result.runs == {"original": 1, "remaining": 1, "random": 3}
    assert result.removed == {"original": 0, "remaining": sub.density(), "random": pytest.approx(sub.density())}


def test_named_variants_share_the_lower_layers_which_run_once(tiny):
    lm = tiny("gpt2")
    calls = [0] * len(lm.layers)
    for layer, module in enumerate(lm.layers):
        module.register_forward_hook(lambda *_, layer=layer: calls.__setitem__(layer, calls[layer] + 1))
    high, higher = subnetwork(lm, layers=(1, 2)), subnetwork(lm, layers=(2,), rows=True)
    many = {"seed 0": high, "neuron": higher, "random": [random_like(high, seed) for seed in range(2)]}
    result = measure(lm, KG, many, progress=False)
    batches = calls[0]
    assert calls == [batches, 5 * batches, 5 * batches] and batches <= 2
    assert list(result.found) == ["original", *many] and result.runs["random"] == 2
    for name in ("seed 0", "neuron"):
        assert result[name] == measure(lm, KG, many[name], random=0, progress=False)["remaining"]


def test_the_weights_come_back_bit_for_bit_also_after_an_exception(tiny, monkeypatch):
    lm = tiny("gpt_neox")
    before = {name: t.clone() for name, t in lm.model.state_dict().items()}

    def same() -> bool:
        return all(torch.equal(t, before[name]) for name, t in lm.model.state_dict().items())

    measure(lm, KG, subnetwork(lm), alone=True, progress=False)
    assert same()

    def interrupted(_):
        assert not same()
        raise KeyboardInterrupt

    monkeypatch.setattr(Readings, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(lm, KG, subnetwork(lm), progress=False)
    assert same()


def test_a_prompt_of_two_sets_runs_once_and_padding_is_inert(tiny, monkeypatch):
    lm = tiny("qwen3")
    monkeypatch.setattr("lens.evaluate.readings.TOKENS", 1)  # each row alone
    alone = measure(lm, KG, subnetwork(lm), progress=False)
    monkeypatch.setattr("lens.evaluate.readings.TOKENS", 10_000)  # all rows in one batch
    together = measure(lm, KG, subnetwork(lm), progress=False)
    for variant in ("original", "remaining"):
        for name in SETS:
            got, want = together[variant][name], alone[variant][name]
            assert got.ppl == pytest.approx(want.ppl, rel=1e-12) and got.rank == want.rank
    seen = []
    lm.layers[0].register_forward_hook(lambda module, args, out: seen.append(args[0].shape[0]))
    measure(lm, KG, progress=False)
    assert seen == [3 + 2 + 3 + 2 + 3]  # "unseen" and its parts are the same two rows; two texts are too short


def test_logits_are_made_a_chunk_at_a_time(tiny, record, monkeypatch):
    lm, vocabulary = tiny("gpt2"), 300
    texts = tuple("the cafe is on the other one " * 2 + str(i) for i in range(40))
    monkeypatch.setitem(logits.CHUNK_BYTES, "cpu", 8 * 8 * vocabulary)
    readings = Readings(lm, {"text": texts}, 1)
    count = readings.original["text"].count
    with record() as sizes:
        assert readings()["text"].ppl > 1
    assert count > 500 and max(sizes) < count * vocabulary / 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_measured_to_its_rounding(tiny, dtype):
    half, exact = tiny("llama", dtype), tiny("llama")
    got = measure(half, KG, subnetwork(half), random=0, progress=False)
    want = measure(exact, KG, subnetwork(exact), random=0, progress=False)
    for variant in got.found:
        for name in SETS:
            assert log(got[variant][name].ppl) == pytest.approx(log(want[variant][name].ppl), rel=0.02)


def test_sizes_draw_the_same_rows_each_time_and_zero_leaves_a_set_out(tiny):
    kg = lens.data.knowledge("building")
    some = sets_of(kg, {"control": 20, "text_held_out": 0})
    assert some == sets_of(kg, {"control": 20, "text_held_out": 0})
    assert len(set(some["control"])) == 20 and set(some["control"]) <= set(kg.control)
    assert not some["text_held_out"] and some["control_held_out"] == list(kg.control_held_out)
    assert some["unseen_taught"] and some["unseen_untaught"] and len(some["unseen"]) == len(kg.unseen)
    assert set(some["unseen"]) == {*some["unseen_taught"], *some["unseen_untaught"]}
    result = measure(tiny("gpt2"), KG, sizes={"control": 1, "text_held_out": 0}, progress=False)
    assert result["original"]["control"].count == 1 and "text_held_out" not in result["original"]
    alike = sets_of(Knowledge("n", KG.target, KG.target, *[()] * 4))
    assert alike["unseen"] and not alike["unseen_taught"] and not alike["unseen_untaught"]


def test_what_cannot_be_measured_is_refused_in_one_sentence(tiny, refuses):
    lm = tiny("gpt2")
    sub = subnetwork(lm)
    with refuses(ValueError, "found in another model"):
        measure(tiny("gpt2", seed=1), KG, sub, progress=False)
    with refuses(ValueError, "no set 'controls' in sizes"):
        measure(lm, KG, sizes={"controls": 3}, progress=False)
    for size in (-1, 2.5, None):
        with refuses(ValueError, f"the size of control is {size}: give a whole number, 0 or larger"):
            measure(lm, KG, sizes={"control": size}, progress=False)
    with refuses(ValueError, "'none' has no subnetwork"):
        measure(lm, KG, {"none": []}, progress=False)
    with refuses(ValueError, "'original' is the model as it is"):
        measure(lm, KG, {"original": sub}, progress=False)
    with refuses(ValueError, "nothing to read"):
        measure(lm, Knowledge("n", *[()] * 5, ("x", "")), progress=False)
    with refuses(ValueError, "reads at most 64"):
        measure(lm, Knowledge("n", *[()] * 5, ("x y " * 50,)), progress=False)


def test_the_table_has_the_variants_in_columns_and_the_rows_are_flat(tiny):
    lm = tiny("gpt2")
    result = measure(lm, KG, subnetwork(lm), random=2, progress=False)
    lines = str(result).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "own, tiny gpt2", "", "original", "remaining", "random (mean of 2)",
    ]  # fmt: skip
    assert len(lines) == 3 + 5 * len(SETS)
    shown = next(line for line in lines if line.startswith("| TargetKG (3)")).split("|")
    for cell, variant in zip(shown[3:], result.found):
        assert float(cell) == pytest.approx(result[variant]["target"].ppl, rel=1e-2)
    frame = pd.DataFrame(result.rows())
    assert len(frame) == 3 * len(SETS) and set(frame.variant) == set(result.found)
    one = frame[(frame.variant == "remaining") & (frame.set == "target")].iloc[0]
    assert one.ppl == result["remaining"]["target"].ppl and one.removed == result.removed["remaining"]


def test_a_perplexity_beyond_any_float_is_infinite_not_an_error(tiny):
    lm = tiny("gpt2")
    with torch.no_grad():
        lm.model.transformer.ln_f.weight.mul_(1e4)
    assert measure(lm, KG, progress=False)["original"]["target"].ppl == inf


# --- the sweep -------------------------------------------------------------------------------------------------------


def test_each_point_of_a_sweep_is_the_perplexity_without_that_mask(tiny):
    lm = tiny("gpt2")
    sub = subnetwork(lm, density=0.1)
    sweep = evaluate.sensitivity(lm, KG, sub, [1, -0.5, 0, -1], seeds=2, progress=False)
    assert sweep.shares == (-1, -0.5, 0, 1) and set(sweep.original) == {
        "target", "unseen", "control_held_out", "text_held_out",
    }  # fmt: skip
    original = measure(lm, KG, progress=False)["original"]
    assert sweep.original["unseen"] == pytest.approx(original["unseen"].ppl, rel=1e-12)
    for i, share in enumerate(sweep.shares):
        for seed in range(2):
            mask = grown(sub, share, seed) if share >= 0 else shrunk(sub, -share, seed)
            wanted = measure(lm, KG, {"subnetwork": mask, "random": random_like(mask, seed)}, progress=False)
            for (kind, name), ppl in sweep.ppl.items():
                assert float(ppl[i, seed]) == pytest.approx(wanted[kind][name].ppl, rel=1e-12)
            assert float(sweep.removed[i]) == mask.density()
    for (kind, name), ppl in sweep.ppl.items():
        assert ppl.shape == (4, 2) and ppl[0].tolist() == pytest.approx([sweep.original[name]] * 2, rel=1e-12)
        assert kind == "random" or ppl[2, 0] == ppl[2, 1]  # nothing is drawn at 0
    rows = sweep.rows()
    assert len(rows) == 4 * 2 * 2 * 4 and rows[0].keys() == rows[-1].keys()


def test_a_sweep_leaves_the_model_and_refuses_what_it_cannot_do(tiny, refuses):
    lm = tiny("opt")
    before = {name: t.clone() for name, t in lm.model.state_dict().items()}
    sub = subnetwork(lm)
    evaluate.sensitivity(lm, KG, sub, [0.5], seeds=1, progress=False)
    assert all(torch.equal(t, before[name]) for name, t in lm.model.state_dict().items())
    for shares, seeds in (([], 1), ([-1.5, 0], 1), ([0], 0)):
        with refuses(ValueError, "give shares of −1 or more"):
            evaluate.sensitivity(lm, KG, sub, shares, seeds, progress=False)
    with refuses(ValueError, "found in another model"):
        evaluate.sensitivity(tiny("opt", seed=2), KG, sub, progress=False)


def test_mini_knows_every_target_fact_and_random_weights_are_not_where_it_is(mini):
    kg = lens.data.knowledge("building")
    sub = subnetwork(mini, density=0.03, layers=(4, 5, 6, 7))
    result = measure(mini, kg, {"random": sub}, sizes={"control": 8, "control_held_out": 8, "text_held_out": 2})
    for name in ("target", "unseen"):
        assert result["original"][name].top1 == 1 and result["random"][name].top1 > 0.95
        assert result["random"][name].delta_ppl < 0.1
