"""MEND starts as gradient descent, is trained along the true meta-gradient, and leaves the model alone."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
import torch

import lens
from lens import Request, data, edit
from lens.__main__ import main
from lens.data import manifest, paths
from lens.data.world import tails
from lens.edit import mend, mend_loss, mend_training
from lens.edit.mend import MendNetwork, load_network, save_network
from lens.edit.mend_examples import Example, training_example, training_facts, validation_examples
from lens.edit.mend_loss import meta_loss
from lens.edit.mend_training import MendRecipe, new_network, recipe_for, train, train_step, validate
from lens.model.families import FAMILIES

EPS = torch.finfo(torch.float64).eps
CAT = Request("The {} is on the", "cat", "mat", "roof")
DOG = Request("A {} is in", "dog", "bed", "yard")
EXAMPLES = [
    Example(CAT, ("The cat is on the", "There is the cat on the"), ("A dog is in", "The sun"), ("It is late.",)),
    Example(DOG, ("A dog is in", "Late. A dog lies in"), ("The cat is on the",), ("He went on and on.", "So.")),
]
SMALL = MendRecipe(layers=(1, 2), rank=4, alpha=0.1, normalize=False, edits=2, prose=8)


def network(lm, recipe=SMALL, noise=0.0, seed=0) -> MendNetwork:
    """A network for a tiny model; with noise, away from the identity and with z-scores that are not trivial."""
    net, generator = new_network(lm, recipe), torch.Generator().manual_seed(seed)
    if noise:
        with torch.no_grad():
            for name, t in net.state_dict().items():
                t.add_(noise * torch.rand(t.shape, generator=generator, dtype=torch.float64).to(t))
    return net


def write(lm, path, net=None):
    net = network(lm, noise=0.1) if net is None else net
    return save_network(net, path, {"model": lm.name, "fingerprint": lm.fingerprint, "recipe": {}})


def traced(lm, net, *requests):
    return net.capture(lm, [r.text for r in requests], [r.target_new for r in requests])


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["mat", "a long one"], ids=["one token", "several"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_fresh_network_without_z_scores_is_gradient_descent(tiny, error, kind, target):
    lm = tiny(kind)
    net, request = network(lm), replace(CAT, target_new=target)
    trace, full = traced(lm, net, request), lens.capture(lm, request.text, target)
    assert set(net.shapes) == {(layer, site) for layer in (1, 2) for site in ("ff1", "ff2")}
    for (layer, site), (x, delta) in net(trace).items():
        g = full.gradient(layer, site)
        told = g.delta.any(1)
        assert torch.equal(x[told], g.x[told])
        alpha = float(net.own[f"{layer}_{site}"].log_alpha.detach().exp())
        assert error(x.T @ delta, -alpha * g.dense()) <= 16 * EPS and g.norm() > 0


def test_mend_with_a_fresh_network_is_one_step_of_gradient_descent(tiny, error, tmp_path):
    lm = tiny("llama")
    weights = write(lm, tmp_path / "fresh", network(lm))
    step = edit.sgd_step(lm, [CAT, DOG], eta=0.1, layers=[1, 2], sites=["ff1", "ff2"])
    got = mend(lm, [CAT, DOG], weights=weights)
    assert [(c.layer, c.site) for c in got.changes] == [(c.layer, c.site) for c in step.changes]
    for ours, theirs in zip(got.changes, step.changes):
        assert error(ours.dense(), theirs.dense()) <= 1e-6  # alpha is stored in float32


def test_the_formula_of_the_docstring_is_what_is_computed(tiny, error):
    lm = tiny("gpt2")
    net = network(lm, noise=0.3)
    trace = traced(lm, net, CAT)
    for (layer, site), (x, delta) in net(trace).items():
        own, g = net.own[f"{layer}_{site}"], trace.gradient(layer, site)
        shared = net.shared["24x40" if site == "ff1" else "40x24"]
        for i in range(len(g)):
            h = (torch.cat([g.x[i], g.delta[i]]) - own.mean) / own.std
            for k in range(2):
                h = h + (own.scale[k] * (h @ shared.V[k]) + own.shift[k]).clamp(min=0) @ shared.U[k]
            told = bool(g.delta[i].any())
            assert error(x[i], h[: x.shape[1]]) <= 64 * EPS
            assert error(delta[i], -own.log_alpha.exp() * h[x.shape[1] :] * told) <= 64 * EPS


def test_z_scores_have_mean_zero_and_deviation_one_over_the_tokens_that_are_told_something(tiny):
    lm = tiny("gpt2")
    net = network(lm)
    traces = [traced(lm, net, CAT), traced(lm, net, DOG, replace(CAT, subject="old house"))]
    net.standardize(traces)
    for key in net.shapes:
        own, rows = net.own["{}_{}".format(*key)], []
        for trace in traces:
            g = trace.gradient(*key)
            rows.append(torch.cat([g.x, g.delta], 1)[g.delta.any(1)])
        z = (torch.cat(rows) - own.mean) / own.std
        assert float(z.mean(0).abs().max()) <= 1e-8
        assert float((z.std(0, correction=0) - 1).abs().max()) <= 1e-6
    assert len(torch.cat(rows)) < sum(len(t.gradient(*key)) for t in traces)  # the last layer tells only last tokens


def test_an_entry_that_never_varies_is_not_divided_by_zero(tiny):
    lm = tiny("gpt2")
    net = network(lm, replace(SMALL, layers=(2,)))
    net.standardize([traced(lm, net, replace(CAT, target_new="the"))])  # in the last layer one token: no entry varies
    assert bool((net.own["2_ff2"].std == 1).all())
    assert all(bool(t.isfinite().all()) for pair in net(traced(lm, net, DOG)).values() for t in pair)


def test_a_token_that_is_told_nothing_changes_nothing(tiny, tmp_path):
    lm = tiny("gpt2")
    changes = mend(lm, replace(CAT, target_new="the"), weights=write(lm, tmp_path / "net")).changes
    n = len(lm.encode(CAT.text))
    assert [len(c.x) for c in changes if c.layer == 2] == [1, 1] and {len(c.x) for c in changes if c.layer == 1} == {n}


# --- the meta-loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "opt"])  # the others compute their norms in float32
def test_the_meta_gradient_agrees_with_finite_differences(tiny, kind):
    lm = tiny(kind)
    net = network(lm, noise=0.2)
    names, parameters = zip(*net.named_parameters())
    gradients = torch.autograd.grad(meta_loss(lm, net, EXAMPLES, *SMALL.loss).loss, parameters)
    generator = torch.Generator().manual_seed(1)
    for name, p, gradient in zip(names, parameters, gradients):
        way = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        ends = []
        with torch.no_grad():
            for step in (1e-6, -2e-6, 1e-6):
                p.add_(step * way)
                ends.append(float(meta_loss(lm, net, EXAMPLES, *SMALL.loss).loss))
        slope = (ends[0] - ends[1]) / 2e-6
        assert float(gradient.norm()) > 0, name
        assert slope == pytest.approx(float((gradient * way).sum()), rel=1e-5, abs=1e-8), name


def test_the_meta_loss_is_that_of_the_edited_model(tiny, tmp_path):
    """The same two numbers from weights that were really changed, one edit at a time."""
    lm = tiny("gpt2")
    net, recipe = network(lm, noise=0.2), replace(SMALL, edit_weight=0.3)
    outcome = meta_loss(lm, net, EXAMPLES, *recipe.loss)

    def logp(text):
        ids = lm.encode(text)[: SMALL.prose if "." in text else None]
        return lm.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)

    nll, kl = [], []
    for example in EXAMPLES:
        texts = [*example.locality, *example.prose]
        with torch.no_grad():
            before = [logp(text) for text in texts]
            pairs = net(traced(lm, net, example.request))
            changes = tuple(edit.Change(*key, *pair) for key, pair in pairs.items())
            with edit.Edit("mend", (example.request,), changes, {}, 0.0, lm):
                for text in example.equivalents:
                    p = lens.capture(lm, text, example.request.target_new, layers=[2]).loss
                    nll.append(p.item())
                for text, old in zip(texts, before):
                    old, new = (t if text in example.prose else t[-1:] for t in (old, logp(text)))
                    kl.append(float((old.exp() * (old - new)).sum(-1).mean()))
    assert outcome.edit == pytest.approx(sum(nll) / len(nll), rel=1e-9)
    assert outcome.locality == pytest.approx(sum(kl) / len(kl), rel=1e-9) and outcome.locality > 1e-3
    assert outcome.loss.item() == pytest.approx(0.3 * outcome.edit + outcome.locality)


def test_a_batch_of_examples_is_the_mean_of_its_examples(tiny):
    lm = tiny("gpt2")
    net = network(lm, noise=0.2)
    same_size = [replace(EXAMPLES[0]), replace(EXAMPLES[1], locality=("The cat", "So"), prose=("He went.",))]
    both, one, other = (meta_loss(lm, net, part, *SMALL.loss) for part in (same_size, same_size[:1], same_size[1:]))
    assert both.loss.item() == pytest.approx((one.loss + other.loss).item() / 2, rel=1e-12)


# --- what is left alone -----------------------------------------------------------------------------------------------


def test_editing_and_training_leave_the_model_as_it_was(tiny, state, tmp_path):
    lm = tiny("gpt2")
    lm.model.train().requires_grad_(True)
    lm.fingerprint
    before = state(lm.model)
    net = network(lm, noise=0.1)
    mend(lm, CAT, weights=write(lm, tmp_path / "net", net))
    train_step(lm, net, torch.optim.Adam(net.parameters()), EXAMPLES, SMALL)
    validate(lm, net, EXAMPLES, SMALL)
    assert state(lm.model) == before


@pytest.mark.parametrize("where", ["cross_entropy", "_read"])
def test_an_exception_in_training_leaves_the_model_as_it_was(tiny, state, monkeypatch, where):
    lm = tiny("gpt2")
    lm.model.train()
    net, before = network(lm), state(lm.model)

    def broken(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(mend_loss, where, broken)
    with pytest.raises(KeyboardInterrupt):
        train_step(lm, net, torch.optim.Adam(net.parameters()), EXAMPLES, SMALL)
    assert state(lm.model) == before


def test_an_edit_never_builds_a_matrix(mini, record):
    request = Request.from_record(data.records("validation")[0])
    mend(mini, request)  # opens the network
    tokens = len(mini.encode(request.text))
    with record() as sizes:
        made = mend(mini, request)
    assert max(sizes) < 192 * 768 and {len(c.x) for c in made.changes} <= {1, tokens}


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_network_comes_back_from_its_file_rounded_to_half_precision(tiny, error, kind, tmp_path):
    lm = tiny(kind)
    net = network(lm, noise=0.2)
    back, about = load_network(lm, write(lm, tmp_path / "net", net))
    assert about["model"] == lm.name and back.shapes == net.shapes
    for name, t in net.state_dict().items():
        kept = torch.float16 if name.endswith((".U", ".V")) else torch.float32
        assert torch.equal(back.state_dict()[name], t.to(kept).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_of_a_narrower_model_keep_factors_in_float32(tiny, tmp_path, dtype):
    lm = tiny("gpt2", dtype)
    made = mend(lm, CAT, weights=write(lm, tmp_path / "net"))
    assert {t.dtype for c in made.changes for t in (c.x, c.delta)} == {torch.float32}
    with made:
        pass


def test_a_mend_edit_is_saved_and_loaded(mini, tmp_path):
    made = mend(mini, Request("The capital of {} is", "France", "Rome"))
    back = edit.load(mini, edit.save(made, tmp_path / "edit.safetensors"))
    assert back.settings == made.settings and back.settings["recipe"]["seed"] == 0
    for ours, theirs in zip(made.changes, back.changes):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.delta, theirs.delta)


def test_a_network_for_another_model_is_refused_by_name(tiny, refuses, tmp_path):
    path = write(tiny("gpt2"), tmp_path / "net")
    with refuses(ValueError, "'tiny gpt2'.*than this one.*mend train"):
        mend(tiny("gpt2", seed=1), CAT, weights=path)
    with refuses(ValueError, "another model"):
        mend(tiny("gpt2"), CAT, weights="mini")


def test_a_model_without_a_network_is_told_the_command(tiny, refuses):
    with refuses(ValueError, "no MEND network for the model 'tiny opt'.*python -m lens mend train"):
        mend(tiny("opt"), CAT)


def test_missing_and_damaged_files_are_told_in_one_sentence(tiny, refuses, tmp_path):
    lm = tiny("gpt2")
    with refuses(OSError, "no MEND network 'nowhere'.*python -m lens mend train"):
        mend(lm, CAT, weights="nowhere")
    path = write(lm, tmp_path / "net")
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-8], b"", whole.replace(b"lens-mend-2", b"lens-mend-9"), b"\xff" * 64):
        path.write_bytes(damaged)
        with refuses(OSError, "no whole MEND network.*mend train"):
            mend(lm, CAT, weights=path)
    made = edit.save(edit.shift(lm, CAT), tmp_path / "edit")
    with refuses(OSError, "no whole MEND network"):
        mend(lm, CAT, weights=made)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tiny, monkeypatch):
    """A tiny model that can read the world's sentences, and four of the validation examples."""
    monkeypatch.setattr(mend_training, "validation_examples", lambda: validation_examples()[:4])
    return tiny("gpt2", torch.float32, n_positions=512)


