"""One owner of a model's weights: what is written comes back bit for bit, no cache takes one model for another."""

from __future__ import annotations

import copy
import gc
import json
import random
import sys
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lens
from lens import Request, edit
from lens.edit import Change, Edit
from lens.edit.contexts import prefixes
from lens.kernels import pack, update_
from lens.mask import Config, Subnetwork
from lens.model.upper import UpperLayers
from lens.model.fingerprint import digests
from lens.model.weights import Weights
from lens.relearn.learners import learner

REQUEST = Request("The {} is on the", "cat", "mat", "roof")
SITES = ("attn_q", "ff1", "ff2")


def values(lm) -> dict:
    return {name: p.detach().clone() for name, p in lm.model.named_parameters()}


def same(lm, before) -> bool:
    return all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())


def an_edit(lm, seed: int) -> Edit:
    """A random edit of one or two sites, large beside the weights; every third has no factors."""
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    changes = []
    for layer, site in rng.sample([(layer, site) for layer in range(3) for site in SITES], rng.choice([1, 2])):
        d_in, d_out = lm.weight(layer, site).shape
        rows = None if seed % 3 == 0 else torch.randn(2, d_in, generator=noise)
        delta = torch.randn(d_in if rows is None else 2, d_out, generator=noise)
        changes.append(Change(layer, site, rows, 100 * delta))
    return Edit(f"random {seed}", (REQUEST,), tuple(changes), {}, 0.0, lm)


def a_mask(lm, seed: int) -> Subnetwork:
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    sites = rng.sample([(layer, site) for layer in range(3) for site in SITES], 3)
    shapes = {key: tuple(lm.weight(*key).shape) for key in sites}
    bits = {key: pack(torch.rand(shape, generator=noise) < 0.3) for key, shape in shapes.items()}
    return Subnetwork(bits, shapes, Config(steps=1), (), lm.name, lm.fingerprint, 6)


# --- whatever is written comes back


class Reference:
    """What should be on the weights: the loaded values, and each thing that lies on them, written again in order."""

    def __init__(self, lm):
        self.loaded, self.lying = values(lm), []

    def check(self, lm) -> None:
        fresh = lens.LanguageModel(type(lm.model)(lm.model.config).eval(), lm.tokenizer, lm.name)
        fresh.model.load_state_dict(self.loaded, strict=False)
        with torch.no_grad():
            for one in self.lying:
                if isinstance(one, Edit):
                    for c in one.changes:
                        if c.x is not None:
                            update_([c.weight(fresh)], [c.x], [c.delta], 1.0)
                    for c in one.changes:
                        if c.x is None:
                            c.weight(fresh).add_(c.delta)
                else:
                    for key in one.bits:
                        fresh.weight(*key).detach()[one.mask(*key)] = 0
        assert same(lm, values(fresh))

    def lies(self, one) -> bool:
        return any(one is other for other in self.lying)

    def take(self, gone) -> None:
        self.lying = [one for one in self.lying if not any(one is other for other in gone)]

    def touched(self, one, lm) -> set:
        keys = {(c.layer, c.site) for c in one.changes} if isinstance(one, Edit) else set(one.bits)
        return {id(lm.site(*key).weight) for key in keys}

    def above(self, one, lm) -> list:
        """What lies on a weight of ``one``, or on a weight of something that does."""
        on, found = self.touched(one, lm), []
        for later in self.lying[[other is one for other in self.lying].index(True) + 1 :]:
            if on & self.touched(later, lm):
                found.append(later)
                on |= self.touched(later, lm)
        return found


