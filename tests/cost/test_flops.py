"""Operations against torch's own counter, and hours against arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lens import cost
from lens.scale.cost import papers
from lens.scale.cost.flops import Operations, passes

ROWS, TOKENS = 2, 9


def counted(lm, backward: bool) -> int:
    """Of matrix products alone: torch does not count a CPU's fused attention, nor does this."""
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    e = lm.model.get_input_embeddings()(ids).detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        hidden = lm.base_model(inputs_embeds=e, use_cache=False).last_hidden_state
        out = lm.head(hidden[:, -1])
        if backward:
            out.sum().backward()
    products = counter.get_flop_counts()["Global"]
    return sum(n for op, n in products.items() if str(op) in ("aten.mm", "aten.addmm"))


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
def test_every_matrix_product_is_counted(tiny, kind):
    lm = tiny(kind, torch.float32)
    s = cost.shape(lm)
    attention = 4 * ROWS * TOKENS**2 * s.query * s.layers
    assert passes(lm, ROWS, TOKENS, ROWS).flops - attention == counted(lm, False)
    for p in lm.model.parameters():
        p.requires_grad_(False)
    told = passes(lm, ROWS, TOKENS, ROWS, backward=True).flops - attention - attention * 5 // 2
    assert told == counted(lm, True)
    for layer in lm.layers:
        for p in layer.parameters():
            p.requires_grad_(p.ndim > 1)
    learning = s.modules(range(s.layers))
    told = passes(lm, ROWS, TOKENS, ROWS, backward=True, learning=learning).flops - attention - attention * 5 // 2
    assert told == counted(lm, True)


def test_hours_are_operations_and_bytes_over_what_the_machine_does():
    gpu = cost.MACHINES["A100"]
    work = Operations(int(19.5e12 * 3600), int(2039e9 * 3600))
    assert work.hours(gpu, utilization=1) == pytest.approx(2) and work.hours(gpu, utilization=0.5) == pytest.approx(4)
    assert (3 * work).hours(gpu) == pytest.approx(3 * work.hours(gpu))


def test_each_row_of_the_papers_states_its_assumptions():
    items = papers.every_table(100)
    tables = {"Backward Lens, Table 1", "Subnetworks, Table 2", "Subnetworks, Table 6", "Subnetworks, Table 16"}
    assert tables <= {item.table for item in items} and all(item.assumed for item in items)
    assert all(item.hours(cost.MACHINES["A100"]) > 0 for item in items)


def test_a_step_that_is_not_counted_is_refused(refuses):
    with refuses(ValueError, "operations of 'dream'"):
        cost.flops("gpt2", "dream")


def test_this_processor_can_be_calibrated():
    cpu = cost.this_cpu(side=256, repeats=3)
    assert 1e8 < cpu.peak() < 1e14 and 1e8 < cpu.bandwidth < 1e13
