"""MEMIT: the dense normal equations from thin factors, layer after layer, for any number of requests."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

import lens
from lens import Request, edit
from lens.edit.contexts import in_contexts, prefixes
from lens.edit.memit import spread
from lens.data.paths import table
from lens.edit.statistics import Statistics
from lens.edit.value import find_value
from lens.evaluate import score
from lens.model.families import FAMILIES
from lens.model.watching import watch

REQUESTS = [
    Request("On the {} is", "cat", "mat"),
    Request("The {} is on the", "thing", "one"),
    Request("{} on", "Ron", "a"),
]
TEXTS = lens.data.heldout()[:3]
SHAPES = [(2, 3)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def few_prefixes(monkeypatch, request):
    """Tiny models read 64 tokens, and spell by the byte."""
    if "mini" not in request.fixturenames:
        monkeypatch.setitem(table("editors.json")["memit"]["gpt2-xl"], "prefixes", SHAPES)


def given(lm, layers=(0, 1), **more):
    return dict(layers=layers, steps=3, lam=2.0, statistics=edit.covariance(lm, [0, 1, 2], TEXTS)) | more


def moment(size=12, count=100, seed=0):
    k = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return Statistics(0, k.T @ k / count, count, "")


def plain_run(lm, row, place, layer, last):
    """FF2's input in ``layer`` and the output of ``last``, at one token of one prompt."""
    with torch.no_grad(), watch({"k": lm.site(layer, "ff2"), "h": lm.layers[last]}) as seen:
        lm.model(input_ids=torch.tensor([row]), use_cache=False)
    h = seen["h"][1]
    h = h[0] if isinstance(h, tuple) else h
    return seen["k"][0].reshape(len(row), -1)[place], h.reshape(len(row), -1)[place]


def keys_and_outputs(lm, layer, last):
    """K [n, d_m], averaged over the contexts, and the plain prompts' h [n, d]."""
    keys, outputs = [], []
    for request in REQUESTS:
        runs = [plain_run(lm, r, p, layer, last) for r, p in zip(*in_contexts(lm, request, prefixes(lm, SHAPES)))]
        keys.append(torch.stack([k for k, _ in runs]).mean(0))
        outputs.append(runs[0][1])
    return torch.stack(keys), torch.stack(outputs)


# --- the least squares


@pytest.mark.parametrize("n", [1, 3, 12, 30])
@pytest.mark.parametrize("lam", [1e-3, 1.0, 1e4])
def test_spread_solves_the_dense_normal_equations(n, lam, error):
    s, k = moment(), torch.randn(n, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    wanted = torch.linalg.solve(lam * s.C.double() + k.T @ k, k.T).T
    assert error(spread(s, k, lam), wanted) < 1e-9


def test_its_change_is_the_minimum_of_the_objective():
    s, lam = moment(), 0.3
    generator = torch.Generator().manual_seed(1)
    k, r = (torch.randn(4, n, dtype=torch.float64, generator=generator) for n in (12, 5))
    change = (spread(s, k, lam).T @ r).requires_grad_()
    loss = (k @ change - r).square().sum() + lam * (change.T @ s.C.double() @ change).trace()
    (gradient,) = torch.autograd.grad(loss, [change])
    assert gradient.abs().max() < 1e-12


def test_one_request_with_lambda_towards_zero_meets_romes_constraint(error):
    s, k = moment(), torch.randn(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = spread(s, k, 1e-12)
    u = s.solve(k)
    assert error(k @ x.T, torch.ones(1, 1)) < 1e-10
    assert error(x, u / (u @ k.T)) < 1e-10


# --- layer after layer


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if not family.behind])
def test_every_layer_takes_its_share_of_what_the_changes_below_have_left(tiny, kind, error):
    lm = tiny(kind)
    e = edit.memit(lm, REQUESTS, **given(lm))
    assert [(c.layer, c.site, *c.x.shape) for c in e.changes] == [(0, "ff2", 3, 40), (1, "ff2", 3, 40)]
    before = prefixes(lm, SHAPES)
    known = e.settings | {"statistics": given(lm)["statistics"]}
    found = [find_value(lm, r, 1, lm.layers[1], before, known) for r in REQUESTS]
    z = torch.stack([keys_and_outputs(lm, 0, 1)[1][i] + f.delta for i, f in enumerate(found)])
    applied = edit.Edit("memit", e.requests, e.changes[:1], {}, 0.0, lm)
    for layer, left in ((0, 2), (1, 1)):
        if layer:
            applied.apply()
        k, h = keys_and_outputs(lm, layer, 1)
        C = known["statistics"][layer].C.double()
        wanted = torch.linalg.solve(2.0 * C + k.T @ k, k.T @ ((z - h) / left))
        assert error(e.changes[layer].dense(), wanted) < (1e-5 if kind == "gptj" else 1e-8)  # float32 inside
    applied.undo()


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_requests_run_in_any_number_of_batches_and_any_order(tiny, rows, monkeypatch, error):
    lm = tiny("qwen3")
    want = edit.memit(lm, REQUESTS, **given(lm))
    monkeypatch.setattr(import_module("lens.edit.memit"), "ROWS", rows)
    got = edit.memit(lm, REQUESTS[::-1], **given(lm))
    for one, other in zip(got.changes, want.changes):
        assert error(one.dense(), other.dense()) < 1e-9


