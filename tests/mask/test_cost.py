"""The benchmark compares like with like: three ways to take one step, over the same rows, with the same losses."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from lens.__main__ import main
from lens.kernels import Key, naive, uniform
from lens.mask import Config
from lens.scale.bench import mask_cost
from lens.scale.bench.mask_cost import Ours, Published, Rows
from lens.scale.bench.measure import random_gpt2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small():
    return random_gpt2("cpu", n_embd=32, n_layer=4, n_head=2, vocab_size=6144)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(mask_cost, "ROWS", (8, 12, 4))


def config(**changes) -> Config:
    return Config(**(dict(targets=4, controls=6, texts=2, tokens=16, lr=1e-6) | changes))


@pytest.mark.parametrize("start", [1e-9, 1 - 1e-7])
def test_where_chance_has_no_say_both_formulations_have_the_same_losses(small, start):
    settings = config(start=start)
    ours, published = Ours(small, settings), Published(small, settings, Rows(small, settings, 0))
    assert [len(s) for s in ours.rows.sets] == [len(s) for s in published.rows.sets] == [8, 12, 4]
    for step in range(2):
        mine, theirs = ours.step(step), published.step(step)
        for name, loss in theirs.items():
            assert float(mine[name]) == pytest.approx(float(loss), rel=1e-4, abs=1e-6), name
        assert (float(mine["maintain_lm"]) > 1e-5) == (start > 0.5)


def test_both_formulations_have_the_same_gradient_where_they_draw_the_same(small, monkeypatch, error):
    settings = config(tau=0.8)
    ours, published = Ours(small, settings), Published(small, settings, Rows(small, settings, 0))
    sites = count()

    def drawn(w, scores, tau):
        u = uniform(tuple(w.shape), Key(settings.seed, 0, next(sites) % len(ours.places)))
        return w * (1 - naive.straight_through(naive.soft_mask(scores, u, tau)))

    monkeypatch.setattr(naive, "published_mask", drawn)
    ours.step(0), published.step(0)
    assert next(sites) == 3 * len(ours.places)
    for mine, theirs in zip(ours.scores.values, published.scores):
        assert error(mine.grad, theirs.grad) < 1e-4


def test_the_published_step_draws_a_mask_for_each_loss_and_keeps_the_model(small, monkeypatch, state):
    settings, drawn = config(), []
    ours, published = Ours(small, settings), Published(small, settings, Rows(small, settings, 0))
    honest = naive.published_mask
    monkeypatch.setattr(naive, "published_mask", lambda w, s, tau: drawn.append(honest(w, s, tau)) or drawn[-1])
    before = state(small.model)
    ours.step(0), ours.passes(0)
    assert state(small.model) == before and not drawn
    published.step(0)
    after = state(small.model)
    assert {k: v for k, v in after.items() if k != "rng"} == {k: v for k, v in before.items() if k != "rng"}
    places = len(published.places)
    assert len(drawn) == 3 * places and not torch.equal(drawn[0], drawn[places])


def test_the_passes_alone_are_those_of_the_step(small, monkeypatch):
    ours = Ours(small, config())
    seen: list[tuple] = []
    honest = ours.objective.losses

    def losses(some, weights):
        seen.append(tuple((name, tuple(rows.hidden.shape)) for name, rows in some))
        return honest(some, weights)

    monkeypatch.setattr(ours.objective, "losses", losses)
    ours.step(3)
    step, seen[:] = list(seen), []
    ours.passes(3)
    assert seen == step and len(step) == 2


def test_the_command_prints_times_memory_and_ratios_of_both_models(small, monkeypatch, capsys):
    monkeypatch.setattr(mask_cost, "load", lambda *_, **__: small)
    monkeypatch.setattr(mask_cost, "random_gpt2", lambda *_: small)
    monkeypatch.setattr(mask_cost.bench_mask, "__defaults__", (None, 1))
    assert main(["bench", "mask", "--device", "cpu"]) == 0
    lines = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    for model in ("mini", "GPT-2 small"):
        got = {name.split(": ")[1]: value for name, value in lines.items() if name.startswith(f"{model}: ")}
        times = [float(got[f"{name}, ms"]) for name in ("step", "its passes alone", "published step")]
        assert min(times) > 0 and float(got["published / step"]) == pytest.approx(
            times[2] / times[0], rel=0.05, abs=2e-3
        )
        assert {"memory, MB", "memory of the published step, MB", "memory / published"} <= set(got)
