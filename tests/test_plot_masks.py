"""Figures of subnetworks: every number stands where it belongs, whatever the masks are like; a live figure is one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from lens import plot
from lens.evaluate import Sweep
from lens.kernels import pack
from lens.mask import Config, Subnetwork

# A warning (a missing glyph, a bad label, a layout that does not fit) is an error.
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("rendered")]


def subnetwork(density: float = 0.2) -> Subnetwork:
    """Two layers, four heads of four for q and out, two for k and v."""
    shapes = {
        "attn_q": (8, 16),
        "attn_k": (8, 8),
        "attn_v": (8, 8),
        "attn_out": (16, 8),
        "ff1": (8, 12),
        "ff2": (12, 8),
    }
    generator = torch.Generator().manual_seed(0)
    bits = {(n, s): pack(torch.rand(shapes[s], generator=generator) < density) for n in (4, 6) for s in shapes}
    return Subnetwork(bits, {key: shapes[key[1]] for key in bits}, Config(), (), "m", "f", 4)


def cells(ax) -> dict:
    """What each cell says, by the labels of its row and column."""
    columns = [t.get_text() for t in ax.get_xticklabels()]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    return {(rows[int(t.get_position()[1])], columns[int(t.get_position()[0])]): t.get_text() for t in ax.texts}


def shown(share: float) -> str:
    return f"{100 * share:.2g}" if 100 * share < 10 else f"{100 * share:.0f}"


def test_a_density_heat_map_has_each_module_in_percent_the_last_layer_on_top():
    found = subnetwork()
    ax = plot.density_heatmap(found, title="any")
    names = {"attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_out": "out", "ff1": "FF1", "ff2": "FF2"}
    assert cells(ax) == {(str(n), names[s]): shown(share) for (n, s), share in found.density("module").items()}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["6", "4"] and ax.get_ylim() == (2, 0)
    assert [t.get_text() for t in ax.get_xticklabels()] == list(names.values())


def test_a_head_heat_map_has_each_head_also_where_keys_and_values_have_fewer():
    found = subnetwork()
    ax = plot.head_heatmap(found)
    wanted = {(str(n), f"{s[5:]} {h}"): shown(share) for (n, s, h), share in found.density("head").items()}
    assert cells(ax) == wanted and len(wanted) == 2 * (4 + 2 + 2 + 4)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_an_empty_and_a_full_mask_are_drawn(density):
    for draw in (plot.density_heatmap, plot.head_heatmap):
        assert {t.get_text() for t in draw(subnetwork(density)).texts} == {shown(density)}


def test_shares_are_drawn_on_given_axes_and_missing_modules_stay_empty():
    _, ax = plt.subplots()
    assert plot.density_heatmap({(3, "ff1_gate"): 0.5, (4, "ff2"): 0.001}, ax=ax) is ax
    assert cells(ax) == {("3", "gate"): "50", ("4", "FF2"): "0.1"}
    for draw in (plot.density_heatmap, plot.head_heatmap):
        with pytest.raises(ValueError, match="no densities to draw"):
            draw({})


def history(checks: int) -> list[dict]:
    rows = []
    for i in range(1, checks + 1):
        hard = {"suppress": 1 / i, "maintain_kg": 0.1 / i, "maintain_lm": 0.2 / i, "density": 0.1 / i}
        rows.append(
            {"step": 10 * i, "hard": hard, "sampled": {k: 2 * v for k, v in hard.items() if k != "maintain_lm"}}
        )
    return rows


@pytest.mark.parametrize("checks", [0, 1, 5])
def test_a_history_shows_losses_and_density_under_both_masks(checks):
    rows = history(checks)
    axes = plot.mask_history(rows, title="$5 a mask")
    lines = {line.get_label(): line for line in axes[0].lines}
    for name, label in (("suppress", "suppress (TargetKG)"), ("maintain_lm", "maintain (ControlLM)")):
        assert list(lines[label].get_ydata()) == [row["hard"][name] for row in rows]
    hard, sampled = axes[1].lines
    assert list(hard.get_xdata()) == [row["step"] for row in rows]
    assert np.allclose(sampled.get_ydata(), [200 * row["hard"]["density"] for row in rows])


def test_a_live_history_is_one_figure_redrawn_in_a_notebook_and_nothing_in_a_terminal(monkeypatch):
    live = plot.LiveHistory("mask")
    live(history(1))
    assert not plt.get_fignums()
    displayed, updated = [], []

    def display(figure, display_id):
        displayed.append(figure)
        return SimpleNamespace(update=updated.append)

    notebook = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    for checks in (1, 2, 3):
        live(history(checks))
    assert len(displayed) == 1 and len(updated) == 2 and not plt.get_fignums()
    assert len(updated[-1].axes[0].lines[0].get_xdata()) == 3


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_sweep_shows_medians_of_both_masks_over_the_weights_removed(seeds):
    shares, names = (-1.0, 0.0, 1.0), ("target", "unseen", "control_held_out", "text_held_out")
    generator = torch.Generator().manual_seed(1)
    ppl = {
        (kind, name): 1 + 1000 * torch.rand(3, seeds, generator=generator, dtype=torch.float64)
        for kind in ("subnetwork", "random")
        for name in names
    }
    removed = torch.tensor([0.0, 0.03, 0.06], dtype=torch.float64)
    axes = plot.sensitivity(Sweep("building", "mini", shares, removed, ppl, dict.fromkeys(names, 1.0)))
    assert axes[0].get_title("left") == "building" and axes[0].get_yscale() == "log"
    for ax, some in ((axes[0], names[:2]), (axes[1], names[2:])):
        curves = [line for line in ax.lines if len(line.get_xdata()) == 3]
        for line, (name, kind) in zip(curves, [(n, k) for n in some for k in ("subnetwork", "random")], strict=True):
            assert np.allclose(line.get_xdata(), 100 * removed)
            assert np.allclose(line.get_ydata(), np.median(ppl[kind, name], axis=1))
        legend = [text.get_text() for text in ax.get_legend().get_texts()]
        assert len(legend) == 3 and legend[-1] == "random masks"