TINY = MendRecipe(layers=(1, 2), rank=8, alpha=1e-2, edits=2, standardize=8, steps=12, prose=8, lr=1e-2, alpha_lr=0.1)


@pytest.mark.slow
def test_training_lowers_the_meta_loss_of_examples_it_never_saw_and_repeats_bit_for_bit(world, tmp_path):
    examples = validation_examples()[:4]
    before = validate(world, new_network(world, TINY), examples, TINY)
    paths_ = [train(world, tmp_path / name, TINY, every=4, progress=False) for name in ("one", "two")]
    assert paths_[0].read_bytes() == paths_[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    trained, about = load_network(world, paths_[0])
    after = validate(world, trained, examples, TINY)
    assert after["loss"] < before["loss"] - 0.01
    assert after["loss"] == pytest.approx(about["validation"]["loss"], rel=1e-2)  # stored in float16
    other = train(world, tmp_path / "three", replace(TINY, seed=1), every=4, progress=False)
    assert other.read_bytes() != paths_[0].read_bytes()


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_network(world, tmp_path, monkeypatch):
    whole = train(world, tmp_path / "whole", TINY, every=4, progress=False)
    steps = iter(range(7))

    def stopping(*args, inner=train_step):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(mend_training, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(world, tmp_path / "stopped", TINY, every=4, progress=False)
    assert not (tmp_path / "stopped").exists()
    assert train(world, tmp_path / "stopped", TINY, every=4, progress=False).read_bytes() == whole.read_bytes()


def test_a_training_that_diverges_is_ended_by_name_and_writes_nothing(world, tmp_path, refuses):
    with refuses(ValueError, r"meta-loss became nan in step \d: try a smaller lr"):
        train(world, tmp_path / "net", replace(TINY, lr=1e36), every=4, progress=False)
    assert not list(tmp_path.iterdir())


def test_no_steps_and_no_such_layer_are_refused_before_anything_runs(tiny, refuses, tmp_path):
    with refuses(ValueError, "at least one step"):
        train(tiny("gpt2"), tmp_path / "net", replace(TINY, steps=0))
    with refuses(IndexError, "no layer 7"):
        train(tiny("gpt2"), tmp_path / "net", replace(TINY, layers=(7,)))
    assert not list(tmp_path.iterdir())


def test_the_command_hands_its_arguments_to_the_recipe(monkeypatch, capsys, tmp_path, mini):
    seen = []
    hear = lambda lm, out, recipe: seen.append((lm.name, out, recipe)) or out  # noqa: E731
    monkeypatch.setattr("lens.commands.edit.train", hear)
    arguments = ["mend", "train", "--steps", "6", "--seed", "3", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "net")]) == 0
    assert seen == [("mini", tmp_path / "net", recipe_for(mini, steps=6, seed=3))]
    assert main([*arguments, "--model", "gpt2"]) == 1
    assert "--out FILE" in capsys.readouterr().err and len(seen) == 1


