"""An edit goes in and comes out again: bit for bit, in any nesting, after any accident, and into a file."""

from __future__ import annotations

import itertools

import pytest
import torch

from lens import Request, data, edit
from lens.edit import Change, Edit
from lens.model.families import FAMILIES

REQUEST = Request("The {} is on the", "cat", "mat", "roof")


def weights(lm) -> dict:
    return {name: p.detach().clone() for name, p in lm.model.named_parameters()}


def same(lm, before) -> bool:
    return all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())


def make(lm, layer=1, site="ff2", rank=2, seed=0, size=1e3) -> Edit:
    """A random edit, large beside the weights, so that adding and subtracting would not bring them back."""
    generator = torch.Generator().manual_seed(seed)
    d_in, d_out = lm.weight(layer, site).shape
    x, delta = (torch.randn(rank, d, generator=generator, dtype=torch.float64) for d in (d_in, d_out))
    return Edit("random", (REQUEST,), (Change(layer, site, x, size * delta),), {}, 0.0, lm)


def dense(lm, layer=1) -> Edit:
    full = torch.randn(lm.weight(layer, "ff2").shape, dtype=torch.float64)
    return Edit("dense", (REQUEST,), (Change(layer, "ff2", None, full),), {}, 0.0, lm)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", FAMILIES)
def test_an_edit_adds_its_matrix_and_undo_restores_every_bit(tiny, kind, dtype, error):
    lm = tiny(kind, dtype)
    before = weights(lm)
    for e in (make(lm, size=1.0), dense(lm)):
        wanted = lm.weight(1, "ff2").double() + e.changes[0].dense()
        with e:
            got = lm.weight(1, "ff2")
            assert got.dtype == dtype and error(got, wanted) <= 2 * torch.finfo(dtype).eps
            assert e.applied and not same(lm, before)
        assert not e.applied and same(lm, before)


def test_nested_edits_of_one_weight_come_out_bit_for_bit(tiny):
    lm = tiny("gpt2", torch.float32)
    before = weights(lm)
    with make(lm, seed=1):
        between = weights(lm)
        with make(lm, seed=2), dense(lm):
            assert not same(lm, between)
        assert same(lm, between)
    assert same(lm, before)


def test_edits_of_different_weights_may_be_undone_in_any_order(tiny):
    lm = tiny("llama", torch.float32)
    before = weights(lm)
    edits = [make(lm, layer, site) for layer, site in ((0, "ff2"), (1, "ff2"), (1, "ff1"))]
    for order in itertools.permutations(range(3)):
        for e in edits:
            e.apply()
        for i in order:
            edits[i].undo()
        assert same(lm, before)


def test_an_edit_under_a_later_one_is_not_undone(tiny, refuses):
    lm = tiny("gpt2", torch.float32)
    before = weights(lm)
    first, second = make(lm, seed=1).apply(), make(lm, seed=2).apply()
    after = weights(lm)
    with refuses(RuntimeError, "later change lies on the same weight.*undo that one first"):
        first.undo()
    assert same(lm, after) and first.applied and second.applied
    second.undo()
    first.undo()
    first.undo()  # a second time nothing happens
    assert same(lm, before)


def test_edits_of_one_joint_matrix_lie_on_each_other(tiny, refuses):
    lm = tiny("gpt2", torch.float32)
    before = weights(lm)
    q, k = make(lm, site="attn_q").apply(), make(lm, site="attn_k").apply()
    with refuses(RuntimeError, "undo that one first"):
        q.undo()
    k.undo()
    q.undo()
    assert same(lm, before)


def test_the_end_of_a_block_takes_back_what_was_left_on_top(tiny):
    lm = tiny("gpt2", torch.float32)
    before = weights(lm)
    inner = [make(lm, seed=2), make(lm, layer=0)]
    with pytest.raises(ZeroDivisionError), make(lm, seed=1):
        for e in inner:
            e.apply()
        1 / 0
    assert not inner[0].applied and inner[1].applied  # the other layer's edit is not this block's affair
    inner[1].undo()
    assert same(lm, before)


def test_an_edit_is_not_applied_twice(tiny, refuses):
    lm = tiny("gpt2")
    e = make(lm)
    with e, refuses(RuntimeError, "applied already"):
        e.apply()
    with e:
        assert e.applied


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_accident_in_the_middle_of_apply_leaves_the_model_whole(tiny, monkeypatch, error):
    lm = tiny("gpt2", torch.float32)
    before = weights(lm)
    parts = make(lm, layer=0).changes + dense(lm, layer=2).changes

    class Breaks(torch.Tensor):
        armed = False

        @classmethod
        def __torch_function__(cls, *call):
            if cls.armed:
                raise error
            return super().__torch_function__(*call)

    broken = Change(1, "ff2", None, torch.zeros(1).as_subclass(Breaks))
    e = Edit("broken", (REQUEST,), (*parts, broken), {}, 0.0, lm)
    Breaks.armed = True
    with pytest.raises(error):
        e.apply()
    assert same(lm, before) and not e.applied


