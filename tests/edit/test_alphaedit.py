"""AlphaEdit: the published formula from thin factors, unheard by the keys of text and of earlier edits."""

from __future__ import annotations

import pytest
import torch

import lens
from lens import Request, edit
from lens.edit.alphaedit import inside
from lens.edit.contexts import in_contexts, prefixes
from lens.edit.memit import spread
from lens.data.paths import table
from lens.edit.statistics import Statistics
from lens.edit.value import find_value
from lens.evaluate import score
from lens.model.watching import watch

REQUESTS = [Request("On the {} is", "cat", "mat"), Request("The {} is on the", "thing", "one")]
EARLIER = [Request("{} on", "Ron", "a"), Request("The {} on", "other", "is")]
TEXTS = lens.data.heldout()[:3]
SHAPES = [(2, 3)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def few_prefixes(monkeypatch, request):
    """Tiny models read 64 tokens, and spell by the byte."""
    if "mini" not in request.fixturenames:
        for editor in ("alphaedit", "memit"):
            monkeypatch.setitem(table("editors.json")[editor]["gpt2-xl"], "prefixes", SHAPES)


def given(lm, **more):
    chosen = dict(layers=(0, 1), steps=3, lam=2.0, threshold=1.0, statistics=edit.covariance(lm, [0, 1], TEXTS))
    return chosen | more


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moment(rank=12, size=12, count=100):
    """Statistics of keys that fill only ``rank`` of the directions, and these keys."""
    k = normal(count, rank) @ normal(rank, size, seed=1)
    return Statistics(0, k.T @ k / count, count, ""), k


def projector(free):
    return free.T @ free


# --- the formula


@pytest.mark.parametrize("n, p", [(1, 0), (1, 5), (3, 2), (12, 30)])
@pytest.mark.parametrize("lam", [1e-3, 1.0, 10.0])
def test_the_thin_change_is_the_published_formula_in_columns(n, p, lam, error):
    statistics, _ = moment()
    free = statistics.null_space(float(statistics.eigen[0][7]))  # seven of twelve directions
    k, old, r, P = normal(n, 12, seed=2), normal(p, 12, seed=3), normal(n, 5, seed=4), projector(free)
    K1, Kp, R = k.T, old.T, r.T  # a key is a column
    published = R @ K1.T @ P @ torch.linalg.inv(Kp @ Kp.T @ P + K1 @ K1.T @ P + lam * torch.eye(12).double())
    assert len(free) == 7 and error((inside(free, k, old, lam).T @ r).T, published) < 1e-10


def test_it_is_the_minimum_of_the_objective_among_changes_within_the_null_space():
    free = moment(rank=6)[0].null_space(1e-9)
    k, old, r, lam = normal(3, 12, seed=2), normal(2, 12, seed=3), normal(3, 5, seed=4), 0.3
    change = inside(free, k, old, lam).T @ r
    inner = (free @ change).requires_grad_()
    wide = free.T @ inner
    assert torch.allclose(wide, change, atol=1e-14)
    loss = (k @ wide - r).square().sum() + (old @ wide).square().sum() + lam * wide.square().sum()
    (gradient,) = torch.autograd.grad(loss, [inner])
    assert gradient.abs().max() < 1e-12


def test_where_every_direction_is_free_it_is_memit_for_a_second_moment_of_one(error):
    k = normal(3, 12)
    one = Statistics(0, torch.eye(12).double(), 100, "")
    for lam in (0.1, 5.0):
        assert error(inside(torch.eye(12).double(), k, k[:0], lam), spread(one, k, lam)) < 1e-12


# --- what it leaves alone


def test_keys_of_the_text_are_answered_as_before_and_not_by_other_directions(error):
    statistics, text = moment(rank=6)
    free = statistics.null_space(1e-9)
    W, k, r = normal(12, 5, seed=2), normal(2, 12, seed=3), normal(2, 5, seed=4)
    change = inside(free, k, k[:0], 1e-9).T @ r
    assert len(free) == 6
    assert error(text @ (W + change), text @ W) < 1e-12
    assert error(k @ (W + change), k @ W + r) < 1e-6  # while the requests are answered as asked
    others = torch.linalg.qr(normal(12, 6, seed=5)).Q.T  # as many directions, drawn at random
    assert error(text @ (W + inside(others, k, k[:0], 1e-9).T @ r), text @ W) > 0.1


@pytest.mark.parametrize("place", range(1, 12))
def test_of_nearly_unused_directions_text_hears_less_than_the_threshold(place):
    statistics, text = moment()
    threshold = float(statistics.eigen[0][place])
    change = inside(statistics.null_space(threshold), normal(2, 12, seed=3), normal(0, 12), 0.1).T @ normal(2, 5)
    assert (text @ change).square().sum(1).mean() < threshold * change.square().sum()


def test_earlier_keys_are_answered_as_before(error):
    k, old, r = normal(2, 12, seed=2), normal(3, 12, seed=3), normal(2, 5, seed=4)
    free = moment(rank=6)[0].null_space(1e-9)
    kept, lost = (inside(free, k, keys, 1e-9).T @ r for keys in (old, old[:0]))
    assert (old @ kept).abs().max() < 1e-6 < 1e-2 < (old @ lost).abs().max()
    assert error(k @ kept, r) < 1e-6


def test_the_null_space_is_orthonormal_and_named_by_its_eigenvalues(refuses):
    statistics, _ = moment(rank=9)
    free = statistics.null_space(1e-9)
    assert torch.allclose(free @ free.T, torch.eye(3).double(), atol=1e-12)
    assert (free @ statistics.C).abs().max() < 1e-12
    with refuses(ValueError, "no eigenvalue below it: the smallest is"):
        moment()[0].null_space(1e-12)
    with refuses(ValueError, "over 5 tokens, too few"):
        Statistics(0, statistics.C, 5, "").null_space(1.0)


# --- in a model


def keys_and_outputs(lm, requests, layer):
    """K [n, d_m], averaged over the contexts, and what leaves layer 1 for the plain prompts, [n, d]."""
    keys, outputs = [], []
    for request in requests:
        runs = []
        for row, place in zip(*in_contexts(lm, request, prefixes(lm, SHAPES))):
            with torch.no_grad(), watch({"k": lm.site(layer, "ff2"), "h": lm.layers[1]}) as seen:
                lm.model(input_ids=torch.tensor([row]), use_cache=False)
            h = seen["h"][1][0] if isinstance(seen["h"][1], tuple) else seen["h"][1]
            runs.append((seen["k"][0].reshape(len(row), -1)[place], h.reshape(len(row), -1)[place]))
        keys.append(torch.stack([k for k, _ in runs]).mean(0))
        outputs.append(runs[0][1])
    return torch.stack(keys), torch.stack(outputs)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("earlier", [[], EARLIER])
def test_every_layer_takes_its_share_within_its_own_null_space(tiny, kind, earlier, error):
    lm = tiny(kind)
    known = given(lm)
    median = min(float(s.eigen[0].median()) for s in known["statistics"].values())
    e = edit.alphaedit(lm, REQUESTS, earlier=earlier, **known | {"threshold": median})
    assert [(c.layer, c.site, *c.x.shape) for c in e.changes] == [(0, "ff2", 2, 40), (1, "ff2", 2, 40)]
    before = prefixes(lm, SHAPES)
    found = [find_value(lm, r, 1, lm.layers[1], before, e.settings) for r in REQUESTS]
    z = torch.stack([keys_and_outputs(lm, REQUESTS, 0)[1][i] + f.delta for i, f in enumerate(found)])
    below = edit.Edit("alphaedit", e.requests, e.changes[:1], {}, 0.0, lm)
    for layer, left in ((0, 2), (1, 1)):
        if layer:
            below.apply()
        k, h = keys_and_outputs(lm, REQUESTS, layer)
        old = keys_and_outputs(lm, earlier, layer)[0] if earlier else k[:0]
        P = projector(known["statistics"][layer].null_space(median))
        all_keys = k.T @ k + old.T @ old
        wanted = torch.linalg.solve(P @ all_keys + 2.0 * torch.eye(40).double(), P @ k.T @ ((z - h) / left))
        assert error(e.changes[layer].dense(), wanted) < 1e-8
    below.undo()


def test_with_every_direction_free_the_whole_edit_is_memits_for_a_second_moment_of_one(tiny, error):
    lm = tiny("gpt2")
    known = given(lm, threshold=float("inf"))
    one = {layer: Statistics(layer, torch.eye(40), 1000, "") for layer in (0, 1)}
    wanted = edit.memit(lm, REQUESTS, **{k: v for k, v in known.items() if k != "threshold"} | {"statistics": one})
    for got, want in zip(edit.alphaedit(lm, REQUESTS, **known).changes, wanted.changes):
        assert error(got.dense(), want.dense()) < 1e-9


def test_the_edit_changes_the_model_and_is_undone_bit_for_bit(tiny, state):
    lm = tiny("llama")
    before = state(lm.model)
    e = edit.alphaedit(lm, REQUESTS, earlier=EARLIER, **given(lm, threshold=1e9))
    assert state(lm.model) == before
    weights = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    with e:
        changed = {name for name, p in lm.model.named_parameters() if not torch.equal(p, weights[name])}
    assert len(changed) == 2 and all(torch.equal(p, weights[name]) for name, p in lm.model.named_parameters())


def test_what_is_said_surely_enough_is_left_alone(tiny):
    lm = tiny("gpt2")
    e = edit.alphaedit(lm, REQUESTS[0], **given(lm, stop=1e9, threshold=1e9))
    assert e.changes == () and "for 'mat' is below 1e+09 from the start" in e.note


def test_wrong_requests_are_refused_in_one_sentence(tiny, refuses):
    lm = tiny("gpt2")
    for lam in (0, -1, float("nan")):
        with refuses(ValueError, "a number above 0|a finite number"):
            edit.alphaedit(lm, REQUESTS, **given(lm, lam=lam))
    with refuses(ValueError, "at least one layer"):
        edit.alphaedit(lm, REQUESTS, **given(lm, layers=[]))
    for threshold, words in (
        (-1.0, "a number above 0"),
        (float("nan"), "a finite number"),
        (1e-30, "no eigenvalue below it"),
    ):
        with refuses(ValueError, words):
            edit.alphaedit(lm, REQUESTS, **given(lm, threshold=threshold))
    with refuses(TypeError, "Expected an edit request"):
        edit.alphaedit(lm, REQUESTS, earlier="Ron", **given(lm))


def test_it_edits_a_fact_of_the_built_in_model_and_is_kept_in_a_file(mini, tmp_path):
    request = Request("The capital of {} is", "France", "Rome")
    e = edit.alphaedit(mini, request)
    texts = [request.text, "The capital of Italy is", "The capital of Spain is"]
    wanted = ["Rome", "Rome", "Madrid"]
    assert score(mini, texts, wanted).correct.tolist() == [False, True, True]
    assert score(mini, texts, wanted, edits=[e.changes]).correct.tolist() == [True, True, True]
    again = edit.load(mini, edit.save(e, tmp_path / "alphaedit.safetensors"))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.delta, b.delta) for a, b in zip(again.changes, e.changes))
    assert again.settings == e.settings
