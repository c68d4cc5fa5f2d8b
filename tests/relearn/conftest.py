"""Questions short enough for the tiny models, whose tokenizer spells byte by byte, and subnetworks of them."""

from __future__ import annotations

import itertools

import pytest
import torch

from lens.data import Fact, Question
from lens.kernels import pack
from lens.mask import Config, Subnetwork

WORDS = ("ash", "hut", "the", "on", "oak", "rye", "a", "is")


def question(head: str, tail: str, others, filtered: bool, at: int) -> Question:
    fact = Fact("test", "test", "target", "kind", head, head, tail)
    choices = (*others[:at], tail, *others[at:])
    return Question(f"{head} is", choices, at, head, fact, filtered)


@pytest.fixture(scope="session")
def asked() -> tuple[Question, ...]:
    """Eight questions of four choices, of one token and of several; every second is filtered."""
    found = []
    for i, head in enumerate(("cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay")):
        others = [WORDS[(i + j) % 8] for j in (2, 5, 7)]
        found.append(question(head, WORDS[i], others, i % 2 == 0, i % 4))
    return tuple(found)


@pytest.fixture(scope="session")
def some_removed():
    """``some_removed(lm)``: a tenth of the weights of each site of layers 1 and 2."""

    def make(lm) -> Subnetwork:
        generator = torch.Generator().manual_seed(0)
        shapes = {key: tuple(lm.weight(*key).shape) for key in itertools.product((1, 2), lm.sites)}
        bits = {key: pack(torch.rand(shape, generator=generator) < 0.1) for key, shape in shapes.items()}
        return Subnetwork(bits, shapes, Config(), (), lm.name, lm.fingerprint, 8)

    return make
