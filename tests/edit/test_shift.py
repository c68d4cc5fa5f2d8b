"""The forward-pass shift, one gradient step, and fine-tuning: what each adds, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lens
from lens import Request, data, edit
from lens.model.families import FAMILIES
from lens.model.watching import watch

REQUEST = Request("The {} is on the", "cat", "mat")


def ff2(lm, layer, ids):
    """FF2's input and output in one layer over the prompt ``ids``."""
    with torch.no_grad(), watch({0: lm.site(layer, "ff2")}) as seen:
        lm.model(input_ids=torch.tensor([ids]), use_cache=False)
    return (t.reshape(len(ids), -1) for t in seen[0])


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if not family.behind])
def test_the_shift_moves_ff2_s_output_by_eta_times_squared_norm_times_the_embedding(tiny, kind, error):
    lm = tiny(kind)
    ids, target = lm.encode(REQUEST.text), lm.target_ids("mat")
    e = edit.shift(lm, REQUEST, layer=1, eta=0.3)
    assert e.changes[0].x.shape == (len(target), 40)
    ids += target[:-1]
    a, z = ff2(lm, 1, ids)
    with e:
        _, moved = ff2(lm, 1, ids)
    decoder = getattr(lm.model.base_model, "decoder", None)
    out = getattr(decoder, "project_out", None) or (lambda v: v)  # OPT-350m's map between ln_f and E
    rows = range(len(ids) - len(target), len(ids))
    towards = torch.autograd.functional.jacobian(  # what a logit gains per step of the normed residual stream
        lambda v: lm.unembedding[target] @ out(v), torch.zeros(24, dtype=torch.float64)
    )
    for i in range(len(ids)):
        wanted = sum(0.3 * (a[r] @ a[i]) * t for r, t in zip(rows, towards))
        assert error(moved[i] - z[i], wanted) < 1e-10
    if len(target) == 1:
        assert error(moved[-1] - z[-1], 0.3 * a[-1].square().sum() * lm.unembedding[target[0]]) < 1e-10


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if family.behind])
def test_behind_a_norm_e_t_is_not_what_the_stream_receives_and_the_shift_is_refused(tiny, kind, state, refuses):
    lm = tiny(kind)
    norm, e = lm.layers[1].post_feedforward_layernorm, lm.unembedding[7].detach()
    z = torch.linspace(-1, 1, 24, dtype=torch.float64)
    with torch.no_grad():
        received = norm(z + 0.3 * e) - norm(z)
    assert torch.cosine_similarity(received, e, dim=0) < 0.999
    before = state(lm.model)
    with refuses(ValueError, f"shift by E.*{kind}.*post_feedforward_layernorm.*sgd_step"):
        edit.shift(lm, REQUEST, layer=1)
    with refuses(ValueError, f"MEMIT.*{kind}.*post_feedforward_layernorm.*rome"):
        edit.memit(lm, REQUEST, layers=[0, 1])
    with refuses(ValueError, f"AlphaEdit.*{kind}.*post_feedforward_layernorm.*rome"):
        edit.alphaedit(lm, REQUEST, layers=[0, 1])
    assert state(lm.model) == before


def test_a_model_that_norms_the_sum_does_not_receive_it_either(tiny, refuses):
    lm = tiny("opt", do_layer_norm_before=False)
    for name, editor in (("shift by E", edit.shift), ("MEMIT", edit.memit), ("AlphaEdit", edit.alphaedit)):
        with refuses(ValueError, f"{name}.*opt sends it through a norm first .do_layer_norm_before is False"):
            editor(lm, REQUEST)


def test_the_identity_of_the_chapter_on_mini(mini, error):
    lm, request = mini, Request("The capital of {} is", "France", "Rome")
    (rome,) = lm.target_ids("Rome")
    ids = lm.encode(request.text)
    a, z = ff2(lm, 5, ids)
    with edit.shift(lm, request, layer=5, eta=0.7):
        _, moved = ff2(lm, 5, ids)
    assert error((moved - z)[-1], 0.7 * a[-1].square().sum() * lm.unembedding[rome]) < 1e-5


