"""ROME: the new value exactly at the key, by the least change for ordinary text, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lens
from lens import Request, edit
from lens.edit.contexts import in_contexts, prefixes
from lens.data.paths import table
from lens.edit.value import find_value
from lens.evaluate import score
from lens.model.families import FAMILIES
from lens.model.watching import watch

REQUEST = Request("On the {} is", "cat", "mat")  # byte for byte: several tokens a word, several a target
FRANCE = Request("The capital of {} is", "France", "Rome")
TEXTS = lens.data.heldout()[:3]
LAYER = 1
CLOSE = {"gptj": 1e-6, "gemma2": 1e-6}  # compute some of it in float32, whatever the weights are
SHAPES = [(2, 3), (1, 5)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def few_prefixes(monkeypatch, request):
    """Tiny models read 64 tokens, and spell by the byte."""
    if "mini" not in request.fixturenames:
        monkeypatch.setitem(table("editors.json")["rome"]["gpt2-xl"], "prefixes", SHAPES)


def statistics(lm):
    return edit.covariance(lm, [0, 1, 2], TEXTS)


def seen_at(lm, row, place, layer=LAYER):
    """FF2's input and output [d] at one token of one prompt, from a plain run."""
    with torch.no_grad(), watch({0: lm.site(layer, "ff2")}) as seen:
        lm.model(input_ids=torch.tensor([row]), use_cache=False)
    return (t.reshape(len(row), -1)[place] for t in seen[0])


def key_and_value(lm, request, chosen, layer=LAYER):
    """k* and v* + b: the mean input over the contexts, one prompt at a time, and the plain output moved by Δ."""
    before = prefixes(lm, SHAPES)
    pairs = [tuple(seen_at(lm, row, place, layer)) for row, place in zip(*in_contexts(lm, request, before))]
    delta = find_value(lm, request, layer, lm.site(layer, "ff2"), before, chosen).delta
    return torch.stack([k for k, _ in pairs]).mean(0), pairs[0][1] + delta