def test_the_defaults_are_the_papers():
    recipe = MendRecipe()
    assert (recipe.alpha, recipe.edit_weight, recipe.locality_weight, recipe.layers) == (1e-4, 0.1, 1.0, (-3, -2, -1))


def test_no_subject_of_a_record_is_in_training():
    measured = {r["requested_rewrite"]["subject"].lower() for r in data.records()}
    assert not measured & ({f.np.lower() for f in training_facts()} | {f.head.lower() for f in training_facts()})
    assert {e.request.subject for e in validation_examples()} == {
        r["requested_rewrite"]["subject"] for r in data.records("validation")
    }


def test_an_examples_target_is_false_and_its_locality_is_about_others():
    for seed in range(200):
        example = training_example(Random(seed))
        request = example.request
        true = {tail for (_, np), known in tails().items() if np == request.subject for tail in known}
        assert request.target_true in true and request.target_new not in true
        assert request.text in example.equivalents
        assert len(example.equivalents) >= 2 and len(set(example.equivalents)) == len(example.equivalents)
        assert not set(example.equivalents) & set(example.locality) and len(example.locality) >= 2


# --- what ships -------------------------------------------------------------------------------------------------------


def test_the_shipped_network_is_small_listed_and_made_by_the_recipe_of_its_settings(mini):
    path = paths.root() / "mend" / "mini.safetensors"
    assert path.stat().st_size <= 4_000_000 and manifest.verify("mend") == 1
    _, about = load_network(mini, "mini")
    assert about["recipe"] == json.loads(json.dumps(vars(recipe_for(mini))))
    assert {"lens", "python", "torch", "transformers"} <= set(about["versions"])


@pytest.mark.slow
def test_the_shipped_network_edits_records_it_never_saw(mini):
    examples = validation_examples()[::4]
    trained, about = load_network(mini, "mini")
    fresh = new_network(mini, recipe_for(mini, standardize=40))
    recipe = recipe_for(mini)
    after, before = (validate(mini, net, examples, recipe) for net in (trained, fresh))
    assert after["loss"] < before["loss"] / 2
    assert after["said"] > before["said"] + 0.5
