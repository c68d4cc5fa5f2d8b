"""Logit lens, backward lens, and the two lemmas they rest on, exactly."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import lens
from lens.model.families import FAMILIES

PROMPT, TARGET = [5, 9, 100, 33, 77], [44]


# --- Lemma 5.1: what enters at the top --------------------------------------------------------------------------------


def residual(lm, h, target: int):
    """Σ_k (p_k − 1[k = t]) E[k] at the normed vector; p is the model's own softmax."""
    with torch.no_grad():
        p = lm.head(lm.norm(h)).softmax(-1)
    p[target] -= 1
    return p @ lm.unembedding.detach(), p


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"])
def test_lemma_5_1_the_top_vjp_is_probabilities_minus_target_times_embeddings(tiny, error, kind):
    """Followed back through the final norm it is the last FF2's δ at the last token: nothing lies between the two."""
    lm = tiny(kind)
    h = lens.logit_lens(lm, PROMPT).vectors[-1, -1].clone()
    want, coefficients = residual(lm, h, TARGET[0])
    assert coefficients[TARGET[0]] < 0 and int((coefficients < 0).sum()) == 1  # only the target is pushed up

    normed = lm.norm(h).detach().requires_grad_()
    loss = -lm.head(normed).log_softmax(-1)[TARGET[0]]
    assert error(torch.autograd.grad(loss, normed)[0], want) <= 1e-12

    _, through_the_norm = torch.autograd.functional.vjp(lm.norm, h, want)
    delta = lens.capture(lm, PROMPT, TARGET).gradient(-1, "ff2").delta
    assert error(delta[-1], through_the_norm) <= 1e-12
    assert delta[:-1].abs().max() == 0


# --- Lemma 5.2: what one token's update does --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("site", ["ff1", "ff2", "attn_out"])
def test_lemma_5_2_one_tokens_update_moves_its_own_output_by_eta_times_x_squared(tiny, error, kind, site):
    """W ← W − η xᵢᵀδᵢ and the same xᵢ again: z moves by −η‖xᵢ‖²δᵢ."""
    lm, eta, i, layer = tiny(kind), 0.3, 2, 1
    g = lens.capture(lm, PROMPT, TARGET).gradient(layer, site)
    module, x, delta = lm.site(layer, site), g.x[i], g.delta[i]
    with torch.no_grad():
        own = partial(lm.family.sites[site].slice, config=lm.model.config)
        before = own(module(g.x))
        lm.weight(layer, site).sub_(eta * torch.outer(x, delta))
        after = own(module(g.x))
    assert error(after[i] - before[i], -eta * x.dot(x) * delta) <= 1e-12
    assert error(after - before, -eta * torch.outer(g.x @ x, delta)) <= 1e-12  # every other token by its overlap with x


def test_a_gradient_step_lowers_the_loss_and_its_opposite_raises_it(tiny):
    """The sign of the whole book: training subtracts xᵀδ."""
    losses = []
    for sign in (-1, 0, 1):
        lm = tiny("gpt2")
        g = lens.capture(lm, PROMPT, TARGET).gradient(1, "ff2")
        with torch.no_grad():
            lm.weight(1, "ff2").add_(sign * 1e-3 * g.dense())
        losses.append(float(lens.capture(lm, PROMPT, TARGET).loss))
    assert losses[0] < losses[1] < losses[2]


