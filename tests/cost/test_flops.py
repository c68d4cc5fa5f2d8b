"""Operations against torch's own counter, and hours against arithmetic."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lens import cost
from lens.mask import Config
from lens.scale.cost import Operations, papers
from lens.scale.cost.memory import STEPS

ROWS, TOKENS = 2, 9


def counted(lm, backward: bool) -> int:
    """Of matrix products alone: torch does not count a CPU's fused attention."""
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
        out = lm.head(hidden[:, -1])
        if backward:
            out.sum().backward()
    products = counter.get_flop_counts()["Global"]
    return sum(n for op, n in products.items() if str(op) in ("aten.mm", "aten.addmm"))


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
def test_every_matrix_product_is_counted(tiny, kind):
    lm = tiny(kind, torch.float32)
    s, work = cost.shape(lm), dict(batch=ROWS, tokens=TOKENS)
    attention = 4 * ROWS * TOKENS**2 * s.query * s.layers
    assert cost.flops(lm, "forward", **work).flops - attention == counted(lm, False)
    told = cost.flops(lm, "finetune", **work).flops - attention - attention * 5 // 2
    for p in lm.model.parameters():
        p.requires_grad_()
    assert told == counted(lm, True)
    for name, p in lm.model.named_parameters():
        p.requires_grad_("ff2" in name or any(p is lm.site(i, "ff2").weight for i in range(s.layers)))
    told = cost.flops(lm, "finetune", sites=("ff2",), layers=range(s.layers), **work).flops
    below = 0  # no gradient goes below the lowest matrix that learns
    assert told - counted(lm, True) - attention - below == 5 * attention * (s.layers - 1) // s.layers // 2


def test_a_step_of_a_mask_is_its_passes_by_hand():
    """Of the upper half: up, back to the inputs and back to the weights; the head up, back, and for the reference."""
    small = {"model_type": "gpt2", "n_embd": 64, "n_layer": 6, "n_head": 4, "vocab_size": 1536}
    s, c = cost.shape(small), Config()
    passes = [(c.targets + c.controls, 16, c.targets + c.controls), (c.texts, c.tokens, c.texts * (c.tokens - 1))]
    head, upper = 2 * s.width * s.vocabulary, s.layers - s.layers // 2
    matrices = 2 * sum(m.weights for m in s.modules())
    told = head * (c.controls + c.texts * (c.tokens - 1))
    for rows, tokens, scored in passes:
        attention = 4 * rows * tokens**2 * s.query * upper
        told += 3 * matrices * rows * tokens + attention * 7 // 2 + 2 * head * scored
    entry = 2 * s.modules()[0].weights  # no gradient goes into what q, k and v of the lowest masked layer read
    assert cost.flops(s).flops == told - entry * sum(rows * tokens for rows, tokens, _ in passes)


@pytest.mark.parametrize("step", STEPS)
def test_layers_are_alike_so_two_traces_tell_of_all_of_them(step):
    """Of a model of ten layers and of one of eleven what is told follows from few of them: here all of them are run."""
    memory = sys.modules["lens.scale.cost.memory"]
    for kind in ("gpt2", "llama"):
        config = {"model_type": kind, "hidden_size": 64, "num_hidden_layers": 11, "num_attention_heads": 4}
        s, w, found = memory._counted(config | {"intermediate_size": 160, "vocab_size": 500}, step, {})
        runs = memory._runs(s, step, w)
        told, real = by_phase(found), by_phase(memory._traced(s, step, w, runs, [len(run) for _, run in runs]))
        if step == "published":  # a loss of two maxima, which meet
            assert told.pop("maintain_lm: loss") == pytest.approx(real.pop("maintain_lm: loss"), rel=0.01)
        assert told == real


def by_phase(found: dict) -> dict:
    """Bytes of each phase, all parts together, and the other numbers."""
    total = {}
    for key, number in found.items():
        name = key[0] if isinstance(key, tuple) else key
        total[name] = total.get(name, 0) + number
    return total


def test_hours_are_operations_and_bytes_over_what_the_machine_does():
    gpu = cost.MACHINES["A100"]
    work = Operations(int(19.5e12 * 3600), int(2039e9 * 3600))
    assert work.hours(gpu, utilization=1) == pytest.approx(2) and work.hours(gpu, utilization=0.5) == pytest.approx(4)
    assert (3 * work).hours(gpu) == pytest.approx(3 * work.hours(gpu))


@pytest.mark.slow
def test_each_row_of_the_papers_states_its_assumptions():
    items = papers.every_table(100)
    tables = {"Backward Lens, Table 1", "Subnetworks, Table 2", "Subnetworks, Table 6", "Subnetworks, Table 16"}
    assert tables <= {item.table for item in items} and all(item.assumed for item in items)
    assert all(item.hours(cost.MACHINES["A100"]) > 0 for item in items)


def test_a_step_that_is_not_counted_is_refused(refuses):
    with refuses(ValueError, "no step 'dream'"):
        cost.flops("gpt2", "dream")


def test_this_processor_can_be_calibrated():
    cpu = cost.this_cpu(side=256, repeats=3)
    assert 1e8 < cpu.peak() < 1e14 and 1e8 < cpu.bandwidth < 1e13
