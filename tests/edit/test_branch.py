"""A branch beside a matrix computes what the edited matrix would."""

from __future__ import annotations

import pytest
import torch

from lens import Request, edit
from lens.edit import Change, branches
from lens.model.batch import pad
from lens.model.families import FAMILIES

REQUESTS = [
    Request("The {} is on the", "cat", "mat"),
    Request("A {} has", "bird", "wings"),
    Request("{} is", "It", "a"),
]


def edits_of(lm) -> list:
    """Three edits of different ranks and sites; the second has nothing at the first's site."""
    one = edit.sgd_step(lm, REQUESTS[0], layers=[1], sites=["ff2"], eta=0.3)
    if not lm.family.behind:
        one = edit.shift(lm, REQUESTS[0], layer=1, eta=0.3)
    own = [site for site in ("ff1", "attn_out") if lm.family.sites[site].part is None]
    two = edit.sgd_step(lm, REQUESTS[1], layers=[0, 2], sites=own, eta=0.5)
    three = edit.sgd_step(lm, REQUESTS[2], layers=[0, 1, 2], sites=["ff2"], eta=0.5)
    return [one, two, three]


def logits(lm, ids):
    with torch.no_grad():
        return lm.model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_of_one_batch_carry_different_edits(tiny, kind, error):
    lm = tiny(kind)
    ids, real = pad([lm.encode(REQUESTS[i].text) for i in (2, 0, 1, 0)])
    carried = edits_of(lm)
    rows = [1, 0, 2, 2]
    with branches(lm, [e.changes for e in carried], rows):
        got = logits(lm, ids)
    plain = logits(lm, ids)
    for b, i in enumerate(rows):
        with carried[i]:
            wanted = logits(lm, ids[b : b + 1])[0]
        assert error(got[b][real[b]], wanted[real[b]]) < 1e-12
        assert error(got[b][real[b]], plain[b][real[b]]) > 1e-6  # the edit is seen at all


@pytest.mark.parametrize("kind", FAMILIES)
def test_without_rows_the_whole_batch_carries_one_edit(tiny, kind, error):
    lm = tiny(kind)
    ids, _ = pad([lm.encode(REQUESTS[0].text)] * 2)
    e = edits_of(lm)[2]
    with branches(lm, [e.changes]):
        got = logits(lm, ids)
    with e:
        assert error(got, logits(lm, ids)) < 1e-12


def test_without_rows_the_first_of_several_edits_counts_and_other_rows_than_given_are_refused(tiny, error, refuses):
    lm = tiny("gpt2")
    ids, carried = torch.tensor([lm.encode(REQUESTS[0].text)] * 4), [e.changes for e in edits_of(lm)]
    with branches(lm, carried):
        got = logits(lm, ids)
    with branches(lm, carried[:1]):
        assert error(got, logits(lm, ids)) < 1e-12
    with branches(lm, carried, [0, 1]), refuses(ValueError, "batch has 4 rows, and rows gives the edits of 2: give"):
        logits(lm, ids)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_batch_of_another_size_is_refused_by_every_family(tiny, kind, refuses):
    lm = tiny(kind)
    ids, carried = torch.tensor([lm.encode(REQUESTS[0].text)] * 4), [e.changes for e in edits_of(lm)[:2]]
    with branches(lm, carried, [0, 1]), refuses(ValueError, "batch has 4 rows, and rows gives the edits of 2: give"):
        logits(lm, ids)


def test_branches_leave_the_model_as_it_was_also_after_an_exception(tiny, state):
    lm = tiny("llama")
    carried = [e.changes for e in edits_of(lm)]
    before = state(lm.model)
    with pytest.raises(ZeroDivisionError), branches(lm, carried, [0, 1, 2]):
        1 / 0
    with branches(lm, [], None):
        logits(lm, torch.tensor([[1, 2]]))
    assert state(lm.model) == before


def test_half_precision_is_close_to_the_edit_applied(tiny, error):
    lm = tiny("gpt2", torch.bfloat16)
    ids = torch.tensor([lm.encode(REQUESTS[0].text)])
    e = edit.shift(lm, REQUESTS[0], layer=1, eta=0.3)
    with branches(lm, [e.changes]):
        got = logits(lm, ids)
    with e:
        wanted = logits(lm, ids)
    assert got.dtype == torch.bfloat16 and error(got, wanted) < 0.05 < error(logits(lm, ids), wanted)


def test_what_has_no_factors_cannot_run_as_a_branch(tiny, refuses):
    lm = tiny("gpt2")
    full = Change(1, "ff2", None, torch.zeros(40, 24))
    third = Change(1, "attn_q", torch.zeros(1, 24), torch.zeros(1, 24))
    for change in (full, third):
        with refuses(ValueError, "cannot run as a branch"), branches(lm, [[change]]):
            pass