# --- the grids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_logit_lens_reads_what_each_layer_hands_on(tiny, error, kind):
    lm = tiny(kind)
    seen = lens.logit_lens(lm, PROMPT, target=TARGET[0], k=4)
    with torch.no_grad():
        states = lm.model(torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
    assert seen.vectors.shape == (3, 5, 24) and seen.layers == (0, 1, 2) and seen.vocabulary_size == 300
    for layer in (0, 1):  # the last of hidden_states is normed already
        assert error(seen.vectors[layer], states[layer + 1][0]) <= 1e-12
        assert torch.equal(lens.project(lm, states[layer + 1][0], k=4).ids, seen.ids[layer])
    assert torch.equal(seen.ranks, lens.token_rank(lm, seen.vectors, TARGET[0]))
    assert error(seen.norms, seen.vectors.norm(dim=-1)) <= 1e-6
    assert seen.tokens == tuple(lm.words(PROMPT))
    assert seen.words[1][2][0] == lm.word(int(seen.ids[1, 2, 0]))


def test_one_position_is_a_column_of_the_whole_reading(tiny, refuses):
    lm = tiny("gpt2")
    whole = lens.logit_lens(lm, PROMPT, TARGET, k=3)
    for position in (0, -1):
        one = lens.logit_lens(lm, PROMPT, TARGET, k=3, position=position)
        assert one.tokens == (whole.tokens[position],) and torch.equal(one.vectors[:, 0], whole.vectors[:, position])
        assert torch.equal(one.ids[:, 0], whole.ids[:, position])
        assert torch.equal(one.ranks[:, 0], whole.ranks[:, position])
    with refuses(ValueError, "the prompt has 5 tokens"):
        lens.logit_lens(lm, PROMPT, position=5)


def test_probabilities_are_the_softmax_over_the_whole_vocabulary(tiny, error):
    lm = tiny("gpt2")
    seen = lens.logit_lens(lm, PROMPT, k=300)
    assert error(seen.probabilities, seen.logits.softmax(-1)) <= 1e-5
    few = lens.logit_lens(lm, PROMPT, k=3)
    assert error(few.probabilities, seen.probabilities[..., :3]) <= 1e-6


def test_backward_lens_reads_inputs_from_the_top_and_vjps_from_the_bottom(tiny):
    lm = tiny("llama")
    trace = lens.capture(lm, PROMPT, TARGET)
    for site, factor, largest in (
        ("ff1", "x", True),
        ("ff1_gate", "x", True),
        ("ff2", "delta", False),
        ("attn_out", "delta", False),
        ("attn_q", "x", True),
    ):
        seen = lens.backward_lens(lm, trace, site, k=4)
        vectors = trace.stack(site, factor)
        assert torch.equal(seen.vectors, vectors)
        assert torch.equal(seen.ids, lens.project(lm, vectors, k=4, largest=largest).ids), site
        assert torch.equal(seen.ranks, lens.token_rank(lm, vectors, TARGET[0])) and seen.target == TARGET[0]
        assert ("top" if largest else "bottom") in seen.what and site in seen.what
        other = lens.backward_lens(lm, trace, site, k=4, largest=not largest)
        assert torch.equal(other.ids, lens.project(lm, vectors, k=4, largest=not largest).ids)
        unit = lens.backward_lens(lm, trace, site, k=4, normalize=True, target=7)
        assert torch.equal(unit.ids, lens.project(lm, vectors, k=4, largest=largest, normalize=True).ids)
        assert torch.equal(unit.ranks, lens.token_rank(lm, vectors, 7, normalize=True))


@pytest.mark.parametrize("kind", ["olmo2", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("site", ["ff2", "attn_out"])
def test_behind_a_norm_the_gradient_that_is_read_is_the_residual_streams(tiny, error, kind, site):
    lm = tiny(kind)
    norm = "post_feedforward_layernorm" if site == "ff2" else "post_attention_layernorm"
    batch = lens.capture(lm, [PROMPT, PROMPT[:3]], [TARGET, TARGET])
    for prompt, trace in zip((PROMPT, PROMPT[:3]), batch):
        pushes = [torch.zeros(len(prompt), 24, dtype=torch.float64, requires_grad=True) for _ in lm.layers]
        hooks = [
            layer.get_submodule(norm).register_forward_hook(lambda _, __, y, push=push: y + push)
            for layer, push in zip(lm.layers, pushes)
        ]
        logits = lm.model(torch.tensor([prompt])).logits[0, -1]
        want = torch.stack(torch.autograd.grad(-logits.log_softmax(-1)[TARGET[0]], pushes))
        for hook in hooks:
            hook.remove()
        seen = lens.backward_lens(lm, trace, site, k=4)
        assert error(seen.vectors, want) < 1e-6  # attention's softmax is in float32
        assert torch.equal(seen.vectors, trace.stack(site, "residual"))
        assert torch.equal(seen.ids, lens.project(lm, seen.vectors, k=4, largest=False).ids)
        assert error(trace.stack(site), want) > 0.1  # δ is another thing


def test_a_picture_that_reads_ff2s_own_output_is_refused_behind_a_norm(tiny, refuses):
    lm = tiny("olmo2")
    trace = lens.capture(lm, PROMPT, TARGET)
    for draw in (lambda: lens.plot.mlp_pass(lm, trace, 1), lambda: lens.plot.imprint_and_shift(lm, trace, 1, 0.1, {})):
        with refuses(ValueError, "olmo2.*post_feedforward_layernorm.*backward_lens"):
            draw()


def test_backward_lens_says_the_target_where_the_update_writes_it(mini):
    """The bottom of LL(δ) at the top of the network is the word being taught; its top is what the model said."""
    trace = lens.capture(mini, "The capital of France is", "Rome")
    assert lens.backward_lens(mini, trace, "ff2", k=1).words[-1][-1] == ["·Rome"]
    assert int(lens.backward_lens(mini, trace, "ff2").ranks[-1, -1]) == len(mini.unembedding) - 1
    said = lens.backward_lens(mini, trace, "ff2", k=1, largest=True).words[-1][-1]
    assert said == lens.logit_lens(mini, "The capital of France is", k=1).words[-1][-1] == ["·Paris"]


def test_a_lens_over_some_layers_is_labelled_with_them(tiny):
    lm = tiny("gpt2")
    seen = lens.backward_lens(lm, lens.capture(lm, PROMPT, TARGET, layers=[2, 0], sites=["ff2"]), k=2)
    assert seen.layers == (0, 2) and seen.ids.shape == (2, 5, 2)


def test_a_batch_is_read_end_to_end_as_its_prompts_are(tiny):
    lm = tiny("gpt2")
    trace = lens.capture(lm, [PROMPT, [7, 8]], [TARGET, TARGET])
    seen = lens.backward_lens(lm, trace, "ff2", k=2)
    parts = [lens.backward_lens(lm, part, "ff2", k=2) for part in trace]
    assert torch.equal(seen.ids, torch.cat([p.ids for p in parts], dim=1))


def test_a_trace_of_another_model_is_refused_and_of_the_same_weights_is_not(tiny, refuses):
    lm, other, again = tiny("gpt2"), tiny("gpt2", seed=1), tiny("gpt2")
    trace = lens.capture(lm, "A cafe is", "hut")
    for read in (lens.backward_lens, partial(lens.plot.mlp_pass, layer=1)):
        with refuses(ValueError, "captured on another model .*: capture it here"):
            read(other, trace)
        read(again, trace)
    both = lens.capture(lm, ["A cafe is", "A cat is"], ["hut", "mat"])
    for wrong, words in ((dict(trace=both), "the trace holds 2"), (dict(token=len(trace.ids)), "counted from 0")):
        with refuses(ValueError, words):
            lens.plot.mlp_pass(lm, **{"trace": trace, "layer": 1} | wrong)
    with torch.no_grad():
        lm.weight(1, "ff2").mul_(1.01)  # a step by hand: the model that the trace is of, still
    lens.backward_lens(lm, trace)


def test_each_row_of_a_batch_can_be_ranked_by_a_target_of_its_own(tiny, refuses):
    lm = tiny("gpt2")
    trace = lens.capture(lm, [PROMPT, [7, 8]], [[44], [51]])
    own = torch.tensor([t[0] for t, n in zip(trace.targets, trace.lengths) for _ in range(n)])
    seen = lens.backward_lens(lm, trace, "ff2", k=2, target=own)
    parts = [lens.backward_lens(lm, part, "ff2", k=2) for part in trace]
    assert torch.equal(seen.ranks, torch.cat([p.ranks for p in parts], dim=1))
    same = lens.backward_lens(lm, trace, "ff2", k=2, target=own.numpy())
    word = lens.backward_lens(lm, trace, "ff2", k=2, target=np.str_("##cat"))
    assert word.target == lens.backward_lens(lm, trace, "ff2", k=2, target="##cat").target
    assert torch.equal(same.ranks, seen.ranks) and torch.equal(same.target, seen.target)
    with refuses(ValueError, "Give one token, or one per vector"):
        lens.backward_lens(lm, trace, "ff2", k=2, target=own[:2])


def test_a_site_the_model_or_the_trace_lacks_is_refused(tiny, refuses):
    lm = tiny("gpt2")
    with refuses(ValueError, "ff1_gate"):
        lens.backward_lens(lm, lens.capture(lm, PROMPT, TARGET), "ff1_gate")
    with refuses(ValueError, "ff2"):
        lens.backward_lens(lm, lens.capture(lm, PROMPT, TARGET, sites=["ff1"]), "ff2")


# --- the reference point of the paper, where its weights are ----------------------------------------------------------


def test_gpt2_small_says_what_the_paper_measured():
    """Needs GPT-2's real weights in the local cache (METHODS, section 3); nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    from lens.data import paths

    if not isinstance(try_to_load_from_cache("gpt2", "model.safetensors"), str):
        pytest.skip("GPT-2's weights are not on this machine")
    lm = lens.load("gpt2", device="cpu", dtype=torch.float32)
    trace = lens.capture(lm, "Obama grew up in", " Paris")
    assert float(trace.loss) == pytest.approx(7.4214, abs=1e-3)
    delta = trace.stack("ff2")[:, -1]
    assert delta.norm(dim=-1)[[0, 6, 11]].tolist() == pytest.approx([0.1152, 0.3333, 0.1932], abs=1e-3)
    text = (paths.root() / "paper" / "backward_lens_demo_gpt2.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if line[0].isdigit()]
    want = [int(rank) for _, rank in rows]
    assert lens.token_rank(lm, delta, " Paris").tolist() == pytest.approx(want, abs=5)
