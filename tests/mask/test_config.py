"""A configuration holds only settings that mean something, and says in a sentence what is wrong with another."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import inf, nan

import numpy as np
import pytest

from lens.data import paths
from lens.mask import Config, config_for

BAD = [
    *[(n, v) for n in ("suppress", "maintain_kg", "maintain_lm", "express", "warmup") for v in (-1, nan, inf)],
    ("warmup", 1.5),
    *[(name, value) for name in ("tau", "lr") for value in (0, -1, nan, inf, "much")],
    *[(n, v) for n in ("steps", "targets", "controls", "texts", "tokens", "check") for v in (0, -1, 1.5, nan, "many")],
    *[("start", value) for value in (0, 1, -0.1, nan)],
    *[("sparsity", value) for value in ((1,), (1, 2, 3), (-1, 2), (nan, 2), (1, inf), 3)],
    *[("granularity", value) for value in ("head", None)],
    ("samples", "both"),
    ("position", "before"),
    ("layers", ()),
    ("layers", 4),
    ("layers", ("first",)),
    ("sites", ()),
    ("sites", "attn_q"),
    ("stop", {"ppl": 1}),
    ("stop", {"density": nan}),
    ("stop", {"density": "small"}),
    ("stop", "density"),
    *[("seed", value) for value in (-1, 1.5, 2**32, "none")],
    ("tokens", 1),
    ("suppress", "much"),
    *[(name, True) for name in ("steps", "seed", "lr", "suppress", "stop", "start")],
    ("layers", (True,)),
    ("lr", 10**400),
]


@pytest.mark.parametrize("name, value", BAD, ids=lambda value: str(value))
def test_a_setting_that_means_nothing_is_refused_in_a_sentence(refuses, name, value):
    with refuses(ValueError, name):
        Config(**{name: value})


def test_the_defaults_are_the_papers():
    c = Config()
    assert (c.suppress, c.maintain_kg, c.maintain_lm, c.express) == (1.5, 1, 1, 0)
    assert (c.start, c.tau, c.lr, c.warmup, c.steps, c.sparsity) == (0.45, 1, 0.2, 0.1, 40_000, (2, 3))
    assert c.layers is None and c.sites is None and c.position == "tail" and c.granularity == "weight"


def test_the_weight_of_sparsity_rises_over_the_second_half():
    c = Config(steps=100, sparsity=(2, 4))
    assert [c.weight_of_sparsity(step) for step in (0, 30, 50, 75, 100)] == [2, 2, 2, 3, 4]


def test_the_learning_rate_warms_up_and_stays():
    c = Config(steps=100, lr=0.5, warmup=0.1)
    assert [c.rate(step) for step in (0, 4, 9, 10, 99)] == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.5])
    assert Config(steps=3, warmup=0).rate(0) == Config(steps=3).rate(0) == 0.2


def test_a_configuration_survives_json():
    c = Config(layers=[4, 5], sites=["ff1"], stop={"density": 0.1, "suppress": 2}, sparsity=[1, 2])
    assert c.layers == (4, 5) and Config(**json.loads(json.dumps(asdict(c)))) == c
    assert replace(c, seed=2).seed == 2
    given = dict(
        layers=(np.int64(4),), stop={"density": np.float64(0.5)}, sparsity=(np.float32(1), 2), lr=np.float32(0.5)
    )
    c = Config(seed=np.int32(3), **given)
    assert Config(**json.loads(json.dumps(asdict(c)))) == c and type(c.seed) is int and type(c.lr) is float


def test_what_is_due_after_the_tail_is_not_expressed(refuses):
    with refuses(ValueError, "position is 'after'.*express is 0.5"):
        Config(position="after", express=0.5)


def test_every_row_of_the_table_of_chosen_settings_is_one_and_has_its_use(mini, tiny, refuses):
    table = json.loads((paths.root() / "masks.json").read_text(encoding="utf-8"))
    assert set(table) == {"weight", "neuron"}
    for granularity, models in table.items():
        for settings in models.values():
            assert Config(granularity=granularity, **settings) != Config(granularity=granularity)
        chosen = config_for(mini, granularity)
        assert chosen.granularity == granularity and chosen.steps == models["mini"]["steps"]
        assert config_for(mini, granularity, steps=7) == replace(chosen, steps=7)
    assert config_for(tiny("gpt2")) == Config() and config_for(tiny("gpt2"), "neuron") == Config(granularity="neuron")
    with refuses(ValueError, "no setting 'rate'.*steps"):
        config_for(mini, rate=1)
    with refuses(ValueError, "granularity is 'head'"):
        config_for(mini, "head")
