"""The overlap explorer shows lens.overlap's own numbers: of every two, and of three of one TargetKG."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
import torch

import lens
from lens.course.widgets import OverlapExplorer

NAMES = [("building", 0), ("building", 1), ("building", 2), ("fruit", 0), ("fruit", 1), ("fruit", 2), ("sun", 0)]


@pytest.fixture(scope="module")
def masks():
    return {name: lens.mask.shipped(*name) for name in NAMES}


@pytest.fixture(scope="module")
def explorer(masks):
    return OverlapExplorer(masks)


def _agrees(row, overlap):
    total, sizes, regions, shared, iou = row
    assert total == overlap.intersection().of and sizes == list(overlap.sizes().values())
    assert len(regions) == 2 ** len(sizes) - 1
    for k, (count, expected) in enumerate(regions):
        names = [name for i, name in enumerate(overlap.names) if (k + 1) >> i & 1]
        assert count == overlap.exactly(*names).observed
        assert expected == pytest.approx(overlap.exactly(*names).expected, rel=5e-3)
    assert sum(count for count, _ in regions) == overlap.union().observed
    for got, want in ((shared, overlap.intersection()), (iou, overlap.iou())):
        assert got == pytest.approx([want.observed, want.expected, want.low, want.high], rel=5e-3)
    assert shared[0] == overlap.intersection().observed, "counts are exact"


def test_every_two_are_compared(explorer, masks):
    for some in combinations(range(7), 2):
        overlap = lens.overlap.compare({NAMES[i]: masks[NAMES[i]] for i in some})
        _agrees(explorer.state["found"][",".join(map(str, some))][0], overlap)


def test_those_of_one_target_kg_are_also_compared_three_at_a_time_and_by_layer_and_site(explorer, masks):
    found = explorer.state["found"]
    assert sorted(key for key in found if key.count(",") == 2) == ["0,1,2", "3,4,5"]
    whole = {key for key, rows in found.items() if len(rows) == 11}
    assert whole == {"0,1", "0,2", "1,2", "0,1,2", "3,4", "3,5", "4,5", "3,4,5"}
    assert all(len(found[key]) == 1 for key in found if key not in whole)
    overlap = lens.overlap.compare([masks["building", seed] for seed in range(3)])
    named = dict(zip(explorer.state["parts"], found["0,1,2"]))
    _agrees(named["all layers and sites"], overlap)
    for layer, part in overlap.by("layer").items():
        _agrees(named[f"layer {layer}"], part)
    for site, part in overlap.by("site").items():
        _agrees(named[site], part)


def test_of_a_few_subnetworks_every_three_are_compared_in_every_part(masks):
    four = OverlapExplorer({name: masks[name] for name in NAMES[1:5]})
    assert len(four.state["found"]) == 6 + 4 and all(len(rows) == 11 for rows in four.state["found"].values())


def test_neurons_are_counted_as_neurons(masks):
    neurons = [lens.mask.shipped(name, granularity="neuron") for name in ("building", "fruit")]
    state = OverlapExplorer(neurons).state
    assert state["unit"] == "neurons"
    _agrees(state["found"]["0,1"][0], lens.overlap.compare(neurons))


@pytest.mark.slow
def test_state_is_plain_json_and_small_for_thirty_subnetworks():
    thirty = {(name, seed): lens.mask.shipped(name, seed) for name in lens.data.target_kgs() for seed in range(3)}
    state = OverlapExplorer(thirty).state
    text = json.dumps(state, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(text) == state and len(text.encode()) < 150_000
    assert len(state["found"]) == 435 + 10


# What a reader chooses in a running notebook


def test_any_three_can_be_asked_for_in_every_part(explorer, masks):
    explorer.request = {"id": "a", "of": [6, 0, 3]}
    case = explorer.answer["case"]
    assert case["of"] == "0,3,6" and len(case["found"]) == 11
    _agrees(case["found"][0], lens.overlap.compare({NAMES[i]: masks[NAMES[i]] for i in (0, 3, 6)}))


@pytest.mark.parametrize("of", [[], [1], [1, 1], [0, 99], [0, 1, 2, 3], ["0", None], [[0], 1], None, 3])
def test_a_choice_that_is_none_is_one_sentence(explorer, of):
    explorer.request = {"id": str(of), "of": of}
    assert explorer.answer["problem"].endswith("subnetworks.")


def test_one_too_many_and_other_models_are_refused(masks, refuses):
    with refuses(ValueError, "Give 2 to 30 subnetworks to compare, not 1"):
        OverlapExplorer([masks["building", 0]])
    with refuses(ValueError, "not 31"):
        OverlapExplorer({str(i): masks["building", 0] for i in range(31)})
    with refuses(ValueError, "different models"):
        OverlapExplorer({"a": masks["building", 0], "b": lens.mask.shipped("building", model="mini-s")})


# With the model


@pytest.fixture(scope="module")
def asking(mini, masks):
    mixed = {
        "a": masks["building", 0],
        "b": masks["building", 1],
        "n": lens.mask.shipped("building", granularity="neuron"),
    }
    return OverlapExplorer(mixed, mini)


@pytest.mark.parametrize("of", [[0, 1], [0, 2], [0, 1, 2]])
def test_a_prompt_is_answered_without_each_region_each_whole_and_all(mini, asking, of):
    prompt = "A cafe is a kind of"
    case = asking.compute({"of": of, "prompt": f"{prompt} "})
    some = [one.subnetwork for one in asking._masks]
    some = [some[i] for i in of]
    keys = some[0].bits
    m = [{key: one.mask(*key) for key in keys} for one in some]
    inside = [[bool(bits >> i & 1) for i in range(len(of))] for bits in range(1, 1 << len(of))]
    gone = [
        {key: torch.stack([one[key] == held for one, held in zip(m, bits)]).all(0) for key in keys} for bits in inside
    ]
    gone += [*m, {key: torch.stack([one[key] for one in m]).any(0) for key in keys}]
    assert case["of"] == ",".join(map(str, of)) and case["questions"] == [["typed", prompt, "restaurant"]]
    assert len(case["after"]) == len(gone) == (6 if len(of) == 2 else 11)
    for removed, after in zip(gone, case["after"]):
        before = {key: mini.weight(*key).detach().clone() for key in keys}
        try:
            with torch.no_grad():
                for key, where in removed.items():
                    mini.weight(*key).masked_fill_(where, 0)
            seen = lens.logit_lens(mini, prompt, k=4)
        finally:
            with torch.no_grad():
                for key, weight in before.items():
                    mini.weight(*key).copy_(weight)
        assert torch.allclose(torch.tensor(after[0][3::2]) / 1e4, seen.probabilities[-1, -1], rtol=0, atol=1.01e-4)
        assert case["words"][after[0][2]] == seen.words[-1][-1][0]


def test_without_a_model_and_with_another_it_says_so(tiny, explorer, masks, refuses):
    explorer.request = {"id": "p", "of": [0, 1], "prompt": "A cafe is"}
    assert explorer.answer["problem"].startswith("This explorer has no model to ask: give it one")
    assert not explorer.state["asks"] and "model" not in explorer.state["kernel"]
    with refuses(ValueError, "found in another model"):
        OverlapExplorer(masks, tiny("gpt2"))
