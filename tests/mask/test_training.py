"""Training finds scores and changes nothing else; whatever stops it, what it had found is kept."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from unicodedata import normalize

import pytest
import torch

import lens
from lens.mask import TrainingStopped, train
from lens.mask.objective import Objective
from lens.model.families import FAMILIES


@pytest.fixture
def trained(sets, short):
    """``trained(lm, **settings)``: a short training; ``checkpoint`` and ``watch`` are train's own."""

    def run(lm, checkpoint=None, watch=None, **settings):
        three = sets.target, sets.control, sets.text
        return train(lm, *three, short(**settings), checkpoint=checkpoint, watch=watch, progress=False)

    return run


def alike(one, other) -> bool:
    """Found the same way to the same end, up to the clock."""

    def timeless(subnetwork):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in subnetwork.history]

    return one.bits == other.bits and timeless(one) == timeless(other) and one.config == other.config


@pytest.fixture
def accident(monkeypatch):
    """``accident(7, error)``: the seventh step from now raises; ``accident(7, change)`` changes its losses."""

    honest = Objective.backward

    def arrange(step: int, what):
        calls = []

        def backward(self, scores, *rest):
            calls.append(1)
            found = honest(self, scores, *rest)
            if len(calls) != step:
                return found
            if isinstance(what, type):
                raise what
            return what(scores, found)

        monkeypatch.setattr(Objective, "backward", backward)

    yield arrange
    monkeypatch.undo()


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_training_leaves_the_model_untouched_and_forgets_no_site(tiny, trained, state, kind, granularity):
    lm = tiny(kind, torch.float32)
    before = state(lm.model)
    sub = trained(lm, granularity=granularity, express=0.5)
    assert state(lm.model) == before
    assert set(sub.bits) == {(layer, site) for layer in (1, 2) for site in lm.sites}
    for key in sub.bits:
        assert sub.mask(*key).shape == lm.weight(*key).shape == sub.shapes[key]
    assert 0 < sub.density() < 1 and sub.config == replace(sub.config, granularity=granularity)
    assert [row["step"] for row in sub.history] == [2, 4, 6] and sub.model == lm.name
    assert sub.about["seconds"] > 0 and sub.history[-1]["hard"]["density"] == sub.density()
    with sub.removed(lm), torch.no_grad():
        assert torch.isfinite(lm.model(input_ids=torch.tensor([[5, 6]]), use_cache=False).logits).all()


