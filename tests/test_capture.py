"""Capture: a prompt gives the same factors however it is run, and the model never notices."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import lens
from lens.model.families import FAMILIES

PROMPTS = [[5, 9, 100, 33, 77], [7, 8, 9], [1] * 9, [200]]
TARGETS = [[44, 51], [3], [4, 4, 270], [299]]


def same(a: lens.Trace, b: lens.Trace, error, bound: float = 1e-12) -> None:
    assert (a.tokens, a.targets, a.lengths, a.layers, a.sites) == (b.tokens, b.targets, b.lengths, b.layers, b.sites)
    assert torch.equal(a.ids, b.ids)
    assert error(a.loss, b.loss) <= bound
    scale = max(b.stack(site).abs().max() for site in b.sites)  # of one token, δ of q and k is zero but for rounding
    for layer in a.layers:
        for site in a.sites:
            got, want = a.gradient(layer, site), b.gradient(layer, site)
            assert error(got.x, want.x) <= bound, (layer, site)
            assert got.delta.shape == want.delta.shape
            assert (got.delta - want.delta).abs().max() <= bound * scale, (layer, site)


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_prompt_alone_and_in_a_padded_batch_is_one_prompt(tiny, error, kind):
    lm = tiny(kind)
    batch = lens.capture(lm, PROMPTS, TARGETS)
    assert len(batch) == 4 and batch.lengths == (6, 3, 11, 1)
    for prompt, target, part in zip(PROMPTS, TARGETS, batch, strict=True):
        same(part, lens.capture(lm, prompt, target), error, 1e-6 if kind == "gptj" else 1e-12)  # float32 inside


def test_a_batchs_gradient_is_the_sum_of_its_prompts(tiny, error):
    lm = tiny("llama")
    batch = lens.capture(lm, PROMPTS, TARGETS)
    total = sum(lens.capture(lm, p, t).gradient(1, "ff1").dense() for p, t in zip(PROMPTS, TARGETS))
    assert error(batch.gradient(1, "ff1").dense(), total) <= 1e-12


def test_loss_is_the_cross_entropy_of_the_targets_tokens_each_from_its_own_position(tiny, error):
    lm = tiny("gpt2")
    trace = lens.capture(lm, PROMPTS, TARGETS)
    for loss, prompt, target in zip(trace.loss, PROMPTS, TARGETS):
        with torch.no_grad():
            logits = lm.model(torch.tensor([prompt + target])).logits[0]
        want = [cross_entropy(logits[len(prompt) - 1 + j], torch.tensor(t)) for j, t in enumerate(target)]
        assert error(loss, torch.stack(want).mean()) <= 1e-12


def test_a_target_of_m_tokens_reaches_the_last_mlp_at_m_positions(tiny):
    trace = lens.capture(tiny("gpt2"), PROMPTS[0], [44, 51, 60])
    reached = trace.gradient(-1, "ff2").delta.norm(dim=1) > 0
    assert reached.tolist() == [False] * 4 + [True] * 3


def test_text_ids_and_tensors_say_the_same_prompt(tiny, error):
    lm = tiny("gpt2")
    ids, goal = lm.encode("on the other"), lm.target_ids("is")
    assert lm.tokenizer.decode(goal) == " is"  # a target is given its leading space
    want = lens.capture(lm, "on the other", "is")
    for prompt in (ids, tuple(ids), torch.tensor(ids)):
        for target in (goal, goal[0], torch.tensor(goal), torch.tensor(goal[0]), " is"):
            same(lens.capture(lm, prompt, target), want, error)
    pair = lens.capture(lm, torch.tensor([ids, ids]), torch.tensor([goal, goal]))
    for trace in (pair, lens.capture(lm, [ids, "on the other"], "is"), lens.capture(lm, [ids, ids], goal[0])):
        for part in trace:
            same(part, want, error)


def test_layers_and_sites_narrow_what_is_kept_and_change_nothing_in_it(tiny, error):
    lm = tiny("llama")
    whole = lens.capture(lm, PROMPTS, TARGETS)
    some = lens.capture(lm, PROMPTS, TARGETS, layers=[-1, 0, 2], sites=["ff2", "attn_k"])
    assert some.layers == (0, 2) and some.sites == ("ff2", "attn_k")
    for layer in (0, 2, -1, -3):
        for site in ("ff2", "attn_k"):
            assert error(some.gradient(layer, site).delta, whole.gradient(layer, site).delta) <= 1e-12
            assert torch.equal(some.gradient(layer, site).x, whole.gradient(layer, site).x)
    assert some.stack("ff2").shape == (2, 21, 24) and some.stack("ff2", "x").shape == (2, 21, 40)
    one = lens.capture(lm, PROMPTS, TARGETS, layers=iter([1]), sites=("ff1",))
    assert error(one.gradient(1, "ff1").dense(), whole.gradient(1, "ff1").dense()) <= 1e-12


def test_a_trace_is_indexed_like_a_list_of_prompts(tiny, refuses):
    batch = lens.capture(tiny("gpt2"), PROMPTS, TARGETS)
    assert [t.lengths for t in batch] == [(6,), (3,), (11,), (1,)]
    assert torch.equal(batch[-1].ids, batch[3].ids) and batch[2].ids.tolist() == [1] * 9 + [4, 4]
    assert batch[1].gradient(0, "ff1").x.data_ptr() == batch.gradient(0, "ff1").x[6:].data_ptr()  # no copy
    assert len(batch.tokens) == len(batch.ids) == sum(batch.lengths) == 21
    for place in (4, -5):
        with refuses(IndexError, "no prompt.*holds 4"):
            batch[place]
    with refuses(ValueError, "no layer 3.*0 to 2"):
        batch.gradient(3, "ff1")
    with refuses(ValueError, "'ff9'.*ff1"):
        batch.gradient(0, "ff9")


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_no_worse_than_autograds_own(tiny, kind, dtype):
    lm, exact = tiny(kind, dtype), tiny(kind, dtype)
    exact.model.double()  # the rounded weights, computed with exactly
    want = lens.capture(exact, PROMPTS[0], TARGETS[0])
    got = lens.capture(lm, PROMPTS[0], TARGETS[0])
    assert got.gradient(0, "ff1").x.dtype == dtype and got.loss.dtype == torch.float32
    lm.model.requires_grad_(True)
    logits = lm.model(torch.tensor([PROMPTS[0] + TARGETS[0][:-1]])).logits[0, -2:].float()
    cross_entropy(logits, torch.tensor(TARGETS[0])).backward()
    mine = theirs = 0.0
    for layer in range(3):
        reference = want.gradient(layer, "ff2").dense()
        weight = lm.site(layer, "ff2").weight
        plain = (weight.grad if kind == "gpt2" else weight.grad.T).double()
        factored = got.gradient(layer, "ff2")
        dense = factored.delta.new_tensor(0).double() + factored.x.double().T @ factored.delta.double()
        mine, theirs = mine + (dense - reference).norm(), theirs + (plain - reference).norm()
    assert 0 < mine <= 1.5 * theirs


# --- what it leaves behind --------------------------------------------------------------------------------------------


def mixed(lm: lens.LanguageModel) -> None:
    """A model in the middle of someone's work: some parts train, some weights are frozen, some gradients are there."""
    lm.model.train()
    lm.layers[1].eval()
    for i, p in enumerate(lm.model.parameters()):
        p.requires_grad_(i % 3 > 0)
        if i % 5 == 1:
            p.grad = torch.full_like(p, 0.5)
    lm.layers[0].register_forward_hook(lambda *_: None)