STEPS = st.tuples(st.sampled_from(["apply", "undo", "enter", "enter edit", "leave"]), st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_any_sequence_of_edits_masks_and_ends_is_undone_bit_for_bit(tiny, steps):
    lm = tiny("gpt2", torch.float32)
    reference, name = Reference(lm), lm.fingerprint
    edits, blocks = [], []  # edits that were applied by hand, and open blocks: (what, context)
    for seed, (step, which) in enumerate(steps):
        if step == "apply":
            edits.append(an_edit(lm, seed).apply())
            reference.lying.append(edits[-1])
        elif step in ("enter", "enter edit"):
            what = a_mask(lm, seed) if step == "enter" else an_edit(lm, seed)
            block = what.removed(lm) if step == "enter" else what
            block.__enter__()
            blocks.append((what, block))
            reference.lying.append(what)
        elif step == "undo" and edits:
            one = edits[which % len(edits)]
            if not reference.lies(one):
                one.undo()  # nothing happens
            elif reference.above(one, lm):
                with pytest.raises(RuntimeError, match="later change lies on the same weight"):
                    one.undo()
            else:
                one.undo()
                reference.take([one])
        elif step == "leave" and blocks:
            what, block = blocks.pop(which % len(blocks))
            gone = [*reference.above(what, lm), what] if reference.lies(what) else []
            reference.take(gone)
            if any(one is inner for one in gone for inner, _ in blocks):
                with pytest.raises(RuntimeError, match="still open.*reverse of the order"):
                    block.__exit__(None, None, None)
            else:
                block.__exit__(None, None, None)
        reference.check(lm)
        assert len(lm.changed) == len(reference.lying) and lm.fingerprint == name
    lm.weights.restore()
    assert same(lm, reference.loaded) and lm.changed == () and lm.fingerprint == name
    assert lens.LanguageModel(lm.model, lm.tokenizer).weights.current_fingerprint == name


@pytest.mark.parametrize("inner", ["edit", "mask"])
def test_the_end_of_a_masks_block_takes_back_what_was_left_in_it(tiny, inner):
    lm = tiny("gpt2", torch.float32)
    before, mask = values(lm), a_mask(lm, 1)
    key = next(iter(mask.bits))
    left = Edit("e", (REQUEST,), (Change(*key, None, torch.ones(mask.shapes[key])),), {}, 0.0, lm)
    if inner == "edit":
        with mask.removed(lm):
            left.apply()
    else:
        left.apply()
        with mask.removed(lm), pytest.raises(RuntimeError, match="later change .*removed"):
            left.undo()
        assert left.applied
    left.undo()
    assert same(lm, before) and not left.applied


@pytest.mark.filterwarnings("error")
def test_a_training_under_an_edit_is_told_that_it_is_lost_there(tiny):
    lm = tiny("gpt2")
    change = Edit("one", (REQUEST,), (Change(1, "ff2", None, torch.ones_like(lm.weight(1, "ff2"))),), {}, 0, lm)
    with change, change.lm.weights.block("another"):
        pass
    before = lm.weight(1, "ff2").clone()
    with pytest.warns(UserWarning, match="While Edit.* lay on the weights, somebody else wrote into the same ones"):
        with change, torch.no_grad():
            lm.weight(1, "ff2").mul_(0.5)
    assert torch.equal(lm.weight(1, "ff2"), before)
    with pytest.raises(UserWarning, match="somebody else wrote"), change, torch.no_grad():  # here an error
        lm.weight(1, "ff2").mul_(0.5)
    assert torch.equal(lm.weight(1, "ff2"), before) and not lm.changed


def test_a_model_with_an_edit_left_on_it_is_freed(tiny):
    lm = tiny("gpt2")
    model = weakref.ref(lm.model)
    an_edit(lm, 1).apply()
    del lm
    gc.collect()
    assert model() is None


def test_an_edit_that_nobody_holds_any_more_is_named_and_can_be_taken_back(tiny):
    lm = tiny("gpt2")
    before = values(lm)
    an_edit(lm, 1).apply()
    gc.collect()
    assert "random 1" in lm.changed[0]
    lm.weights.restore()
    assert same(lm, before)


def test_weights_that_were_moved_meanwhile_are_not_taken_for_restored(tiny, refuses):
    lm = tiny("gpt2", torch.float32)
    e = an_edit(lm, 1).apply()
    lm.model.to(torch.float64)
    with refuses(RuntimeError, "moved or cast while a change lay on them .*open the model again"):
        e.undo()
    assert lm.changed


def test_an_interrupt_at_the_end_of_a_block_counts_when_the_weights_are_back(tiny, monkeypatch):
    lm = tiny("gpt2", torch.float32)
    before, put, came = values(lm), lens.mask.subnetwork._put, []

    def interrupted(matrix, where, what):
        if isinstance(what, torch.Tensor) and not came:
            came.append(1)
            raise KeyboardInterrupt
        put(matrix, where, what)

    monkeypatch.setattr("lens.mask.subnetwork._put", interrupted)
    with pytest.raises(KeyboardInterrupt), a_mask(lm, 1).removed(lm):
        pass
    assert came and same(lm, before) and not lm.changed


def test_an_interrupted_restoring_can_be_done_again(tiny, monkeypatch):
    lm = tiny("gpt2", torch.float32)
    before, mask = values(lm), a_mask(lm, 1)
    put = lens.mask.subnetwork._put

    def interrupted(matrix, where, what):
        if isinstance(what, torch.Tensor):
            raise KeyboardInterrupt
        put(matrix, where, what)

    monkeypatch.setattr("lens.mask.subnetwork._put", interrupted)
    with pytest.raises(KeyboardInterrupt), mask.removed(lm):
        pass
    assert lm.changed
    with pytest.raises(KeyboardInterrupt):
        lm.weights.restore()
    for written in lm.weights._state.stack:  # the interrupt is over
        written.restore = [lambda call=call: put(*call.args) for call in written.restore]
    lm.weights.restore()
    assert same(lm, before) and not lm.changed


# --- which model is this?


def test_the_fingerprint_follows_what_other_hands_write(tiny):
    lm, other = tiny("gpt2", torch.float32), tiny("gpt2", torch.float32)
    name, mask = lm.fingerprint, a_mask(lm, 1)
    with torch.no_grad():
        lm.weight(0, "ff1").mul_(1.01)
    assert lm.fingerprint != name
    with pytest.raises(ValueError, match="another model"), mask.removed(lm):
        pass
    with torch.no_grad():
        lm.weight(0, "ff1").copy_(other.weight(0, "ff1"))
    assert lm.fingerprint == name
    with mask.removed(lm), torch.no_grad():
        lm.weight(0, "ff1").mul_(1.01)  # inside a block
        assert lm.fingerprint == name
    assert lm.fingerprint != name
    other.weight(0, "ff1").data.mul_(1.01)  # torch does not count this
    assert other.weights.current_fingerprint != name


def test_the_fingerprint_sees_a_weight_that_its_samples_leave_out(tiny):
    lm = tiny("gpt2", torch.float32)
    name, weight = lm.fingerprint, lm.weight(1, "ff1")
    before = weight.clone()
    with torch.no_grad():
        weight[:, 1:] = 0  # the samples lie in the first column
        assert name not in (lm.fingerprint, lm.weights.current_fingerprint)
        weight.copy_(before)
    assert lm.fingerprint == lm.weights.current_fingerprint == name
    lm.model.transformer.h[1].mlp.c_fc.weight.data[3, 5] += 1e-6  # torch does not count this
    assert lm.weights.current_fingerprint != name


def test_the_fingerprint_is_of_the_weights_alone_whichever_model_was_opened_before(mini):
    """A model that differs from a shipped one where nothing is sampled has another name, and leaves the shipped its own."""
    other = copy.deepcopy(mini.model)
    weight = other.transformer.h[0].mlp.c_fc.weight.data
    for write in (
        lambda: weight[3, 5].mul_(2),
        lambda: weight.__setitem__([1, 2], weight[[2, 1]]),  # two rows change places
        lambda: weight[4, 7:11].copy_(weight[4, 7:11].flip(0).clone()),
    ):
        before = weight.clone()
        write()
        changed = digests(other)
        assert changed[0] == mini.fingerprint, "not sampled"
        assert changed[1] != digests(mini.model)[1] and Weights(other).current_fingerprint != mini.fingerprint
        weight.copy_(before)
    assert mini.weights.current_fingerprint == mini.fingerprint == Weights(other).current_fingerprint


def test_a_copy_has_weights_of_its_own_and_keeps_what_lay_on_them(tiny):
    lm = tiny("gpt2", torch.float32)
    before, name = values(lm), lm.fingerprint
    with an_edit(lm, 1):
        within, other = values(lm), copy.deepcopy(lm)
    assert same(lm, before) and same(other, within)
    assert not other.weights.changed and other.fingerprint not in (name, lm.fingerprint)
    with an_edit(other, 4):
        assert Weights(other.model).changed and not lm.weights.changed and same(lm, before)
    assert same(other, within)
    assert copy.deepcopy(lm).fingerprint == name


@pytest.mark.parametrize("name", lens.data.paths.BUILT_IN)
def test_the_models_that_files_came_with_keep_the_names_in_these_files(name):
    """data/fingerprints.json: one line for each; a new model's line is ``digests(lm.model)``."""
    held = json.loads((lens.data.paths.root() / "fingerprints.json").read_text(encoding="utf-8"))
    some, whole = digests(lens.load(name, device="cpu").model)
    assert held[some] == whole


def test_the_current_fingerprint_sees_every_weight_that_a_change_touches(tiny):
    lm = tiny("gpt2", torch.bfloat16)
    name = lm.weights.current_fingerprint
    assert name == lm.fingerprint
    one = torch.zeros(lm.weight(1, "ff2").shape)
    one[13, 7] = 1  # a single weight, most likely not among those that the fingerprint reads
    with Edit("one weight", (REQUEST,), (Change(1, "ff2", None, one),), {}, 0.0, lm):
        assert lm.fingerprint == name != lm.weights.current_fingerprint
    assert lm.weights.current_fingerprint == name


def test_an_interrupt_at_any_line_of_a_block_s_beginning_and_end_leaves_the_model_whole(tiny):
    """But at the first of ``__exit__``, before it can have begun anything: ``changed`` says so then."""
    lm, trace, at, wrong = tiny("gpt2", torch.float32), sys.gettrace(), 0, []
    before, ran = values(lm), [True]
    while ran[-1]:
        at, here = at + 1, []

        def look(frame, event, _):
            if not frame.f_code.co_filename.endswith(("model/weights.py", "edit/edit.py")):
                return None
            if event == "line":
                here.append(frame.f_code.co_name)
                if len(here) == at:
                    sys.settrace(trace)
                    raise KeyboardInterrupt
            return look

        e = an_edit(lm, 0 if at % 2 else 1)
        lm.fingerprint
        sys.settrace(look)
        try:
            with e:
                pass
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(trace)
            torch.set_grad_enabled(True)  # an interrupt may come before the end of no_grad
        ran.append(len(here) == at)
        if not same(lm, before) or lm.changed:
            wrong.append(here[-1])
            lm.weights.restore()
            assert same(lm, before)
    assert at > 100 and set(wrong) <= {"__exit__"} and len(wrong) <= 2


@pytest.mark.parametrize("change", ["edit", "mask"])
def test_nothing_is_cached_of_a_changed_model_under_the_intact_ones_name(tiny, change, tmp_path, monkeypatch, refuses):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path))
    texts = ["the cat is on the mat and then some more of it"] * 20
    lm = tiny("gpt2", torch.float32)
    intact = edit.covariance(tiny("gpt2", torch.float32), 2, texts)[2].C
    sampled = prefixes(tiny("gpt2", torch.float32), [(2, 6)])
    [path.unlink() for path in tmp_path.rglob("*.safetensors")]
    around = {"edit": lambda: an_edit(lm, 0), "mask": lambda: a_mask(lm, 1).removed(lm)}
    with around[change]():
        with refuses(RuntimeError, "changed now .*undo that first, or call lens.edit.covariance before"):
            edit.covariance(lm, 2, texts)
        prefixes(lm, [(2, 6)])
        assert not list(tmp_path.rglob("*.safetensors"))
    assert not lm.changed
    assert torch.equal(edit.covariance(lm, 2, texts)[2].C, intact) and prefixes(lm, [(2, 6)]) == sampled
    with around[change]():  # what is known of the model as it was loaded may be used
        assert torch.equal(edit.covariance(lm, 2, texts)[2].C, intact)
    lm.weight(2, "ff1").data.mul_(2)
    assert not torch.equal(edit.covariance(lm, 2, texts)[2].C, intact)