@pytest.mark.parametrize("kind", FAMILIES)
def test_rome_writes_v_star_exactly_at_k_star(tiny, kind, error):
    lm = tiny(kind)
    e = edit.rome(lm, REQUEST, layer=LAYER, steps=3, statistics=statistics(lm))
    k, v = key_and_value(lm, REQUEST, e.settings)
    module = lm.site(LAYER, "ff2")
    bias = 0 if module.bias is None else module.bias
    (change,) = e.changes
    assert (change.layer, change.site) == (LAYER, "ff2") and change.x.shape == (1, 40)
    assert error(k @ (lm.weight(LAYER, "ff2") + change.dense()) + bias, v) < CLOSE.get(kind, 1e-12)
    assert error(module(k[None])[0], v) > 1e-3
    with e, torch.no_grad():
        assert error(module(k[None])[0], v) < CLOSE.get(kind, 1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_change_has_rank_one_along_k_star_times_the_inverse_of_c(tiny, kind, error):
    lm = tiny(kind)
    known = statistics(lm)
    e = edit.rome(lm, REQUEST, layer=LAYER, steps=3, statistics=known)
    k, _ = key_and_value(lm, REQUEST, e.settings)
    dense = e.changes[0].dense()
    assert np.linalg.matrix_rank(dense.numpy()) == 1
    u = torch.linalg.solve(known[LAYER].C.double(), k)
    along = u[:, None] @ (u @ dense / (u @ u))[None]
    assert error(along, dense) < 1e-9


def test_no_other_change_that_meets_the_constraint_disturbs_ordinary_text_less(tiny, error):
    lm = tiny("gpt2")
    known = statistics(lm)
    e = edit.rome(lm, REQUEST, layer=LAYER, steps=3, statistics=known)
    k, _ = key_and_value(lm, REQUEST, e.settings)
    C, dense = known[LAYER].C.double(), e.changes[0].dense()
    # Karush–Kuhn–Tucker: [2C kᵀ; k 0] [ΔW; μ] = [0; v* − k*W], one column per output
    system = torch.cat([torch.cat([2 * C, k[:, None]], 1), torch.cat([k, k.new_zeros(1)])[None]])
    wanted = torch.linalg.solve(system, torch.cat([torch.zeros_like(dense), (k @ dense)[None]]))[:-1]
    assert error(dense, wanted) < 1e-8
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        other = torch.randn(dense.shape, generator=generator, dtype=torch.float64)
        other = dense + 1e-3 * (other - k[:, None] @ (k @ other)[None] / (k @ k))
        assert error(k @ other, k @ dense) < 1e-9
        assert (other.T @ C @ other).trace() > (dense.T @ C @ dense).trace()


# --- the value


def objective(lm, request, before, delta, chosen, layer=LAYER):
    """The loss of METHODS, one prompt at a time through the whole model, and v₀'s norm."""
    target = lm.target_ids(request.target_new)
    rows, places = in_contexts(lm, request, before)
    length = list(seen_at(lm, rows[0], places[0], layer))[1].norm()
    essence = f"{request.subject} is a"
    at = lens.segments(lm, essence, request.subject).index("subject last")

    def logits(ids, place, d):
        def add(_m, _a, z):
            moved = torch.zeros(len(ids), d.numel(), dtype=d.dtype)
            return z + torch.cat([moved[:place], d[None], moved[place + 1 :]]).reshape(z.shape)

        hook = lm.site(layer, "ff2").register_forward_hook(add)
        try:
            return lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        finally:
            hook.remove()

    nll = [
        -torch.stack([logits([*r, *target[:-1]], p, delta)[len(r) - 1 + j, t] for j, t in enumerate(target)]).mean()
        for r, p in zip(rows, places)
    ]
    now, then = (logits(lm.encode(essence), at, d)[-1] for d in (delta, torch.zeros_like(delta)))
    kl = (now.exp() * (now - then.detach())).sum()
    return sum(nll) / len(nll) + chosen["kl"] * kl + chosen["decay"] * delta.norm() / length**2, length


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_loss_is_nll_over_contexts_plus_divergence_plus_decay(tiny, kind, error):
    lm = tiny(kind)
    chosen = edit.settings(lm, "rome", layer=LAYER, steps=4, lr=0.1, kl=0.7, decay=0.01)
    before = prefixes(lm, SHAPES)
    found = find_value(lm, REQUEST, LAYER, lm.site(LAYER, "ff2"), before, chosen)
    for delta, loss in ((torch.zeros_like(found.delta), found.losses[0]), (found.delta, found.losses[-1])):
        wanted = objective(lm, REQUEST, before, delta, chosen)[0].detach()
        assert error(torch.tensor(loss, dtype=torch.float64), wanted) < CLOSE.get(kind, 1e-12)
    assert len(found.losses) == 5 and found.losses[-1] < found.losses[0]


def test_a_step_is_adams_and_ends_on_the_clamps_sphere(tiny, error):
    lm = tiny("gpt2")
    before = prefixes(lm, SHAPES)
    chosen = edit.settings(lm, "rome", layer=LAYER, steps=1, clamp=1e9, decay=0)
    found = find_value(lm, REQUEST, LAYER, lm.site(LAYER, "ff2"), before, chosen)
    at = torch.zeros(24, dtype=torch.float64, requires_grad=True)
    loss, length = objective(lm, REQUEST, before, at, chosen)
    (gradient,) = torch.autograd.grad(loss, [at])
    assert error(found.delta, -0.5 * gradient.sign()) < 1e-4  # Adam's first step, but for its ε
    chosen |= {"clamp": 0.25}
    found = find_value(lm, REQUEST, LAYER, lm.site(LAYER, "ff2"), before, chosen)
    assert error(found.delta.norm(), 0.25 * length) < 1e-12
    assert error(found.delta / found.delta.norm(), -gradient.sign() / 24**0.5) < 1e-4


def test_the_search_stops_where_the_loss_is_small_enough(tiny):
    lm = tiny("gpt2")
    given = dict(layer=LAYER, lr=0.1, decay=0.0, statistics=statistics(lm))
    losses = edit.rome(lm, REQUEST, **given).settings["losses"][0]
    assert len(losses) == 21
    stop = (losses[4] + losses[5]) / 2
    again = edit.rome(lm, REQUEST, stop=stop, **given).settings["losses"][0]
    assert again == losses[: len(again)] and again[-1] < stop <= min(again[:-1])


def test_what_is_said_surely_enough_is_left_alone(tiny):
    lm = tiny("gpt2")
    e = edit.rome(lm, REQUEST, layer=LAYER, stop=1e9, statistics=statistics(lm))
    assert e.changes == () and "for 'mat' is below 1e+09 from the start" in e.note and len(e.settings["losses"][0]) == 1


# --- the contexts


def test_prefixes_are_the_same_for_one_seed_and_leave_the_random_state_alone(tiny):
    shapes, models = [(10, 5), (10, 10)], [tiny("gpt2"), tiny("gpt2")]
    state = torch.get_rng_state()
    one, again, other = (prefixes(lm, shapes, seed) for lm, seed in zip([*models, models[0]], (0, 0, 1)))
    assert one == again != other and torch.equal(torch.get_rng_state(), state)
    assert [len(p) for p in one] == [0] + 10 * [5] + 10 * [10]
    assert len(set(one)) > 15 and not any(0 in p for p in one), "the end-of-text token is no part of a sentence"


@pytest.mark.parametrize("prompt", ["{} is on", "the cat and {}", "A cat, a {} and a cat are"])
def test_the_subject_is_found_behind_every_prefix_even_where_its_word_comes_before(tiny, prompt):
    lm = tiny("gpt2")
    cat = lm.encode("x cat")[1:]
    rows, places = in_contexts(lm, Request(prompt, "cat", "mat"), [(), tuple(lm.encode("a cat on a cat"))])
    first = lm.tokenizer.decode(rows[0][: places[0] + 1])
    assert first == prompt.replace("{}", "cat")[: prompt.index("{}") + 3]
    assert lm.tokenizer.decode(rows[1][: places[1] + 1]) == f"a cat on a cat. {first}"
    assert rows[1][places[1]] == cat[-1]


# --- editing


def test_a_list_is_edited_one_after_another_each_with_the_earlier_ones_in_place(tiny, error):
    lm, other = tiny("opt"), Request("The {} is on the", "thing", "one")
    given = dict(layer=LAYER, steps=3, statistics=statistics(lm))
    both = edit.rome(lm, [REQUEST, other], **given)
    assert both.requests == (REQUEST, other) and both.changes[0].x.shape == (2, 40)
    alone = edit.rome(lm, REQUEST, **given)
    with alone:
        then = edit.rome(lm, other, **given)
    for i, (change,) in enumerate([alone.changes, then.changes]):
        assert error(both.changes[0].x[i : i + 1], change.x) < 1e-9
        assert error(both.changes[0].delta[i : i + 1], change.delta) < 1e-9


def test_the_model_is_untouched_also_after_an_exception(tiny, state):
    lm = tiny("llama")
    known, calls = statistics(lm), []

    def fail(*_):
        calls.append(1)
        if len(calls) % 17 == 0:
            raise ZeroDivisionError

    prefixes(lm, SHAPES)
    hook = lm.layers[2].register_forward_hook(lambda *_: None)
    before = state(lm.model)
    edit.rome(lm, [REQUEST, REQUEST], layer=LAYER, steps=2, statistics=known)
    assert state(lm.model) == before
    hook.remove()
    hook = lm.layers[2].register_forward_hook(fail)
    before = state(lm.model)
    with pytest.raises(ZeroDivisionError):
        edit.rome(lm, [REQUEST] * 9, layer=LAYER, steps=4, statistics=known)
    assert len(calls) == 17 and state(lm.model) == before
    hook.remove()


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_in_every_grad_mode(tiny, grad):
    lm = tiny("gpt2")
    known = statistics(lm)
    want = edit.rome(lm, REQUEST, layer=LAYER, steps=1, statistics=known).changes[0]
    with grad():
        got = edit.rome(lm, REQUEST, layer=LAYER, steps=1, statistics=known).changes[0]
    assert torch.equal(got.delta, want.delta) and not got.delta.requires_grad and not got.x.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt"])
def test_a_half_precision_model_is_edited_by_single_precision_factors(tiny, kind, dtype, error):
    lm, wide = tiny(kind, dtype=dtype), tiny(kind)
    given = dict(layer=LAYER, lr=0.1, decay=0.0, steps=6, statistics=statistics(wide))
    got, want = edit.rome(lm, REQUEST, **given), edit.rome(wide, REQUEST, **given)
    (change,) = got.changes
    assert change.x.dtype == change.delta.dtype == torch.float32
    losses = got.settings["losses"][0]
    assert losses[-1] < losses[0] and error(losses[0], want.settings["losses"][0][0]) < 8 * torch.finfo(dtype).eps


def test_it_is_kept_in_kilobytes(mini, tmp_path):
    e = edit.rome(mini, FRANCE, steps=2)
    path = edit.save(e, tmp_path / "rome.safetensors")
    assert path.stat().st_size < 8000
    again = edit.load(mini, path)
    assert torch.equal(again.changes[0].x, e.changes[0].x) and torch.equal(again.changes[0].delta, e.changes[0].delta)
    assert again.settings["seed"] == 0 and again.settings["count"] == 100_000


def test_wrong_requests_are_refused_in_one_sentence(tiny, refuses):
    lm = tiny("gpt2")
    known = statistics(lm)
    with refuses(IndexError, "no layer 5"):
        edit.rome(lm, REQUEST, layer=5)
    with refuses(ValueError, "no statistics of layer 1"):
        edit.rome(lm, REQUEST, layer=1, statistics={0: known[0]})
    with refuses(ValueError, "has 64 tokens|reads at most 64"):
        edit.rome(lm, Request("the {} " + "on the mat " * 20, "cat", "mat"), layer=1, statistics=known)


def test_rome_edits_the_built_in_model_and_spares_the_neighbors(mini):
    for record in lens.data.records()[:2]:
        request = Request.from_record(record)
        e = edit.rome(mini, request)
        near = record["neighborhood_prompts"]
        prompts, targets = [request.text, *near], [request.target_new, *[request.target_true] * len(near)]
        before = score(mini, prompts, targets)
        after = score(mini, prompts, targets, edits=[e.changes], rows=[0] * len(prompts))
        assert after.correct[0] and not before.correct[0]
        assert after.correct[1:].sum() >= before.correct[1:].sum() / 2


def test_a_search_that_cannot_move_says_why(tiny):
    lm, request = tiny("gpt2"), Request("The {} is on the", "cat", "mat")
    for wrong, words in ((dict(clamp=0), "a clamp of 0"), (dict(lr=0), "a learning rate of 0"), (dict(stop=50), "is below 50")):
        note = edit.rome(lm, request, layer=1, statistics=None, texts=["a b c d " * 60] * 9, **wrong).note
        assert words in note and note.endswith("so nothing is changed.")
