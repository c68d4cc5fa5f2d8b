"""A training that ships with the book stands for one call: for any other, the training runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import log2, prod

import pytest

import lens
from lens.data import manifest, paths
from lens.mask import config_for, load, train
from lens.mask.kept import file_of
from lens.mask.objective import Objective

SHIPPED = sorted((paths.root() / "runs").glob("*/short/*.safetensors"))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of its own, to which kept runs are written."""
    shutil.copy(paths.root() / "masks.json", tmp_path)
    shutil.copytree(paths.world(), tmp_path / "world")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    manifest.write()
    return tmp_path


@pytest.fixture
def call(mini):
    """``call(steps=3)``: a training of mini on a few prompts, kept under the name "a few"."""
    kg = lens.data.knowledge("building")

    def run(target=kg.target[:4], outside=None, **settings):
        config = config_for(mini, **dict(steps=2, check=2, targets=4, controls=2, texts=1, stop=None) | settings)
        return train(mini, target, kg.control[:4], kg.text[:2], config, outside=outside, kept="a few", progress=False)

    return run


@pytest.fixture
def steps(monkeypatch):
    """How many steps of a training have run."""
    done, honest = [], Objective.backward
    monkeypatch.setattr(Objective, "backward", lambda *given: done.append(1) or honest(*given))
    return done


def test_a_kept_run_is_what_the_same_call_trains_and_no_other_gets_it(data, call, steps, monkeypatch, capsys, mini):
    live = call()  # a reader's run writes nothing
    assert not list(data.glob("runs/**/*")) and "trained here" in capsys.readouterr().out
    monkeypatch.setenv("LENS_AGAIN", "1")
    kept = call()
    monkeypatch.delenv("LENS_AGAIN")
    assert kept.bits == live.bits and load(file_of("a few")).bits == live.bits and manifest.verify("runs") == 1

    steps.clear()
    capsys.readouterr()
    assert call().bits == live.bits and not steps and "comes with the book" in capsys.readouterr().out
    few = lens.data.knowledge("building").target[:4]
    others = [dict(seed=1), dict(sparsity=(0.0, 0.0)), dict(position="after"), dict(target=few[:3])]
    others += [dict(target=[*few[:3], replace(few[3], target="hut")]), dict(outside=live)]
    for number, other in enumerate(others, 1):
        call(**other)
        assert len(steps) == 2 * number and "are not those of" in capsys.readouterr().out
    with live.removed(mini), pytest.raises(RuntimeError, match="undo that first"):  # the same name, other weights
        call()
    assert len(steps) == 2 * len(others)
    file_of("a few").write_bytes(b"damaged")
    call()
    assert len(steps) == 2 * len(others) + 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_kept_file_holds_the_mask_that_its_history_ends_with_and_says_how_it_was_made(path, mini):
    held = load(path, mini if path.parts[-3] == "mini" else None)
    assert held.history[-1]["step"] == held.config.steps
    assert held.density() == pytest.approx(held.history[-1]["hard"]["density"], rel=1e-6)
    which = "" if held.model == "mini" else f" MODEL={held.model}"
    assert held.about["command"] == "LENS_AGAIN=1 make book" + which and held.model == path.parts[-3]
    assert {"run", "machine", "versions", "seconds"} <= {*held.about}
    weights, density = sum(map(prod, held.shapes.values())), held.density()
    holds = -weights / 8 * (density * log2(density) + (1 - density) * log2(1 - density))  # bytes, by Shannon
    assert path.stat().st_size < (250_000 if held.model == "mini" else 1.7 * holds)


def test_training_anew_goes_the_way_that_a_kept_file_tells(mini):
    """On another processor the last bits differ, so the first check's losses are compared, not the weights."""
    held, kg = load(file_of("building no controls"), mini), lens.data.knowledge("building")

    class Enough(Exception):
        pass

    def watch(history):
        seen.append(history[-1])
        raise Enough

    seen = []
    with pytest.raises(Enough):
        train(mini, kg.target, kg.control[::4], kg.text[:100], held.config, watch=watch, progress=False)
    for kind in ("sampled", "hard"):
        assert seen[0][kind] == pytest.approx(held.history[0][kind], rel=0.02)
