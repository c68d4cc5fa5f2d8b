"""Overlaps are those of the unpacked masks, whatever is asked and wherever the masks lie."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch

from lens.kernels import iou
from lens.mask import load, save
from lens.overlap import Measured, at_least, compare, intersection, union


@pytest.fixture
def four(subnetwork):
    return {name: subnetwork(seed, share) for seed, (name, share) in enumerate(zip("abcd", (0.1, 0.3, 0.5, 0.2)))}


def test_every_count_is_that_of_the_dense_masks(four, flat):
    overlap, dense = compare(four), {name: flat(one) for name, one in four.items()}
    assert overlap.sizes() == {name: int(m.sum()) for name, m in dense.items()} and overlap.unit == "weights"
    for n in (1, 2, 3, 4):
        for some in combinations("abcd", n):
            held = sum(dense[name].int() for name in some)
            outside = sum(dense[name].int() for name in "abcd" if name not in some)
            assert overlap.intersection(*some).observed == int((held == n).sum())
            assert overlap.union(*some).observed == int((held > 0).sum())
            assert overlap.iou(*some).observed == int((held == n).sum()) / int((held > 0).sum())
            assert overlap.exactly(*some).observed == int(((held == n) & (outside == 0)).sum())
            for k in range(1, n + 1):
                assert overlap.at_least(k, *some).observed == int((held >= k).sum())
    assert overlap.iou() == overlap.iou(*"abcd") == overlap.iou(*"dcba")
    assert overlap.union().of == len(dense["a"]) and overlap.union().share == overlap.union().observed / len(dense["a"])


def test_regions_and_levels_add_up_also_by_chance(four):
    overlap = compare(four)
    every = [some for n in range(1, 5) for some in combinations("abcd", n)]
    for what in ("observed", "expected"):
        total = sum(getattr(overlap.exactly(*some), what) for some in every)
        assert total == pytest.approx(getattr(overlap.union(), what))
        levels = sum(getattr(overlap.at_least(k), what) for k in range(1, 5))
        assert levels == pytest.approx(sum(overlap.sizes().values()))


@pytest.mark.parametrize("what", ["module", "layer", "site"])
def test_parts_are_the_comparison_of_those_sites_alone(four, subnetwork, what):
    parts = compare(four).by(what)
    for part, overlap in parts.items():
        some = [key for key in four["a"].bits if part in (key, *key)]
        alone = {
            name: subnetwork(0, 0.5, shapes={key: one.shapes[key] for key in some}).with_bits(
                {key: one.bits[key] for key in some}, ""
            )
            for name, one in four.items()
        }
        assert str(overlap) == str(compare(alone))
    for k in range(1, 5):
        assert sum(o.at_least(k).observed for o in parts.values()) == compare(four).at_least(k).observed


def test_files_are_compared_like_what_they_hold_and_read_a_site_at_a_time(four, tmp_path, monkeypatch):
    files = {name: save(one, tmp_path / f"{name}.safetensors") for name, one in four.items()}
    assert str(compare(files)) == str(compare(four))
    assert union(files).bits == union(four).bits
    lazy = load(files["a"], lazy=True)
    assert lazy.bits == four["a"].bits and lazy.density("module") == four["a"].density("module")
    from lens.mask.storage import InFile

    order = []
    read = InFile.__getitem__
    monkeypatch.setattr(InFile, "__getitem__", lambda self, key: order.append(key) or read(self, key))
    compare(files)
    assert [key for key, other in zip(order, [None, *order]) if key != other] == list(four["a"].bits)


def test_neurons_are_compared_as_neurons(subnetwork):
    a, b = (subnetwork(seed, 0.4, "neuron") for seed in (1, 2))
    overlap = compare([a, b])
    shared = sum((a.bits[key] & b.bits[key]).count() for key in a.bits)
    assert overlap.unit == "neurons" and overlap.intersection().observed == shared
    assert overlap.intersection().of == sum(shape[0] for shape in a.shapes.values())


def test_neurons_beside_weights_count_with_all_their_weights(subnetwork, flat):
    some = [subnetwork(1, 0.4, "neuron"), subnetwork(2, 0.3), subnetwork(3, 0.2, "neuron")]
    overlap, dense = compare(some), torch.stack([flat(one) for one in some])
    assert overlap.unit == "weights" and overlap.by_row == (True, False, True)
    assert overlap.sizes() == dict(enumerate(dense.sum(1).tolist()))
    assert overlap.intersection().observed == int(dense.all(0).sum())
    assert torch.equal(flat(union(some)), dense.any(0)) and torch.equal(flat(intersection(some)), dense.all(0))
    assert union(some).config.granularity == "weight"
    rows, one = overlap.intersection(0, 2), compare([some[0], some[2]]).by("module")
    lone = {key: o.intersection() for key, o in one.items()}
    assert rows.expected == pytest.approx(sum(m.expected * some[0].shapes[key][1] for key, m in lone.items()))


@pytest.mark.parametrize("kinds", [("weight",) * 3, ("neuron", "weight", "neuron")])
def test_shuffled_masks_bear_out_every_chance_level(subnetwork, kinds):
    """400 draws: each mean within 4.5 standard errors, and 91.5 to 99.5 % of the draws in each interval."""
    overlap = compare([subnetwork(seed, 0.3, kind) for seed, kind in enumerate(kinds)])
    drawn = list(overlap.shuffled(400, seed=5))
    assert all(one.sizes() == overlap.sizes() for one in drawn)
    asked = {
        "pair": lambda o: o.intersection(0, 2),
        "all": lambda o: o.intersection(),
        "two of three": lambda o: o.at_least(2),
        "any": lambda o: o.union(),
        "only the first": lambda o: o.exactly(0),
        "IoU of a pair": lambda o: o.iou(0, 1),
        "IoU of rows": lambda o: o.iou(0, 2),
        "IoU of all": lambda o: o.iou(),
    }
    for name, ask in asked.items():
        values, level = np.array([ask(one).observed for one in drawn]), ask(overlap)
        error = values.std() / np.sqrt(len(values))
        bias = 0.003 * level.expected if "IoU" in name else 0  # of third order
        assert abs(values.mean() - level.expected) < 4.5 * error + bias, (name, values.mean(), level)
        inside = ((values >= level.low - 1e-12) & (values <= level.high + 1e-12)).mean()
        assert 0.915 <= inside <= 0.995, (name, inside, level)


def test_a_shuffle_is_that_of_its_seed(four):
    overlap = compare(four)
    one, again, other = ([o.counts for o in overlap.shuffled(2, seed)] for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, again)) and not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[0], one[1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_empty_and_full_masks_are_what_chance_gives(subnetwork, share):
    overlap = compare([subnetwork(seed, share) for seed in range(3)])
    for m in (overlap.iou(), overlap.intersection(), overlap.union(), overlap.at_least(2), overlap.exactly(0)):
        assert m.observed == pytest.approx(m.expected) and m.low == pytest.approx(m.high) == pytest.approx(m.observed)
    assert overlap.iou().observed == 1.0


def test_the_same_mask_twice_overlaps_wholly(subnetwork):
    one = subnetwork(0)
    overlap = compare({"one": one, "again": one})
    m = overlap.iou()
    assert m.observed == 1.0 and m.high < 0.2 and m.ratio > 5
    assert m.observed == iou(one.bits[2, "ff1"], one.bits[2, "ff1"])


def test_a_table_says_every_number(four):
    text = str(compare(four))
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[1].startswith("|--")
    assert "IoU of a and b" in text and "in at least 3" in text and "in any" in text
    assert str(Measured(2, 1.0, 0.0, 3.0, 10)) == "2 (chance 1 [0, 3])" and Measured(2, 1.0, 0, 3, 10).ratio == 2


def test_sets_are_those_of_the_dense_masks_and_say_what_they_are(four, flat):
    held = sum(flat(one).int() for one in four.values())
    for k, note in ((1, "union of 4 subnetworks"), (2, "in at least 2 of 4"), (3, "3 of 4"), (4, "intersection of 4")):
        found = at_least(list(four.values()), k)
        assert torch.equal(flat(found), held >= k) and note in found.about["note"] and found.history == ()
    assert union(four).bits == at_least(four, 1).bits and intersection(four).bits == at_least(four, 4).bits


def test_a_set_can_be_removed_from_its_model(mini):
    import lens

    three = [lens.mask.shipped("building", seed) for seed in range(3)]
    both = intersection(three)
    before = mini.weight(5, "ff1").clone()
    with both.removed(mini):
        m = both.mask(5, "ff1")
        assert int(m.sum()) and not mini.weight(5, "ff1")[m].any()
    assert torch.equal(mini.weight(5, "ff1"), before)


def test_what_cannot_be_compared_is_refused_in_one_sentence(subnetwork, refuses, tmp_path):
    one = subnetwork(0)
    for call in (compare, union, intersection):
        with refuses(ValueError, "Give 2 to 16 subnetworks to compare, not 1"):
            call([one])
        with refuses(ValueError, "not 17"):
            call([one] * 17)
        with refuses(ValueError, "'a' and 'b' belong to different models"):
            call({"a": one, "b": subnetwork(0, fingerprint="g")})
        with refuses(ValueError, "0 and 2 do not mask the same sites .layer 9 ff1 differs"):
            call([one, one, subnetwork(0, shapes=dict(one.shapes) | {(9, "ff1"): (3, 4)})])
        with refuses(TypeError, "1 is str|1 is int"):
            call([one, 3])
        with refuses(TypeError, "Give several subnetworks"):
            call(one)
        with refuses(OSError, "There is no subnetwork file"):
            call([one, tmp_path / "none.safetensors"])
    overlap = compare({"a": one, "b": one})
    for k in (0, 3, 1.5, None, "2", 2.0, True):
        for ask in (overlap.at_least, partial(at_least, [one, one])):
            with refuses(ValueError, "give a whole number from 1 to 2"):
                ask(k)
    for ask in (overlap.iou, overlap.intersection, overlap.union, overlap.exactly):
        with refuses(ValueError, "There is no mask 'c': choose of 'a', 'b'"):
            ask("a", "c")
    with refuses(ValueError, "k is 3 and there are 2 masks"):
        overlap.at_least(3)
    with refuses(ValueError, "Overlap by 'head' is not known"):
        overlap.by("head")