class Stop(Exception):
    pass


def interrupt(lm, what, when):
    """Raise ``what`` on the way up or on the way down, inside the middle layer; returns the hook."""

    def up(*_):
        raise what

    def down(_, __, output):
        (output[0] if isinstance(output, tuple) else output).register_hook(up)

    return lm.layers[1].register_forward_pre_hook(up) if when == "forward" else lm.layers[1].register_forward_hook(down)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "opt"])
def test_the_model_is_untouched_after_success(tiny, state, kind):
    lm = tiny(kind)
    mixed(lm)
    before = state(lm.model)
    trace = lens.capture(lm, PROMPTS, TARGETS)
    lens.logit_lens(lm, PROMPTS[0])
    lens.backward_lens(lm, trace, "ff2")
    lens.project(lm, trace.stack("ff2"))
    assert state(lm.model) == before


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("what", [Stop, KeyboardInterrupt, torch.OutOfMemoryError])
def test_the_model_is_untouched_after_an_exception_or_ctrl_c(tiny, state, what, when):
    lm = tiny("llama")
    mixed(lm)
    before = state(lm.model)
    hook = interrupt(lm, what, when)
    with pytest.raises(what):
        lens.capture(lm, PROMPTS, TARGETS)
    hook.remove()
    assert state(lm.model) == before


@pytest.mark.parametrize("what", [Stop, KeyboardInterrupt])
def test_an_interrupted_logit_lens_leaves_no_hook(tiny, state, what):
    lm = tiny("gpt2")
    mixed(lm)
    before = state(lm.model)
    hook = interrupt(lm, what, "forward")
    with pytest.raises(what):
        lens.logit_lens(lm, PROMPTS[0])
    hook.remove()
    assert state(lm.model) == before


