"""Training learns what can be learned, on what it says it trains, and leaves the model as it was."""

from __future__ import annotations

import builtins
import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lens import relearn
from lens.relearn import learners, tuning
from lens.relearn.choosing import Encoded, Scorer

KINDS = ["gpt2", "gpt_neox", "opt", "llama", "gemma2"]
METHODS = list(relearn.METHODS)
FAST = {"steps": 2, "every": 2, "batch": 4}


def snapshot(lm) -> dict:
    """Everything of the model: the bits of its tensors, their identity, its modules and their attributes."""
    tensors = {**dict(lm.model.named_parameters()), **dict(lm.model.named_buffers())}
    seen = {
        n: (id(t), t.requires_grad, t.grad, t.detach().flatten().view(torch.uint8).tolist()) for n, t in tensors.items()
    }
    for name, module in lm.model.named_modules():
        hooks = {k: list(v) for k, v in vars(module).items() if "hook" in k and hasattr(v, "keys")}
        seen[f"module {name}"] = (
            id(module),
            type(module),
            module.training,
            set(vars(module)),
            list(module._modules),
            hooks,
        )
    return seen | {"rng": torch.get_rng_state().tolist(), "grad": torch.is_grad_enabled()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind, dtype", [*((kind, torch.float32) for kind in KINDS), ("gpt2", torch.bfloat16), ("llama", torch.bfloat16)]
)
def test_the_model_is_afterwards_what_it_was_bit_for_bit(tiny, asked, some_removed, kind, method, dtype):
    lm = tiny(kind, dtype)
    sub = some_removed(lm)
    lm.model.train()
    before = snapshot(lm)
    for removed in (None, sub):
        for readout in ("likelihood", "classifier"):
            tuned = relearn.tune(lm, asked[:5], asked[4:], method, removed=removed, readout=readout, **FAST)
            assert tuned.curve[-1]["step"] == 2 and tuned.curve[-1]["loss"] > 0
            assert snapshot(lm) == before