def test_the_last_check_measured_the_model_without_its_subnetwork(tiny, sets, trained):
    lm = tiny("gpt_neox", torch.float32)
    sub = trained(lm, tokens=60)
    losses = []
    with sub.removed(lm), torch.no_grad():
        for p in sets.target:
            ids, tail = lm.encode(p.text), lm.target_ids(p.target)
            z = lm.model(input_ids=torch.tensor([ids + tail]), use_cache=False).logits[0, len(ids) - 1 : -1]
            losses.append((z.logsumexp(-1) - z.mean(-1)).mean() - torch.tensor(float(z.shape[-1])).log())
    assert sub.history[-1]["hard"]["suppress"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_training_moves_the_losses_where_they_should_go(tiny, trained):
    """Suppression alone makes the prediction nearly uniform; sparsity alone empties the mask."""
    lm = tiny("gpt2", torch.float32)
    alone = trained(lm, steps=40, check=20, maintain_kg=0, maintain_lm=0, sparsity=(0, 0), warmup=0)
    none = trained(lm, steps=40, check=20, suppress=0, maintain_kg=0, maintain_lm=0, warmup=0)
    whole = none.history[-1]["hard"]["suppress"]
    assert none.density() == 0 and none.history[-1]["hard"]["maintain_lm"] < 1e-6
    assert alone.history[-1]["sampled"]["suppress"] < 0.7 * whole


@pytest.mark.parametrize("kind, dtype", [("gpt2", torch.bfloat16), ("gpt2", torch.float16), ("llama", torch.bfloat16)])
def test_models_in_half_precision_train(tiny, trained, state, kind, dtype):
    lm, wide = tiny(kind, dtype), tiny(kind, dtype)
    before = state(lm.model)
    sub = trained(lm)
    assert state(lm.model) == before
    wide.model.float()
    exact = trained(lens.LanguageModel(wide.model, wide.tokenizer))
    for key in ("suppress", "maintain_lm"):
        assert sub.history[0]["sampled"][key] == pytest.approx(exact.history[0]["sampled"][key], rel=0.1)
    shared = sum((sub.bits[key] ^ exact.bits[key]).count() for key in sub.bits)
    assert shared < 0.05 * sum(rows * columns for rows, columns in sub.shapes.values())


def test_dropout_is_off_also_in_a_model_in_training_mode(tiny, trained, state):
    calm = tiny("gpt2", torch.float32)
    wild = tiny("gpt2", torch.float32, attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    wild.model.train()
    before = state(wild.model)
    assert alike(trained(wild), trained(calm)) and state(wild.model) == before and wild.model.training


def test_it_trains_where_gradients_are_switched_off(tiny, trained):
    lm = tiny("gpt2", torch.float32)
    with torch.no_grad():
        off = trained(lm)
    with torch.inference_mode():
        inference = trained(lm)
    assert alike(off, trained(lm)) and alike(inference, off)


def test_layers_below_the_first_masked_one_run_once(tiny, trained):
    lm = tiny("gpt2", torch.float32)
    calls: list[int] = []
    for i, layer in enumerate(lm.layers):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    counts = []
    for steps in (4, 12):
        calls.clear()
        trained(lm, steps=steps, check=steps, layers=(-1,), targets=6, controls=5, texts=4)  # every step sees all rows
        counts.append([calls.count(i) for i in range(3)])
    (few, same, last), (few_later, same_later, last_later) = counts
    assert few == same == few_later == same_later and last_later == last + 8 * 2


def test_the_seed_decides_everything(tiny, trained):
    lm = tiny("llama", torch.float32)
    torch.manual_seed(1)
    one = trained(lm)
    torch.manual_seed(2)
    assert alike(trained(lm), one) and trained(lm, seed=4).bits != one.bits


def test_training_ends_at_the_first_check_that_meets_every_goal(tiny, trained, tmp_path):
    lm = tiny("gpt2", torch.float32)
    whole = trained(lm, steps=12, warmup=0, start=0.6)
    hard = [row["hard"] for row in whole.history]
    assert len(hard) == 6
    goal = {"density": hard[2]["density"], "maintain_lm": max(row["maintain_lm"] for row in hard[2:])}
    first = next(i for i, row in enumerate(hard) if all(row[name] <= goal[name] for name in goal))
    assert first > 0  # the first check alone does not meet them
    file = tmp_path / "run"
    stopped = trained(lm, steps=12, warmup=0, start=0.6, stop=goal, checkpoint=file)
    assert [row["hard"] for row in stopped.history] == hard[: first + 1]
    assert alike(trained(lm, steps=12, warmup=0, start=0.6, stop=goal, checkpoint=file), stopped)  # and stays ended
    never = trained(lm, steps=12, warmup=0, start=0.6, stop=goal | {"suppress": 0})
    assert never.bits == whole.bits


def test_sets_that_cannot_be_trained_on_are_refused(tiny, sets, short, refuses):
    lm = tiny("gpt2", torch.float32)

    def attempt(target=sets.target, control=sets.control, text=sets.text, **settings):
        train(lm, target, control, text, short(**settings), progress=False)

    for name in ("target", "control", "text"):
        with refuses(ValueError, "is empty"):
            attempt(**{name: []})
    with refuses(ValueError, "control_lm is .*: give a list, with a text in each place"):
        attempt(text="The sea is wide.")
    with refuses(ValueError, "holds a fact of the target set .*A cafe is"):
        attempt(control=[*sets.control, sets.target[0]])
    other_words = replace(sets.target[0], text="One thing that serves coffee is a")
    with refuses(ValueError, "holds a fact of the target set"):
        attempt(control=[*sets.control, other_words])
    same_words = replace(sets.control[0], text=sets.target[0].text)
    with refuses(ValueError, "holds a fact of the target set"):
        attempt(control=[same_words])
    cafe, apart = (normalize(form, "A caf\u00e9 is a kind of") for form in ("NFC", "NFD"))
    with refuses(ValueError, "holds a fact of the target set"):
        attempt([replace(sets.target[0], text=cafe)], [replace(sets.control[0], text=apart)])
    with refuses(ValueError, "says a target's sentence"):
        attempt([replace(sets.target[0], text=cafe)], text=[f"{apart} {sets.target[0].target}."])
    with refuses(ValueError, "says a target's sentence"):
        attempt(text=["Note this. A cafe is a kind of hut. It rains."])
    with refuses(ValueError, "No text of the control set has two tokens"):
        attempt(text=["", "x", " "])
    with refuses(ValueError, "reads at most 64"):
        attempt(control=[replace(sets.control[0], text="very " * 30)])
    with refuses(IndexError, "no layer 7"):
        attempt(layers=(7,))
    with refuses(ValueError, "no site 'ff3'"):
        attempt(sites=("ff3",))


def infinite(scores, losses):
    return losses | {"suppress": torch.tensor(torch.nan)}


def poisoned(scores, losses):
    """The losses are numbers and one gradient is none, as half precision can have it."""
    scores.values[0].grad[0, 0] = torch.nan
    return losses


@pytest.mark.parametrize("what, step", [(infinite, 5), (infinite, 6), (poisoned, 5), (poisoned, 6)])
def test_no_number_stops_with_the_last_good_state(tiny, trained, accident, refuses, tmp_path, what, step):
    lm = tiny("gpt2", torch.float32)
    good = trained(lm, steps=8)
    seen, file = [], tmp_path / "run"
    accident(step, what)
    with refuses(TrainingStopped, r"became nan between steps 4 and 6; .*run holds step 4: try a smaller lr than 0.5"):
        trained(lm, steps=8, checkpoint=file, watch=lambda history: seen.append((len(history), file.read_bytes())))
    assert [n for n, _ in seen] == [1, 2] and file.read_bytes() == seen[-1][1]
    accident(1, what)  # at once, in a run that goes on from its file
    with pytest.raises(TrainingStopped) as caught:
        trained(lm, steps=8, checkpoint=file)
    assert [row["step"] for row in caught.value.subnetwork.history] == [2, 4] and file.read_bytes() == seen[-1][1]
    accident(step, what)
    with refuses(TrainingStopped, "between steps 4 and 6; the error's subnetwork is that of step 4"):
        trained(lm, steps=8)
    accident(0, None)
    assert alike(trained(lm, steps=8, checkpoint=file), good)  # what the file holds is sound


def test_where_nothing_good_was_found_nothing_is_promised(tiny, trained, accident, tmp_path):
    lm = tiny("gpt2", torch.float32)
    for file in (None, tmp_path / "run"):
        accident(1, infinite)
        with pytest.raises(TrainingStopped, match="became nan between steps 0 and 2; no check came before") as caught:
            trained(lm, checkpoint=file)
        assert caught.value.subnetwork is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [1, 4, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(tiny, trained, accident, state, tmp_path, step):
    lm = tiny("qwen3", torch.float32)
    whole, before, file = trained(lm), state(lm.model), tmp_path / "run"
    accident(step, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(lm, checkpoint=file)
    assert state(lm.model) == before and file.exists() == (step > 2)
    steps = []
    accident(0, None)
    resumed = trained(lm, checkpoint=file, watch=lambda history: steps.append(history[-1]["step"]))
    assert alike(resumed, whole) and steps == [s for s in (2, 4, 6) if s >= step]
    seconds = [row["seconds"] for row in resumed.history]
    assert seconds == sorted(seconds) and [f.name for f in tmp_path.iterdir()] == ["run"]


def test_a_finished_run_gives_its_result_again(tiny, trained, tmp_path, accident):
    lm, file = tiny("gpt2", torch.float32), tmp_path / "run"
    first = trained(lm, checkpoint=file)
    accident(1, AssertionError)  # no step is taken
    assert alike(trained(lm, checkpoint=file), first)


def test_the_checkpoint_of_another_run_is_refused(tiny, trained, sets, short, refuses, tmp_path):
    lm, file = tiny("gpt2", torch.float32), tmp_path / "run"
    trained(lm, checkpoint=file)
    before = file.read_bytes()
    with refuses(ValueError, "belongs to another run"):
        trained(lm, lr=0.4, checkpoint=file)
    with refuses(ValueError, "belongs to another run"):
        trained(tiny("gpt2", torch.float32, seed=1), checkpoint=file)
    for changed in ((sets.target[1:], sets.control, sets.text), (sets.target, sets.control, sets.text[1:])):
        with refuses(ValueError, "belongs to another run"):
            train(lm, *changed, short(), checkpoint=file, progress=False)
    assert file.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tiny, trained, refuses, tmp_path):
    lm, file = tiny("gpt2", torch.float32), tmp_path / "run"
    trained(lm, checkpoint=file)
    whole = file.read_bytes()
    for damaged in (b"", whole[:1000], whole[: len(whole) // 2], b"x" * 1000):
        file.write_bytes(damaged)
        with refuses(OSError, "no whole checkpoint: remove it"):
            trained(lm, checkpoint=file)
        assert file.read_bytes() == damaged
    file.unlink()
    file.mkdir()
    with refuses(ValueError, "give the name of a file; this is a folder"):
        trained(lm, checkpoint=file)


KILLED = """
import os, pickle, signal, sys, torch, lens
from lens.mask import train, training
from lens.mask.objective import Objective
from lens.model.families import FAMILIES
from lens.model.families import FAMILIES

lens.kernels.use("torch")  # nothing is compiled
torch.set_num_threads(1)
folder, *points = sys.argv[1:]
target, control, text, config = pickle.load(open(f"{folder}/sets", "rb"))
lm = lens.load(f"{folder}/model", device="cpu")
honest, save, replace = Objective.backward, torch.save, os.replace


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def counted(call, function, then):
    calls = []

    def wrapper(*arguments, **named):
        calls.append(1)
        return then(*arguments) if len(calls) == call else function(*arguments, **named)

    return wrapper


def half(state, path):
    save(state, path)
    os.truncate(path, os.path.getsize(path) // 2)
    die()


def arrange(point):
    if point.startswith("step"):
        Objective.backward = counted(int(point[4:]), honest, die)
    elif point.startswith("writing"):
        torch.save = counted(int(point[7:]), save, half)
    else:
        os.replace = counted(int(point[8:]), replace, die)


train(lm, target, control, text, config, progress=False)  # everything is imported, and no thread was started
for point in points:
    child = os.fork()
    if not child:
        arrange(point)
        train(lm, target, control, text, config, checkpoint=f"{folder}/{point}", progress=False)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (point, status)
"""
POINTS = {"step1": 0, "step4": 2, "writing1": 0, "writing2": 2, "renaming3": 4}
"""Where a run is killed, and the last step that its checkpoint then holds."""


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_killed_run_goes_on_to_the_same_bits(tiny, trained, sets, short, tmp_path, one_thread):
    made = tiny("gpt2", torch.float32)
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    lm = lens.load(str(tmp_path / "model"), device="cpu")
    (tmp_path / "sets").write_bytes(pickle.dumps((sets.target, sets.control, sets.text, short())))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *POINTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with lens.kernels.use("torch"):
        whole = trained(lm)
        for point, held in POINTS.items():
            file, steps = tmp_path / point, []
            assert file.exists() == (held > 0), point
            resumed = trained(lm, checkpoint=file, watch=lambda history: steps.append(history[-1]["step"]))
            assert alike(resumed, whole) and steps == [s for s in (2, 4, 6) if s > held], point


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_what_is_found_outside_a_subnetwork_shares_no_weight_with_it(tiny, sets, short, trained, kind, granularity):
    lm = tiny(kind)
    settings = dict(granularity=granularity, start=0.6, sparsity=(0.0, 0.0))  # dense: disjoint by no accident
    free = trained(lm, **settings)
    first = lens.mask.shrunk(free, 0.5, seed=1)
    three = sets.target, sets.control, sets.text
    found = train(lm, *three, short(**settings), outside=first, progress=False)
    assert 0 < found.density() < free.density()
    for key, bits in found.bits.items():
        assert first.bits[key].count() and first.bits[key] | free.bits[key] == free.bits[key]
        assert (bits & first.bits[key]).count() == 0
    assert len(found.about["outside"]) == 64 and "outside" not in free.about


def test_a_neuron_stays_where_one_of_its_weights_must(tiny, sets, short):
    lm = tiny("gpt2")
    some = lens.mask.train(lm, sets.target, sets.control, sets.text, short(steps=1, check=1, start=0.6), progress=False)
    one = {key: lens.kernels.pack(torch.zeros(shape, dtype=torch.bool)) for key, shape in some.shapes.items()}
    mask = torch.zeros(some.shapes[1, "ff1"], dtype=torch.bool)
    mask[3, 5] = True
    one = some.with_bits(one | {(1, "ff1"): lens.kernels.pack(mask)}, "one weight")
    config = short(granularity="neuron", start=0.9, steps=1, check=1, lr=1e-6)
    found = train(lm, sets.target, sets.control, sets.text, config, outside=one, progress=False)
    kept = ~found.mask(1, "ff1")[:, 0]
    assert kept.nonzero().flatten().tolist() == [3]
    assert all(found.mask(*key).all() for key in found.bits if key != (1, "ff1"))


def test_outside_belongs_to_the_run_and_to_the_model(tiny, sets, short, tmp_path, refuses):
    lm, file, three = tiny("gpt2"), tmp_path / "run.pt", (sets.target, sets.control, sets.text)
    first = train(lm, *three, short(start=0.6), progress=False)
    found = train(lm, *three, short(), outside=first, checkpoint=file, progress=False)
    assert alike(train(lm, *three, short(), outside=first, checkpoint=file, progress=False), found)
    for other in (None, lens.mask.random_like(first)):
        with refuses(ValueError, "belongs to another run"):
            train(lm, *three, short(), outside=other, checkpoint=file, progress=False)
    with refuses(ValueError, "found in another model"):
        train(tiny("gpt2", seed=1), *three, short(), outside=first, progress=False)
    full = first.with_bits({key: ~(bits ^ bits) for key, bits in first.bits.items()}, "all")
    with refuses(ValueError, "No weight is left outside"):
        train(lm, *three, short(), outside=full, progress=False)


def test_a_mask_of_no_weights_is_not_found(tiny, trained):
    """At the first checks no weight is in the hard mask, which has met every goal but the suppression."""
    stop = {"density": 0.5, "maintain_kg": 1.0}
    seen = trained(tiny("gpt2"), steps=4, check=1, start=0.05, lr=0.01, stop=stop).history
    assert seen[0]["hard"]["density"] == 0 and len(seen) > 1
