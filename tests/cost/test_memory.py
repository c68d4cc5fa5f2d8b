"""The calculator against what it calculates: bytes of tensors, counted while the step runs."""

from __future__ import annotations

import csv
from functools import partial

import pytest
import torch

from lens import cost
from lens.__main__ import main
from lens.data import paths
from lens.mask import Config
from lens.mask.places import places
from lens.mask.scores import Scores
from lens.scale.bench import memory_cost as bench
from lens.scale.bench.measure import random_gpt2
from lens.scale.bench.tensors import peak_tensor_bytes, saved_bytes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small():
    return random_gpt2("cpu", n_embd=128, n_layer=4, n_head=4, vocab_size=6144)


CASES = {
    "mask": partial(bench.masks, texts=2, tokens=32),
    "mask, three samples": partial(bench.masks, samples="independent"),
    "mask, checkpointing": partial(bench.masks, checkpointing=True),
    "as published": partial(bench.masks, step="published", texts=2, tokens=32),
    "forward": partial(bench.forward, batch=16, tokens=32),
    "lens": partial(bench.lens, batch=16, tokens=32),
    "finetune": partial(bench.finetune, batch=4, tokens=32),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_is_within_a_tenth_of_what_is_held(small, name):
    task, told = CASES[name](small)
    task()
    assert told.beyond_weights == pytest.approx(peak_tensor_bytes(task), rel=0.1)


def test_the_resident_size_agrees_where_freed_tensors_are_given_back():
    run = bench._alone("mask, mini", bench.ALONE)
    if run["resident"] is None:
        pytest.skip("this system does not say how much memory a process held at most")
    assert run["computed"] == pytest.approx(run["resident"], rel=0.1)


def test_scores_and_adam_are_exactly_what_training_makes(small):
    config = Config()
    scores = Scores(places(small, config.layers, config.sites), "weight", 0.5, 0)
    adam = torch.optim.Adam(scores.values, fused=True)
    for v in scores.values:
        v.grad = torch.zeros_like(v)
    adam.step()
    told = cost.memory(small, "mask").parts
    assert told["scores"] == sum(v.nbytes for v in scores.values)
    assert told["optimizer"] == sum(s[k].nbytes for s in adam.state.values() for k in ("exp_avg", "exp_avg_sq"))


def test_twenty_bytes_a_masked_weight_and_sixteen_in_half_precision():
    for dtype, bytes_ in (("float32", 20), ("bfloat16", 16)):
        each = cost.memory("gpt2-xl", dtype=dtype).per_weight()
        assert sum(each[part] for part in ("scores", "optimizer", "sampled weights", "gradients")) == bytes_
        assert each["packed mask"] == 1 / 8


WORK = {step: dict(batch=8, tokens=128, scored=128) for step in ("lora", "finetune")}
CARDS = {
    "gpt2-xl": "forward T4, lens T4, shift T4, rome T4, memit T4, mask V100, published V100, lora T4, finetune T4",
    "llama-2-7b": "forward T4, lens T4, shift T4, rome V100, memit V100, mask A100, published H200, lora V100, "
    "finetune A100",
}


@pytest.mark.parametrize("model", CARDS)
def test_each_step_needs_its_weights_by_hand_and_the_smallest_card_above_that(model):
    """In 16 bits the model takes 2 bytes a weight.  On top a mask takes 16 a score; as published, score and Adam take 6
    in 16 bits, and each of three samples 2 and 2; a weight that is tuned takes 6, its gradient and Adam."""
    more = {"mask": 16, "published": 6 + 3 * 4, "finetune": 6}
    for step, card in (one.split() for one in CARDS[model].split(", ")):
        told = cost.memory(model, step, dtype="bfloat16", **WORK.get(step, {}))
        floor = 2 * told.shape.parameters + more.get(step, 0) * told.learning
        assert floor < told.total
        assert cost.fitting(told.total)[0] == card, (step, told.total / 1e9)


def test_published_weight_counts_of_known_models():
    counts = {"gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "llama-2-7b": 6_738_415_616, "llama-3-8b": 8_030_261_248}
    assert {name: cost.shape(name).parameters for name in counts} == counts


def test_a_folder_a_configuration_and_a_loaded_model_have_one_shape(mini):
    config = {"model_type": "gpt2", "n_embd": 192, "n_layer": 8, "n_head": 6, "vocab_size": 6144}
    config |= {"n_positions": mini.model.config.n_positions}
    shapes = [cost.shape(what) for what in ("mini", mini, config, mini.model.config)]
    assert len({(s.layers, s.width, s.inner, s.vocabulary, s.parameters, s.matrices) for s in shapes}) == 1


def test_more_devices_and_checkpointing_never_need_more():
    for model in ("gpt2-xl", "llama-3-8b"):
        one, two, eight = (cost.memory(model, devices=n).total for n in (1, 2, 8))
        assert eight < two < one
        assert (
            cost.memory(model, "finetune", batch=4, tokens=1024, checkpointing=True).total
            < cost.memory(model, "finetune", batch=4, tokens=1024).total
        )


def test_masked_layers_lie_together_so_two_devices_do_not_halve_them():
    one, two = cost.memory("llama-3-8b").parts, cost.memory("llama-3-8b", devices=2).parts
    assert two["scores"] == one["scores"] and two["weights"] < 0.6 * one["weights"]


def test_watching_sees_what_exists_for_a_moment_and_not_what_was_freed():
    def task():
        torch.ones(1000)
        a = torch.ones(2000)
        a = a.mul_(2)[:5]
        return a + 1

    assert peak_tensor_bytes(task) == 8000 + 20
    x = torch.ones(50, requires_grad=True)
    assert saved_bytes(lambda: x * 2 + x) == 0 and saved_bytes(lambda: (x * 2).sigmoid().exp()) == 400


@pytest.mark.parametrize("given, said", [
    (dict(step="dream"), "no step 'dream'"),
    (dict(dtype="int8"), "dtype is 'int8'"),
    (dict(heads=3), "no 'heads'"),
    (dict(batch=0), "batch is 0"),
])  # fmt: skip
def test_what_does_not_exist_is_refused_in_a_sentence(refuses, given, said):
    with refuses(ValueError, said):
        cost.memory("gpt2", **given)


def test_an_unknown_model_is_refused_in_a_sentence(refuses, capsys):
    with refuses(ValueError, "'gpt5' is not known"):
        cost.shape("gpt5")
    assert main(["cost", "--model", "gpt5"]) == 1 and "not known" in capsys.readouterr().err


def test_the_command_prints_a_table_and_says_that_it_is_computed(capsys):
    assert main(["cost", "--model", "gpt2-xl", "--step", "mask", "--dtype", "bfloat16"]) == 0
    out = capsys.readouterr().out
    assert "| scores | 2,949.1 | 4.000 |" in out and "computed, not measured" in out
    for step in ("forward", "lens", "shift", "statistics", "rome", "memit", "published", "finetune", "lora"):
        assert main(["cost", "--model", "gpt2", "--step", step]) == 0, step


def test_the_committed_peaks_are_within_a_tenth_of_what_was_computed():
    with open(paths.root() / "bench" / "cost.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert len(rows) >= 3
    for row in rows:
        for measured in ("tensors_MB", "resident_MB"):
            assert float(row["computed_MB"]) == pytest.approx(float(row[measured]), rel=0.1), (row["case"], measured)