def test_the_layers_below_and_above_the_edit_run_once(tiny):
    lm, runs = tiny("gpt2", n_layer=5), [0] * 5
    known = given(lm, layers=[1, 2, 3], statistics=edit.covariance(lm, [1, 2, 3], TEXTS), steps=1)
    prefixes(lm, SHAPES)
    hooks = [
        m.register_forward_pre_hook(lambda *_, i=i: runs.__setitem__(i, runs[i] + 1)) for i, m in enumerate(lm.layers)
    ]
    edit.memit(lm, REQUESTS[:1], **known)
    [hook.remove() for hook in hooks]
    # One pass and two runs of the upper layers for z; one pass that keeps what enters layer 1; then layers 1 to 3 again
    # for each of the three.
    assert runs == [2, 2 + 3, 2 + 3, 4 + 3, 4]


def test_the_model_is_untouched_also_after_an_exception(tiny, state):
    lm = tiny("llama")
    known, calls = given(lm), []
    prefixes(lm, SHAPES)
    before = state(lm.model)
    edit.memit(lm, REQUESTS, **known)
    assert state(lm.model) == before

    def fail(*_):
        calls.append(1)
        if len(calls) == 18:  # with the first layer's change in place
            raise ZeroDivisionError

    hook = lm.layers[1].register_forward_hook(fail)
    before = state(lm.model)
    with pytest.raises(ZeroDivisionError):
        edit.memit(lm, REQUESTS, **known)
    assert state(lm.model) == before
    hook.remove()


def test_what_is_said_surely_enough_is_left_alone(tiny):
    lm = tiny("gpt2")
    e = edit.memit(lm, REQUESTS[0], **given(lm, stop=1e9))
    assert e.changes == () and "for 'mat' is below 1e+09 from the start" in e.note


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_edited_by_single_precision_factors(tiny, dtype):
    lm = tiny("llama", dtype=dtype)
    e = edit.memit(lm, REQUESTS, **given(lm, statistics=edit.covariance(tiny("llama"), [0, 1], TEXTS)))
    assert all(c.x.dtype == c.delta.dtype == torch.float32 and c.dense().isfinite().all() for c in e.changes)
    with e:
        pass


def test_wrong_requests_are_refused_in_one_sentence(tiny, refuses):
    lm = tiny("gpt2")
    for lam in (0, -1, float("nan")):
        with refuses(ValueError, "a number above 0|a finite number"):
            edit.memit(lm, REQUESTS, **given(lm, lam=lam))
    with refuses(ValueError, "at least one layer"):
        edit.memit(lm, REQUESTS, **given(lm, layers=[]))
    with refuses(IndexError, "no layer 3"):
        edit.memit(lm, REQUESTS, **given(lm, layers=[0, 3]))
    with refuses(ValueError, "no statistics of layer 2"):
        edit.memit(lm, REQUESTS, **given(lm, layers=[0, 2], statistics=edit.covariance(lm, [0, 1], TEXTS)))


def test_memit_edits_several_facts_of_the_built_in_model_at_once(mini, tmp_path):
    requests = [Request.from_record(r) for r in lens.data.records()[:5]]
    e = edit.memit(mini, requests)
    texts, targets = [r.text for r in requests], [r.target_new for r in requests]
    assert score(mini, texts, targets).correct.sum() == 0
    assert score(mini, texts, targets, edits=[e.changes]).correct.sum() >= 4
    again = edit.load(mini, edit.save(e, tmp_path / "memit.safetensors"))
    assert [torch.equal(a.x, b.x) for a, b in zip(again.changes, e.changes)] == [True] * len(e.changes)