@pytest.mark.parametrize("accident", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("method", METHODS)
def test_an_accident_in_training_leaves_the_model_whole(tiny, asked, some_removed, monkeypatch, method, accident):
    lm = tiny("llama", torch.float32)
    sub, before = some_removed(lm), snapshot(lm)
    calls, really = [], tuning.cross_entropy

    def fails(*given):
        calls.append(1)
        if len(calls) == 2:
            raise accident
        return really(*given)

    monkeypatch.setattr(tuning, "cross_entropy", fails)
    with pytest.raises(accident):
        relearn.tune(lm, asked, asked, method, removed=sub, **FAST)
    assert len(calls) == 2 and snapshot(lm) == before


def test_an_accident_while_adapters_go_in_leaves_the_model_whole(tiny, asked, monkeypatch):
    from peft.tuners.lora import Linear

    lm = tiny("llama", torch.float32)
    before, calls, really = snapshot(lm), [], Linear.__init__

    def fails(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError
        really(self, *args, **kwargs)

    monkeypatch.setattr(Linear, "__init__", fails)
    with pytest.raises(MemoryError):
        relearn.tune(lm, asked, asked, "lora", **FAST)
    assert len(calls) == 4 and snapshot(lm) == before


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["likelihood", "classifier"])
@pytest.mark.parametrize("method", METHODS)
def test_what_can_be_learned_is_learned(tiny, asked, method, readout):
    """Asked what it was taught, each method answers, and none did before."""
    lm = tiny("gpt2", torch.float32)
    steps = 200 if method == "head" else 120
    tuned = relearn.tune(lm, asked, asked, method, readout=readout, lr=0.02, steps=steps, every=steps, batch=8)
    first, last = tuned.curve
    assert first["all"] < 0.7 and last["all"] == last["filtered"] == last["rest"] == 1
    assert tuned.accuracy == {"all": 1, "filtered": 1, "rest": 1} and last["loss"] < 1.4


@pytest.mark.parametrize("kind", KINDS)
def test_a_choice_scores_the_sum_of_its_tokens_log_probabilities(tiny, asked, kind, error):
    lm = tiny(kind)
    encoded = Encoded(lm, asked)
    with torch.no_grad():
        scores = Scorer(lm, "likelihood")(encoded.batch(range(len(asked))))
        for q, row in zip(asked, scores):
            for choice, score in zip(q.choices, row):
                prompt, tail = lm.encode(q.text), lm.target_ids(choice)
                log_p = lm.model(input_ids=torch.tensor([prompt + tail])).logits[0].log_softmax(-1)
                want = sum(log_p[len(prompt) - 1 + j, token] for j, token in enumerate(tail))
                assert error(score, want) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_before_the_first_step_every_method_answers_zero_shot(tiny, asked, some_removed, method):
    lm = tiny("gpt_neox")
    for removed in (None, some_removed(lm)):
        with nullcontext() if removed is None else removed.removed(lm):
            want = relearn.zero_shot(lm, asked)
        first = relearn.tune(lm, asked, asked, method, removed=removed, steps=1).curve[0]
        assert {name: first[name] for name in want} == want and first["step"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_training_is_repeated_to_the_bit_whatever_the_random_state(tiny, asked, method):
    lm = tiny("gpt2", torch.float32)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        runs.append(relearn.tune(lm, asked, asked, method, seed=seed, **FAST))
    assert repr(runs[0].curve) == repr(runs[1].curve) != repr(runs[2].curve)


@pytest.fixture
def trained(monkeypatch):
    """``trained(…)`` as ``tune``, but it returns the learner, whose parameters hold what was trained."""

    def run(*args, **kwargs):
        seen = []
        really = learners.learner

        def spy(*a, **k):
            context = really(*a, **k)

            class Spy:
                def __enter__(self):
                    seen.append(context.__enter__())
                    return seen[0]

                def __exit__(self, *error):
                    return context.__exit__(*error)

            return Spy()

        monkeypatch.setattr(tuning, "learner", spy)
        relearn.tune(*args, **kwargs)
        return seen[0]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_removed_weights_stay_zero_when_frozen_and_move_when_free(tiny, asked, some_removed, trained, kind):
    lm = tiny(kind, torch.float32)
    sub = some_removed(lm)
    for frozen in (True, False):
        copies = trained(lm, asked, asked, "full", removed=sub, frozen=frozen, **FAST).parameters
        model = copy.deepcopy(lm.model)
        for p, trained_copy in zip(model.parameters(), copies, strict=True):
            p.data = trained_copy.detach().clone()
        after = replace(lm, model=model)
        for key in sub.bits:
            gone = sub.mask(*key)
            assert bool((after.weight(*key)[gone] == 0).all()) == frozen, key
            assert (after.weight(*key)[~gone] != lm.weight(*key)[~gone]).float().mean() > 0.5


def test_a_head_and_adapters_are_all_that_their_methods_train(tiny, asked, trained):
    lm = tiny("gpt2", torch.float32)
    (probe,) = trained(lm, asked, asked, "head", **FAST).parameters
    assert probe.shape == (24, 24) and probe.abs().max() > 0
    (probe,) = trained(lm, asked, asked, "head", readout="classifier", **FAST).parameters
    assert probe.shape == (24, 1)
    adapters = trained(lm, asked, asked, "lora", rank=3, **FAST).parameters
    assert len(adapters) == 2 * 3 * 4 and all(3 in p.shape for p in adapters)  # A and B, 3 layers, 4 modules


def test_only_facts_count_not_phrasings(tiny, asked):
    """A fact that is asked for three times weighs as much as one that is asked for once."""
    lm = tiny("gpt2")
    tuned = relearn.tune(lm, asked, asked, steps=1)
    right = [tuned.right[q.fact] for q in asked]
    first = right.index(1.0) if 1.0 in right else 0
    again = relearn.tune(lm, asked, (*asked, asked[first], asked[first]), steps=1)
    assert again.accuracy == tuned.accuracy and again.right == tuned.right


def test_further_questions_are_columns_of_the_curve(tiny, asked, refuses):
    lm = tiny("gpt2")
    tuned = relearn.tune(lm, asked, asked[:4], also={"train": asked, "half": asked[:4]}, steps=3, every=2)
    assert [row["step"] for row in tuned.curve] == [0, 2, 3]
    assert all(row["half"] == row["all"] and 0 <= row["train"] <= 1 for row in tuned.curve)
    with refuses(ValueError, "'rest'"):
        relearn.tune(lm, asked, asked, also={"rest": asked})


def test_without_peft_the_remedy_is_named(tiny, asked, monkeypatch, refuses):
    really = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "peft":
            raise ImportError(name)
        return really(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    lm = tiny("gpt2")
    before = snapshot(lm)
    with refuses(ImportError, "pip install"):
        relearn.tune(lm, asked, asked, "lora", **FAST)
    assert snapshot(lm) == before


def test_a_training_that_diverges_is_ended_by_name(tiny, asked, refuses):
    lm = tiny("gpt2")
    before = snapshot(lm)
    with refuses(ValueError, r"loss became nan in step \d: try a smaller lr than 1e\+200"):
        relearn.tune(lm, asked, asked, "full", lr=1e200, steps=9)
    assert snapshot(lm) == before
    for method in ("lora", "full"):  # behind the last step no loss follows, only scores
        with refuses(ValueError, r"loss became \S+ in step 1: try a smaller lr than 1e\+200"):
            relearn.tune(lm, asked, asked, method, lr=1e200, steps=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_of_a_model_in_half_precision_are_wide_enough_to_train(tiny, asked, trained, dtype):
    lm = tiny("gpt2", dtype)
    adapters = trained(lm, asked, asked, "lora", **FAST).parameters
    assert {p.dtype for p in adapters} == {torch.float32} and all(p.isfinite().all() for p in adapters)


def test_iterators_are_read_once_and_inference_mode_is_no_hindrance(tiny, asked):
    lm = tiny("gpt2", torch.float32)
    want = relearn.tune(lm, asked, asked, also={"again": asked}, **FAST)
    with torch.inference_mode():
        found = relearn.tune(lm, iter(asked), iter(asked), also={"again": iter(asked)}, **FAST)
    assert repr(found.curve) == repr(want.curve) and found.right == want.right
    assert relearn.zero_shot(lm, iter(asked)) == relearn.zero_shot(lm, asked)


def test_what_does_not_fit_is_refused(tiny, asked, some_removed, refuses):
    lm, of_another = tiny("gpt2"), some_removed(tiny("gpt2", seed=1))
    before = snapshot(lm)
    for wrong, words in [
        ({"method": "prompt"}, "no method 'prompt'.*head, lora, full"),
        ({"readout": "sum"}, "no readout 'sum'"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 1.5}, "batch is 1.5"),
        ({"lr": -1.0}, "lr is -1"),
        ({"removed": of_another}, "another model"),
    ]:
        with refuses(ValueError, words):
            relearn.tune(lm, asked, asked, **wrong)
    for questions, words in [
        ((), "no questions"),
        ([replace(asked[0], answer=None)], "not published"),
        ([asked[0], replace(asked[1], choices=("a", "b"), answer=0)], "2 choices: give each the same"),
        ([replace(asked[0], text="long " * 40)], "tokens"),
    ]:
        for train, test in ((questions, asked), (asked, questions)):
            with refuses(ValueError, words):
                relearn.tune(lm, train, test)
    assert snapshot(lm) == before


def test_the_choices_of_a_ruined_model_are_no_answers(tiny, asked, refuses):
    lm = tiny("gpt2")
    with torch.no_grad():
        lm.weight(1, "ff2").fill_(1e300)
    with refuses(ValueError, "Scores of choices are NaN or infinite"):
        relearn.zero_shot(lm, asked)