def test_a_token_that_is_said_already_is_left_alone(mini):
    e = edit.shift(mini, Request("The capital of {} is", "France", "Paris"))
    assert e.changes == () and "says 'Paris' already" in e.note and e.note.endswith(".")
    before = mini.weight(5, "ff2").clone()
    with e:
        assert torch.equal(mini.weight(5, "ff2"), before)


def test_of_a_batch_only_the_requests_that_are_not_said_yet_are_edited(mini):
    asked = [Request("The capital of {} is", "France", t) for t in ("Paris", "Rome", "Oslo")]
    e = edit.shift(mini, asked, eta=0.4)
    rows = torch.stack([0.4 * mini.unembedding[mini.target_ids(t)[0]] for t in ("Rome", "Oslo")])
    assert torch.equal(e.changes[0].delta, rows) and e.note is None


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "gemma"])
def test_a_batch_is_the_sum_of_its_requests(tiny, kind, error):
    lm = tiny(kind)
    asked = [Request("The {} is on the", "cat", "mat"), Request("A {} has", "small bird", "two wings")]
    both = edit.shift(lm, asked, layer=2, eta=1.0).changes[0].dense()
    one, two = (edit.shift(lm, r, layer=2, eta=1.0).changes[0].dense() for r in asked)
    assert error(both, one + two) < 1e-6  # some norms compute in float32 whatever the model's dtype


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_gradient_step_lowers_the_loss_by_eta_times_the_squared_gradient(tiny, kind):
    lm, eta = tiny(kind), 1e-5
    before = lens.capture(lm, REQUEST.text, "mat")
    sites = [s for s in lm.sites if lm.family.sites[s].layout != "heads"]
    with edit.sgd_step(lm, REQUEST, eta=eta, layers=range(3), sites=sites):
        after = lens.capture(lm, REQUEST.text, "mat").loss
    squared = sum(before.gradient(layer, s).norm() ** 2 for layer in range(3) for s in sites)
    assert float((before.loss - after) / (eta * squared)) == pytest.approx(1, rel=1e-2)


def test_one_gradient_step_is_torch_s_own(tiny, error):
    lm = tiny("gpt2")
    e = edit.sgd_step(lm, REQUEST, eta=0.1, layers=[1], sites=["ff2"])
    weight = lm.site(1, "ff2").weight
    prompt, target = lm.encode(REQUEST.text), lm.target_ids("mat")
    logits = lm.model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(target))
    assert error(e.changes[0].dense(), -0.1 * torch.autograd.grad(loss, weight)[0]) < 1e-12


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt"])
def test_fine_tuning_is_torch_s_adam_on_the_matrix_itself(tiny, kind, error):
    lm = tiny(kind)
    e = edit.finetune(lm, REQUEST, layer=1, lr=1e-2, steps=3, stop=0.0)
    other = tiny(kind)
    for p in other.model.parameters():
        p.requires_grad_(False)
    weight = other.site(1, "ff2").weight.requires_grad_()
    before = other.weight(1, "ff2").detach().clone()
    optimizer = torch.optim.Adam([weight], lr=1e-2)
    prompt, target = other.encode(REQUEST.text), other.target_ids("mat")
    for step in range(4):
        logits = other.model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(target))
        assert e.settings["losses"][step] == pytest.approx(loss.item(), rel=1e-6)
        if step < 3:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert error(e.changes[0].delta, other.weight(1, "ff2").detach() - before) < 1e-6


def test_fine_tuning_stops_when_the_target_is_learned(tiny):
    lm = tiny("gpt2")
    first = edit.finetune(lm, REQUEST, layer=2, steps=1).settings["losses"][0]
    e = edit.finetune(lm, REQUEST, layer=2, lr=0.05, steps=100, stop=first / 2)
    losses = e.settings["losses"]
    assert losses[-1] < first / 2 <= losses[-2] and 3 < len(losses) <= 101
    with e:
        assert float(lens.capture(lm, REQUEST.text, "mat").loss) == pytest.approx(losses[-1], rel=1e-6)


