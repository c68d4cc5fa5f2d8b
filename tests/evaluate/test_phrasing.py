"""Of several phrasings, the one a model knows best is kept."""

from __future__ import annotations

import pytest
import torch

from lens.data import knowledge, verbalize
from lens.evaluate import best_phrasing

TEMPLATES = {"sea": ["{Np} is on {tail}.", "By {np}: {tail}.", "At {np} is {tail}."]}
TRIPLETS = [("Bari", "sea", "the A"), ("Oran", "sea", "it"), ("Split", "sea", "a sea on it")]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_the_phrasing_kept_gives_the_tail_the_highest_probability_one_pass_each(tiny, kind, state):
    lm = tiny(kind)
    before = state(lm.model)
    prompts = verbalize(TRIPLETS, TEMPLATES)
    likely = {}
    for p in prompts:
        ids, tail = lm.encode(p.text), lm.target_ids(p.target)
        with torch.no_grad():
            logs = lm.model(torch.tensor([[*ids, *tail]])).logits[0].log_softmax(-1)
        likely[p] = sum(float(logs[len(ids) - 1 + j, t]) for j, t in enumerate(tail))
    wanted = tuple(max(prompts[i : i + 3], key=likely.get) for i in (0, 3, 6))
    assert best_phrasing(lm, prompts) == wanted and state(lm.model) == before


def test_the_first_of_equals_is_kept_and_facts_keep_their_order(tiny):
    same = {"sea": ["{Np} is on {tail}.", "{head} is on {tail}."]}
    kept = best_phrasing(tiny("gpt2"), verbalize(TRIPLETS, same))
    assert [(p.fact.head, p.template) for p in kept] == [("Bari", 0), ("Oran", 0), ("Split", 0)]


def test_the_best_known_form_is_trained_on_and_the_others_are_paraphrases(mini):
    everything = verbalize([("cafe", "hypernym", "restaurant"), ("igloo", "hypernym", "house")])
    best = best_phrasing(mini, everything)
    kg = knowledge(best, unseen=everything)
    assert kg.target == best and set(kg.unseen) == set(everything) - set(best)


def test_no_prompts_give_none(tiny):
    assert best_phrasing(tiny("gpt2"), []) == ()
