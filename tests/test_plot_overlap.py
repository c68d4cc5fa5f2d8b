"""Figures of overlaps: each number where it belongs, chance beside it, and no library's warning comes through."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import sys

import matplotlib.pyplot as plt
import pytest
import torch

import lens
from lens import plot
from lens.kernels import pack
from lens.mask import Config, Subnetwork
from lens.overlap import compare

# A warning (a missing glyph, a layout that does not fit, a library's own) is an error.
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("rendered")]


def overlap(names="abc", density=0.3):
    """Subnetworks of one site, each a little larger than the last."""
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(40, 50, generator=generator) < density * (1 + i / 9) for i, name in enumerate(names)}
    key, shape = (4, "ff1"), (40, 50)
    return compare(
        {name: Subnetwork({key: pack(m)}, {key: shape}, Config(), (), "m", "f", 4) for name, m in masks.items()}
    )


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_a_venn_diagram_has_each_region_with_chance_in_brackets(names):
    pytest.importorskip("matplotlib_venn")
    found = overlap(names)
    _, ax = plt.subplots()
    assert plot.venn(found, title="any", ax=ax) is ax and ax.get_title("left") == "any"
    texts = [t.get_text() for t in ax.texts]
    for s in range(1, 1 << len(names)):
        m = found.exactly(*(name for i, name in enumerate(names) if s >> i & 1))
        assert f"{m.observed:,}\n({m.expected:,.0f})" in texts
    for name, size in found.sizes().items():
        assert f"{name}\n{size:,}" in texts


def test_disjoint_equal_and_nested_masks_are_drawn():
    pytest.importorskip("matplotlib_venn")
    key, m = (4, "ff1"), torch.arange(30).view(5, 6)
    sets = {"low": m < 10, "high": m >= 20, "lower": m < 5, "low too": m < 10, "none": m < 0}
    made = {
        name: Subnetwork({key: pack(bits)}, {key: (5, 6)}, Config(), (), "m", "f", 4) for name, bits in sets.items()
    }
    for names in (("low", "high"), ("low", "lower"), ("low", "low too"), ("low", "none"), ("low", "high", "lower")):
        plot.venn(compare({name: made[name] for name in names}))
    for names in (("low", "high"), ("low", "low too"), ("low", "high", "lower")):
        plot.upset(compare({name: made[name] for name in names}))


@pytest.mark.parametrize(
    "names, most, least, log", [("abc", 20, 1, False), ("abcdefg", 12, 2, True), ("ab", 1, 1, False)]
)
def test_bars_are_the_largest_regions_over_a_matrix_of_their_names(names, most, least, log):
    pytest.importorskip("marsilea")
    found = overlap(names)
    bars, matrix = plot.upset(found, most=most, least=least, log=log, title="any")
    counts = found.counts.sum(0)
    largest = sorted((s for s in range(1, len(counts)) if s.bit_count() >= least), key=lambda s: -counts[s])[:most]
    drawn = sorted(bars.patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in drawn] == [counts[s] for s in largest]
    chance = [line.get_ydata()[0] for line in bars.lines]
    assert (
        bars.get_title("left") == "any"
        and bars.get_ylabel() == "weights"
        and bars.get_yscale() == ["linear", "log"][log]
    )
    full = [c for c in matrix.collections if len(c.get_facecolors()) and c.get_facecolors()[0, 3] == 1]  # not faint
    dots = {tuple(xy) for c in full for xy in c.get_offsets().astype(int).tolist()}
    assert matrix.yaxis_inverted()  # the first name on top
    shown = [sum(1 << i for i in range(len(names)) if (x, i) in dots) for x in range(len(largest))]
    assert len(set(shown)) == len(largest) and counts[shown].tolist() == counts[largest].tolist()
    want = [found.exactly(*(n for i, n in enumerate(names) if s >> i & 1)).expected for s in shown]
    assert chance == pytest.approx(want)


def test_regions_of_one_size_have_each_its_own_chance():
    """The library has an order of its own among equal bars."""
    pytest.importorskip("marsilea")
    of = {"change": range(3), "magnitude": range(2)}
    masks = {f"{name} {s}": lens.mask.shipped(name, s, "neuron") for name, seeds in of.items() for s in seeds}
    found = lens.overlap.compare(masks)
    bars, matrix = plot.upset(found)
    full = [c for c in matrix.collections if len(c.get_facecolors()) and c.get_facecolors()[0, 3] == 1]
    dots = {tuple(xy) for c in full for xy in c.get_offsets().astype(int).tolist()}
    heights = [bar.get_height() for bar in sorted(bars.patches, key=lambda bar: bar.get_x())]
    columns = [[n for i, n in enumerate(found.names) if (x, i) in dots] for x in range(len(heights))]
    assert len(set(heights)) < len(heights)
    assert heights == [found.exactly(*some).observed for some in columns]
    assert [line.get_ydata()[0] for line in bars.lines] == [found.exactly(*some).expected for some in columns]


def test_a_matrix_has_iou_below_and_chance_above_the_diagonal():
    found = overlap("abcd")
    ax = plot.iou_heatmap(found, title="any")
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in ax.texts}

    def shown(share):
        return f"{100 * share:.2g}" if 100 * share < 10 else f"{100 * share:.0f}"

    for (a, b), m in found.pairs().items():
        i, j = "abcd".index(a), "abcd".index(b)
        assert cells[j, i] == shown(m.observed) and cells[i, j] == shown(m.expected)
    assert [t.get_text() for t in ax.get_xticklabels()] == list("abcd")


def test_what_cannot_be_drawn_is_refused_in_one_sentence(refuses, monkeypatch):
    pytest.importorskip("matplotlib_venn")
    pytest.importorskip("marsilea")
    with refuses(ValueError, "two or three sets, .* there are 4"):
        plot.venn(overlap("abcd"))
    with refuses(ValueError, "not all empty"):
        plot.venn(overlap("ab", density=0))
    with refuses(ValueError, "at least 1 of these"):
        plot.upset(overlap("ab", density=0))
    for name, package, draw in (
        ("matplotlib_venn", "matplotlib-venn", plot.venn),
        ("marsilea.upset", "marsilea", plot.upset),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with refuses(ImportError, f"package {package}: install it with .pip install lens-book.overlap"):
            draw(overlap("ab"))
