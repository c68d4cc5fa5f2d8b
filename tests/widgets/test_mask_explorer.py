"""The mask explorer shows a subnetwork's own densities and what the model says without it, and changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import lens
from lens.course.widgets import MaskExplorer
from lens.course.widgets.answers import UNIT
from lens.course.widgets.mask_cases import but_for_head, heads, parts
from lens.course.widgets.named_masks import named
from lens.data import paths
from lens.kernels.bits import pack

PLACES = 1.01 / UNIT


@pytest.fixture(scope="module")
def building():
    return lens.mask.shipped("building")


@pytest.fixture(scope="module")
def explorer(mini, building):
    return MaskExplorer(mini, [building, lens.mask.shipped("fruit", 1)])


def _read(lm, case, answer, text):
    seen = lens.logit_lens(lm, text, k=4)
    assert torch.allclose(torch.tensor(answer[3::2]) / UNIT, seen.probabilities[-1, -1], rtol=0, atol=PLACES), text
    assert case["words"][answer[2]] == seen.words[-1][-1][0]


def test_densities_are_the_subnetwork_s_own(explorer, building):
    shown = explorer.state["masks"][0]
    module, head = building.density("module"), building.density("head")
    assert shown["density"] == pytest.approx(building.density(), rel=1e-3)
    assert shown["weights"] == [sum(bits.count() for bits in building.bits.values()), 1769472]
    for i, layer in enumerate(shown["layers"]):
        assert shown["by_layer"][i] == pytest.approx(building.density("layer")[layer], rel=1e-3)
        for j, site in enumerate(shown["sites"]):
            assert shown["modules"][i][j] == pytest.approx(module[layer, site], rel=1e-3)
            heads = [head[key] for key in head if key[:2] == (layer, site)]
            assert (shown["heads"][i][j] or []) == pytest.approx(heads, rel=1e-3)
    assert shown["by_site"] == pytest.approx(list(building.density("site").values()), rel=1e-3)
    assert len(shown["heads"][0][0]) == 6 and shown["heads"][0][-1] is None, "heads belong to attention"


def test_answers_are_those_of_the_model_with_and_without_it(mini, explorer, building):
    shown = explorer.state["masks"][0]
    sets = ["target"] * 2 + ["unseen"] + ["control_held_out"] * 2 + ["text_held_out"]
    assert [q[0] for q in shown["questions"]] == sets
    for i, (_, text, _) in enumerate(shown["questions"]):
        _read(mini, shown, shown["before"][i], text)
        with building.removed(mini):
            _read(mini, shown, shown["after"][0][i], text)


def test_a_part_is_the_mask_in_one_layer_or_at_one_site(mini, explorer, building):
    shown = explorer.state["masks"][0]
    by_hand = [building, *([k for k in building.bits if k[0] == layer] for layer in shown["layers"])]
    by_hand += [[k for k in building.bits if k[1] == site] for site in shown["sites"]]
    by_hand += [[k for k in building.bits if k[0] != layer] for layer in shown["layers"]]
    found = parts(building)
    assert len(found) == len(by_hand) == len(shown["after"]) == 15
    for keys, part, after in list(zip(by_hand, found, shown["after"]))[1::3]:
        assert list(part.bits) == keys
        before = {key: mini.weight(*key).detach().clone() for key in building.bits}
        with part.removed(mini):
            for key, weight in before.items():
                gone = building.mask(*key) if key in keys else torch.zeros_like(weight, dtype=torch.bool)
                assert torch.equal(mini.weight(*key), weight.masked_fill(gone, 0))
            _read(mini, shown, after[0], shown["questions"][0][1])


def test_a_head_that_is_given_back_has_its_own_weights_and_all_others_stay_removed(mini, building):
    before = {key: mini.weight(*key).detach().clone() for key in building.bits}
    with but_for_head(building, 5, 2).removed(mini):
        for (layer, site), weight in before.items():
            want = weight.masked_fill(building.mask(layer, site), 0)
            if layer == 5 and site.startswith("attn_"):  # 6 heads of 32
                part = (slice(64, 96),) if site == "attn_out" else (slice(None), slice(64, 96))
                want[part] = weight[part]
            assert torch.equal(mini.weight(layer, site), want)


def test_a_head_of_neurons_and_one_that_shares_its_keys_are_given_back(tiny, error):
    lm = tiny("llama")  # 4 heads of queries, 2 of keys and values, 8 wide
    rows = lens.mask.shipped("building", granularity="neuron")
    shapes = {(1, site): tuple(lm.weight(1, site).shape) for site in ("attn_q", "attn_k", "attn_out", "ff1")}
    bits = {key: pack(torch.ones(shape[0], 1, dtype=torch.bool)) for key, shape in shapes.items()}
    every = replace(rows, bits=bits, shapes=shapes, fingerprint=lm.fingerprint, head_dim=8)
    before = {key: lm.weight(*key).detach().clone() for key in shapes}
    assert heads(every) == {1: 4}
    with but_for_head(every, 1, 3).removed(lm):
        kept = {site: lm.weight(1, site) == before[1, site] for _, site in shapes}
        assert kept["attn_q"].all(0).nonzero().flatten().tolist() == list(range(24, 32))
        assert kept["attn_k"].all(0).nonzero().flatten().tolist() == list(range(8, 16))
        assert kept["attn_out"].all(1).nonzero().flatten().tolist() == list(range(24, 32))
        assert not kept["ff1"].any()


def test_the_facts_shown_are_known_before_and_the_targets_forgotten_after(explorer):
    for shown in explorer.state["masks"]:
        said = {name: [a[1] for a, q in zip(shown["before"], shown["questions"]) if q[0] == name] for name in ("target",
                "control_held_out", "text_held_out")}  # fmt: skip
        assert all(all(some) for some in said.values())
        assert not any(a[1] for a, q in zip(shown["after"][0], shown["questions"]) if q[0] == "target")


def test_the_model_is_afterwards_what_it_was_bit_for_bit(mini, building):
    before = {name: p.detach().clone() for name, p in mini.model.named_parameters()}
    MaskExplorer(mini, building).compute({"mask": 0, "prompt": "A cafe is a kind of"})
    for name, p in mini.model.named_parameters():
        assert torch.equal(p, before[name]), name


def test_a_subnetwork_of_neurons_is_shown_too(mini):
    neurons = lens.mask.shipped("building", granularity="neuron")
    (shown,) = MaskExplorer(mini, neurons).state["masks"]
    assert shown["label"] == "seed 0, neurons" and shown["density"] == pytest.approx(neurons.density(), rel=1e-3)


def test_facts_of_one_s_own_can_be_asked_for(mini, building):
    mine = lens.data.knowledge(lens.data.verbalize([("cafe", "hypernym", "restaurant")]))
    (shown,) = MaskExplorer(mini, {"mine": building}, {"mine": mine}).state["masks"]
    assert shown["group"] == "mine" and "cafe" in shown["questions"][0][1]


@pytest.mark.slow
def test_state_is_plain_json_and_small_for_twelve_subnetworks(mini):
    names = lens.data.target_kgs()[:4]
    twelve = {(name, seed): lens.mask.shipped(name, seed) for name in names for seed in range(3)}
    state = MaskExplorer(mini, twelve).state
    text = json.dumps(state, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(text) == state and len(text.encode()) < 80_000
    assert [(m["group"], m["label"]) for m in state["masks"][:2]] == [(names[0], "seed 0"), (names[0], "seed 1")]


# What a reader types


def test_a_typed_prompt_is_answered_with_and_without_every_part(mini, explorer):
    explorer.request = {"id": "a", "mask": 1, "prompt": "The capital of France is "}
    case = explorer.answer["case"]
    assert case["mask"] == 1 and case["questions"] == [["typed", "The capital of France is", "Paris"]]
    assert len(case["after"]) == 15 + 4 * 6, "without every part, then without all but each head"
    with lens.mask.shipped("fruit", 1).removed(mini):
        _read(mini, case, case["after"][0][0], "The capital of France is")


def test_the_prepared_prompts_are_answered_with_each_head_of_a_layer_given_back(mini, explorer, building):
    explorer.request = {"id": "heads", "mask": 0, "layer": 6}
    case, shown = explorer.answer["case"], explorer.state["masks"][0]
    assert (case["mask"], case["layer"], case["questions"]) == (0, 6, shown["questions"]) and len(case["after"]) == 6
    with but_for_head(building, 6, 4).removed(mini):
        for i, (_, text, _) in enumerate(shown["questions"]):
            _read(mini, case, case["after"][4][i], text)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"mask": 0, "layer": 3}, "Layer 3 has no heads in this subnetwork; those that have: 4, 5, 6, 7."),
        ({"mask": 0, "layer": "4"}, "Layer '4' has no heads"),
        ({"mask": 0, "prompt": "  "}, "at least one word"),
        ({"mask": 0}, "at least one word"),
        ({"mask": 0, "prompt": "cafe " * 300}, "reads at most"),
        ({"mask": 0, "prompt": "\ud800"}, "half a character"),
        ({"mask": 7, "prompt": "A cafe is"}, "no subnetwork number 7"),
        ({"prompt": "A cafe is"}, "no subnetwork number None"),
    ],
)
def test_a_typed_prompt_that_cannot_be_answered_is_one_sentence(explorer, asked, says):
    explorer.request = {"id": str(asked), **asked}
    assert says in explorer.answer["problem"] and explorer.answer["problem"].endswith(".")


# Names


def test_a_file_a_list_and_a_dict_give_the_same_subnetwork_a_name(building):
    file = paths.root() / "runs" / "mini" / "building-weight-0.safetensors"
    for given in (file, str(file), [building], {("building", 0): building}, {("building", 0): file}):
        (one,) = named(given)
        assert (str(one), one.group, one.label) == ("building, seed 0", "building", "seed 0")
        assert one.subnetwork.density() == building.density()
    assert [str(one) for one in named({"a": building, "b": building})] == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ([], ValueError, "There is no subnetwork"),
        ({}, ValueError, "There is no subnetwork"),
        ([3], TypeError, "Got 3 for a subnetwork"),
        ("nowhere.safetensors", OSError, "no subnetwork file nowhere"),
    ],
)
def test_what_is_no_subnetwork_is_refused_in_one_sentence(mini, refuses, given, kind, says):
    with refuses(kind, says):
        MaskExplorer(mini, given)


def test_two_of_one_name_another_model_and_unknown_facts_are_refused(mini, building, refuses):
    with refuses(ValueError, "both called 'building, seed 0'"):
        MaskExplorer(mini, [building, building])
    with refuses(ValueError, "found in another model"):
        MaskExplorer(mini, lens.mask.shipped("building", model="mini-s"))
    with refuses(ValueError, "The facts of 'mine' are not known"):
        MaskExplorer(mini, {"mine": building})