def test_no_parameter_requires_a_gradient_while_capture_runs(tiny):
    lm = tiny("qwen2")
    lm.model.requires_grad_(True)
    seen = []

    def look(*_):
        seen.append((any(p.requires_grad for p in lm.model.parameters()), any(m.training for m in lm.model.modules())))

    lm.model.train()
    for layer in lm.layers:
        layer.register_forward_pre_hook(look)
    lens.capture(lm, PROMPTS, TARGETS)
    assert seen == [(False, False)] * 3
    assert all(p.grad is None and p.requires_grad for p in lm.model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_capture_works_inside_the_callers_own_grad_mode(tiny, error, mode):
    lm = tiny("gpt2")
    want = lens.capture(lm, PROMPTS, TARGETS)
    with mode():
        inside = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        got = lens.capture(lm, PROMPTS, TARGETS)
        assert (torch.is_inference_mode_enabled(), torch.is_grad_enabled()) == inside
    same(got, want, error, bound=0)
    got.gradient(0, "ff2").delta.add_(1)  # ordinary tensors, also for autograd
    assert not got.gradient(0, "ff2").delta.requires_grad


def test_dropout_is_off_while_capture_runs(tiny, error):
    lm = tiny("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    want = lens.capture(lm, PROMPTS, TARGETS)
    lm.model.train()
    same(lens.capture(lm, PROMPTS, TARGETS), want, error, bound=0)
    assert error(lens.logit_lens(lm, PROMPTS[0]).vectors, lens.logit_lens(tiny("gpt2"), PROMPTS[0]).vectors) <= 1e-12


def test_no_dense_gradient_is_ever_allocated(tiny, record):
    lm = tiny("llama", num_hidden_layers=2, intermediate_size=4000)
    dense = 24 * 4000
    with record() as sizes:
        trace = lens.capture(lm, PROMPTS[:2], TARGETS[:2])
        g = trace.gradient(0, "ff2")
        g.norm(), g.rank(), g.singular_values(), trace[0].gradient(0, "ff1").norm()
        u, s, v = g.svd(k=3)
        lens.backward_lens(lm, trace, "ff2", k=3)
    assert g.shape == (4000, 24) and u.shape == (4000, 3)
    assert 0 < max(sizes) < dense, "something as large as a weight was made"
    assert max(sizes) <= 2 * 6 * 4000  # the padded activations of the batch: 2 rows of 6 tokens
    with record() as sizes:
        g.dense()
    assert max(sizes) == dense  # the instrument does see one


def test_one_tokens_capture_on_a_tall_site_stays_thin(tiny, record):
    lm = tiny("gpt2", n_inner=4000)
    with record() as sizes:
        g = lens.capture(lm, [5, 6], [7]).gradient(1, "ff1")
        g.norm(), g.rank(), g.svd()
    assert max(sizes) <= 2 * 4000 < 24 * 4000


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt, target, keywords, kind, words",
    [
        ("", "a", {}, ValueError, "prompt has no tokens"),
        ([], "a", {}, ValueError, "no prompts"),
        (["a", ""], "a", {}, ValueError, "prompt has no tokens"),
        ("a", "", {}, ValueError, "target has no tokens"),
        ("a", "   ", {}, ValueError, "target has no tokens"),
        ("a", [], {}, ValueError, "target has no tokens"),
        (["a", "b"], ["c"], {}, ValueError, "2 prompts and 1 targets"),
        (["a", "b"], [1, 2, 3], {}, ValueError, "2 prompts and 3 targets"),
        ([5] * 65, [1], {}, ValueError, "65 tokens.*at most 64"),
        ([5] * 64, [1, 2], {}, ValueError, "at most 64"),
        ([5, 300], [1], {}, ValueError, "300 is outside.*0 to 299"),
        ([5], [-1], {}, ValueError, "-1 is outside"),
        (torch.tensor([5.0, 6.0]), [1], {}, TypeError, "whole-number"),
        ([5], [True], {}, TypeError, "whole-number"),
        ("a", "b", {"sites": ["ff3"]}, ValueError, "'ff3'.*ff1"),
        ("a", "b", {"sites": "ff2"}, ValueError, "site"),
        ("a", "b", {"layers": [3]}, (IndexError, ValueError), "no layer 3.*0 to 2"),
        ("a", "b", {"layers": [-4]}, (IndexError, ValueError), "no layer -4"),
        ("a", "b", {"layers": []}, ValueError, "layer"),
        ("a", "b", {"sites": []}, ValueError, "site"),
        ("a", "b", {"layers": 1}, (TypeError, ValueError), "layer"),
        (None, "a", {}, (TypeError, ValueError), "text|prompt"),
        ("a", None, {}, (TypeError, ValueError), "text|target"),
    ],
)
def test_a_bad_argument_is_refused_in_one_sentence(tiny, state, refuses, prompt, target, keywords, kind, words):
    lm = tiny("gpt2")
    before = state(lm.model)
    with refuses(kind, words):
        lens.capture(lm, prompt, target, **keywords)
    assert state(lm.model) == before


def test_the_longest_prompt_the_model_reads_is_accepted(tiny):
    assert lens.capture(tiny("gpt2"), [5] * 64, [1]).lengths == (64,)