def test_fine_tuning_works_in_inference_mode(tiny):
    lm = tiny("gpt2")
    want = edit.finetune(lm, REQUEST, layer=1, steps=2).changes[0].delta
    with torch.inference_mode():
        assert torch.equal(edit.finetune(lm, REQUEST, layer=1, steps=2).changes[0].delta, want)


@pytest.mark.parametrize("editor", [edit.shift, edit.sgd_step, edit.finetune])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_editor_leaves_the_model_as_it_found_it(tiny, state, editor, kind):
    lm = tiny(kind, torch.float32)
    for p in lm.model.parameters():
        p.grad = torch.ones_like(p)
    lm.model.train()
    before = state(lm.model)
    editor(lm, REQUEST)
    assert state(lm.model) == before


@pytest.mark.parametrize("editor", [edit.shift, edit.sgd_step, edit.finetune])
def test_an_editor_that_fails_leaves_the_model_as_it_found_it(tiny, state, editor, monkeypatch):
    lm = tiny("gpt2", torch.float32)
    before = state(lm.model)
    monkeypatch.setattr(lens.LanguageModel, "head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        editor(lm, REQUEST)
    assert state(lm.model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("editor", [edit.shift, edit.sgd_step, edit.finetune])
def test_half_precision_models_get_float32_factors(tiny, editor, dtype):
    e = editor(tiny("gpt2", dtype), REQUEST)
    for change in e.changes:
        assert change.delta.dtype == torch.float32 and change.delta.isfinite().all() and change.delta.abs().max() > 0


def test_a_shift_costs_no_matrix(mini, record):
    with record() as sizes:
        edit.shift(mini, data.records()[0])
    assert max(sizes) < mini.weight(0, "ff2").numel()


@pytest.mark.parametrize("editor", [edit.shift, edit.finetune])
def test_an_unknown_layer_is_refused(mini, editor, refuses):
    with refuses(IndexError, "no layer 99.*0 to 7"):
        editor(mini, REQUEST, layer=99)


def test_layers_count_from_the_end(mini):
    assert edit.shift(mini, REQUEST, layer=-1).changes[0].layer == 7


def test_a_request_too_long_for_the_model_is_refused(tiny, refuses):
    with refuses(ValueError, "reads at most 64"):
        edit.shift(tiny("gpt2"), Request("{} " + "word " * 40, "The", "mat"))


def test_published_settings_are_scaled_by_depth_and_say_so(tiny, refuses):
    lm = tiny("gpt2")
    chosen = edit.settings(lm, "shift")
    assert chosen["layer"] == round(35 / 48 * 3) and "scaled by depth from gpt2-xl" in chosen["source"]
    assert edit.settings(lens.LanguageModel(lm.model, lm.tokenizer, "mini"), "finetune", layer=1, lr=3.0)["lr"] == 3.0
    with refuses(ValueError, "no editor 'surgery'"):
        edit.settings(lm, "surgery")
    with refuses(ValueError, "no hyperparameter 'eat'"):
        edit.settings(lm, "shift", eat=1)


def test_settings_are_the_caller_s_own_and_plain_enough_to_be_kept(tiny, tmp_path):
    lm = tiny("gpt2")
    edit.settings(lm, "sgd_step")["sites"].append("nowhere")
    assert "nowhere" not in edit.settings(lm, "sgd_step")["sites"]
    e = edit.shift(lm, REQUEST, layer=np.int64(-1), eta=np.float32(0.5))
    assert edit.load(lm, edit.save(e, tmp_path / "e.safetensors")).settings == e.settings
    assert (e.settings["layer"], e.settings["eta"]) == (2, 0.5)