def test_a_change_of_the_wrong_shape_is_refused_before_anything_is_written(tiny, refuses):
    lm = tiny("gpt2")
    before = weights(lm)
    good, bad = make(lm, layer=0).changes[0], Change(1, "ff2", torch.ones(1, 24), torch.ones(1, 40))
    with refuses(ValueError, "needs a weight"):
        Edit("bad", (REQUEST,), (good, bad), {}, 0.0, lm).apply()
    assert same(lm, before)


def test_a_third_of_a_matrix_interleaved_by_heads_is_refused(tiny, refuses):
    lm = tiny("gpt_neox")
    with refuses(ValueError, "cannot be edited in place"):
        make(lm, site="attn_q").apply()


def test_two_models_of_one_kind_do_not_share_their_edits(tiny):
    one, other = tiny("gpt2"), tiny("gpt2")
    with make(one):
        assert not same(other, weights(one))
        make(other).apply().undo()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_saved_edit_is_the_same_edit(tiny, kind, tmp_path):
    lm = tiny(kind, torch.float32)
    for e in (make(lm), dense(lm), edit.shift(lm, REQUEST, layer=1, eta=0.5)):
        loaded = edit.load(lm, edit.save(e, tmp_path / "an edit.safetensors"))
        assert (loaded.editor, loaded.requests, loaded.settings, loaded.seconds) == (
            e.editor,
            e.requests,
            e.settings,
            e.seconds,
        )
        with e:
            wanted = weights(lm)
        with loaded:
            assert same(lm, wanted)
    assert [p.name for p in tmp_path.iterdir()] == ["an edit.safetensors"]


def test_a_shift_s_file_is_kilobytes(mini, tmp_path):
    path = edit.save(edit.shift(mini, data.records()[0]), tmp_path / "e.safetensors")
    matrix = mini.weight(0, "ff2")
    assert path.stat().st_size < 6_000 < matrix.numel() * matrix.element_size()


def test_an_edit_is_refused_by_another_model(tiny, tmp_path, refuses):
    lm = tiny("gpt2", torch.float32)
    path = edit.save(make(lm), tmp_path / "e.safetensors")
    edit.load(tiny("gpt2", torch.float32), path)  # the same weights, opened again
    for other in (tiny("gpt2", torch.float32, seed=1), tiny("gpt2", torch.bfloat16), tiny("llama", torch.float32)):
        with refuses(ValueError, "made for another model"):
            edit.load(other, path)
    one = tiny("gpt2", torch.float32)
    with torch.no_grad():
        one.weight(2, "ff1").mul_(1.01)  # as merging an adapter would do
    with refuses(ValueError, "made for another model"):
        edit.load(one, path)


def test_an_edit_belongs_to_the_model_that_it_was_made_for(tiny, tmp_path, refuses):
    lm = tiny("gpt2")
    e = Edit("one", (Request("The {} is", "cat", "mat"),), (Change(-1, "ff2", None, 0 * lm.weight(-1, "ff2")),), {}, 0, lm)
    with torch.no_grad():
        lm.weight(1, "ff2").mul_(3)  # trained since
    path = edit.save(e, tmp_path / "e.safetensors")
    assert edit.load(tiny("gpt2"), path).changes[0].layer == len(lm.layers) - 1
    with refuses(ValueError, "made for another model"):
        edit.load(lm, path)


def test_an_edit_is_known_by_the_model_as_it_was_loaded(tiny, tmp_path):
    lm = tiny("gpt2", torch.float32)
    below, above = make(lm, seed=1), make(lm, seed=2)
    with below:
        path = edit.save(above, tmp_path / "e.safetensors")
    edit.load(lm, path)


def test_a_damaged_edit_file_is_refused_and_a_failed_save_loses_nothing(tiny, tmp_path, refuses, monkeypatch):
    lm = tiny("gpt2", torch.float32)
    path = edit.save(make(lm), tmp_path / "e.safetensors")
    whole = path.read_bytes()
    for damage in (whole[:-9], whole[:40], b"", b"not a safetensors file"):
        (tmp_path / "bad").write_bytes(damage)
        with refuses(OSError, "no whole edit file"):
            edit.load(lm, tmp_path / "bad")
    with refuses(OSError, "There is no edit file"):
        edit.load(lm, tmp_path / "missing")
    (tmp_path / "bad").unlink()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        edit.save(make(lm, seed=5), path)
    assert path.read_bytes() == whole and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_edit_says_what_it_is(mini):
    text = repr(edit.shift(mini, data.records()[:3]))
    assert "Gabon → Asia" in text and "and 1 more" in text and "layer" in text and "bytes" in text