def test_a_model_with_adapters_is_changed_until_they_are_gone(tiny, refuses):
    lm = tiny("gpt2", torch.float32)
    name, sampled = lm.fingerprint, prefixes(tiny("gpt2", torch.float32), [(2, 6)])
    with learner(lm, "lora", "likelihood", None, False, 2):
        assert lm.changed == ("LoRA adapters",) and lm.fingerprint == name
        prefixes(lm, [(2, 6)])
        with refuses(ValueError, "adapter"):
            edit.covariance(lm, 2, ["the cat is on the mat"] * 20)
    assert not lm.changed and lm.fingerprint == name and prefixes(lm, [(2, 6)]) == sampled


def test_the_inputs_of_the_upper_layers_are_not_used_for_another_model_below(tiny, refuses):
    lm = tiny("gpt2")
    low, high = (Edit("e", (REQUEST,), (Change(at, "ff2", None, torch.ones(40, 24)),), {}, 0.0, lm) for at in (0, 2))
    upper = UpperLayers(lm, torch.tensor([[1, 2, 3]]), 1)
    with high:
        upper()
    with low, refuses(RuntimeError, "below layer 1 have been changed since"):
        upper()
    with low:
        under = UpperLayers(lm, torch.tensor([[1, 2, 3]]), 1)
        under()
    with refuses(RuntimeError, "below layer 1 have been changed since"):
        under()
    upper()


def test_a_worker_does_not_lend_a_model_that_a_job_has_changed():
    from lens.scale.sweep.models import opened

    with opened("mini", "cpu") as first:
        name = first.fingerprint
        edit.shift(first, Request("The capital of {} is", "France", "Rome")).apply()
    with opened("mini", "cpu") as second:
        assert second is not first and second.weights.current_fingerprint == name
    with opened("mini", "cpu") as third:
        assert third is second
