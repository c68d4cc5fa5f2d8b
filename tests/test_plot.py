"""Figures: every function draws any token without a warning, and every word can be read on its color."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import lens
from lens import SEGMENTS, Lens, plot
from lens.gradient import FactoredGradient
from lens.plot import style

TOKENS = (
    "internationalisation" * 3,
    "猫が好き",
    "$x_1$ and $y",
    "$\\no{$",
    "line\nbreak\tand\rtab",
    "עברית العربية",
    "🙂👩‍👩‍👧",
    "\x00\u200b\ufeff",
    "\\frac{1}{0} %s {}",
    "·Paris",
    "",
    "_hidden",
    "é̶̢́ combining",
)


# A warning (a missing glyph, a bad label, a layout that does not fit) is an error.
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("rendered")]


def grid_of(layers: int, tokens: tuple[str, ...], *, zero: bool = False, spread: float = 1.0, what="ff2") -> Lens:
    generator = torch.Generator().manual_seed(0)
    n = len(tokens)
    norms = torch.rand(layers, n, generator=generator) * spread + 0.1
    if zero:
        norms[-1, : n - 1] = 0
    words = [[[tokens[(row + column) % n]] for column in range(n)] for row in range(layers)]
    stand_in = SimpleNamespace(words=lambda ids: words)
    ids = torch.zeros(layers, n, 1, dtype=torch.long)
    ranks = torch.randint(0, 300, (layers, n), generator=generator)
    chance = torch.rand(layers, n, 1, generator=generator)
    vectors = torch.zeros(layers, n, 4)
    return Lens(what, tuple(range(layers)), tokens, vectors, ids, chance, norms, ranks, chance, 7, stand_in)


@pytest.mark.parametrize("color", ["norm", "rank", "probability"])
@pytest.mark.parametrize("zero", [False, True])
def test_a_grid_draws_every_kind_of_token(color, zero):
    ax = plot.grid(grid_of(4, TOKENS, zero=zero), color=color, title="any title")
    assert isinstance(ax, matplotlib.axes.Axes)
    cells = [t.get_text() for t in ax.texts]
    assert len(cells) == 4 * len(TOKENS)
    assert cells.count("0") == (len(TOKENS) - 1 if zero else 0)  # a zero vector says so instead of a word
    assert len(ax.get_xticklabels()) == len(TOKENS) and len(ax.get_yticklabels()) == 4


def test_the_last_layer_is_on_top():
    ax = plot.grid(grid_of(5, ("a", "b")))
    low, high = ax.get_ylim()
    assert low < high and [t.get_text() for t in ax.get_yticklabels()] == list("01234")


@pytest.mark.parametrize("layers, tokens, spread", [(1, ("one",), 1.0), (48, tuple("abcdefghij") * 2, 1e6)])
def test_a_grid_of_one_cell_and_one_of_gpt2_xls_depth_are_drawn(layers, tokens, spread):
    plot.grid(grid_of(layers, tokens, spread=spread))


def test_a_grid_of_nothing_but_zero_vectors_is_drawn():
    flat = grid_of(2, ("a", "b"))
    flat.norms.zero_()
    assert {t.get_text() for t in plot.grid(flat).texts} == {"0"}


def test_a_grid_draws_on_the_axes_it_is_given():
    _, (left, right) = plt.subplots(1, 2)
    assert plot.grid(grid_of(2, ("a", "b")), ax=right) is right
    assert not left.texts


def test_a_lens_without_what_is_asked_is_refused(refuses):
    bare = grid_of(2, ("a", "b"))
    object.__setattr__(bare, "ranks", None)
    object.__setattr__(bare, "probabilities", None)
    for color, words in (("rank", "target"), ("probability", "logit lens"), ("rainbow", "'rainbow'")):
        with refuses(ValueError, words):
            plot.grid(bare, color=color)


def test_lines_over_layers_are_drawn_with_any_name():
    samples = np.random.default_rng(0).random((5, 8))
    ax = plot.by_layer(dict(zip(TOKENS, [*([samples] * 3), *samples])), "rank", reference={"$chance 猫": 0.5})
    assert isinstance(ax, matplotlib.axes.Axes)


def test_a_line_over_layers_is_the_median_of_its_samples():
    samples = np.array([[0.0, 1, 2], [3, 4, 5], [9, 9, 9]])
    ax = plot.by_layer({"one": samples, "two": samples[0]}, "rank", log=True, title="two lines")
    assert ax.lines[0].get_ydata().tolist() == [3, 4, 5] and ax.lines[1].get_ydata().tolist() == [0, 1, 2]


@pytest.mark.parametrize("layers", [1, 8, 48])
@pytest.mark.parametrize("log", [False, True])
def test_a_heat_map_by_segment_labels_every_row_and_layer(layers, log):
    values = np.random.default_rng(0).random((6, layers))
    values[0] = 0
    ax = plot.by_segment(values, SEGMENTS, "norm", log=log, title="any")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(SEGMENTS)
    layer_names = [t.get_text() for t in ax.get_xticklabels()]
    assert layer_names[0] == "0" and layer_names[-1] == str(layers - 1)


@pytest.mark.parametrize("log", [False, True])
def test_a_segment_that_no_prompt_has_is_an_empty_row(log):
    values = np.random.default_rng(0).random((6, 8))
    values[2] = np.nan  # the mean of no tokens
    ax = plot.by_segment(values, SEGMENTS, "norm", log=log)
    assert len(ax.patches) == 5  # no strongest layer is outlined in the empty row


def test_a_heat_map_by_segment_draws_any_label_and_fits_small_axes():
    plot.by_segment(np.random.default_rng(0).random((len(TOKENS), 4)), TOKENS, "norm")
    _, ax = plt.subplots(figsize=(2, 1.5), layout="constrained")
    assert plot.by_segment(np.random.default_rng(0).random((6, 48)), list("abcdef"), "norm", ax=ax) is ax


def test_a_spectrum_is_drawn_as_shares_of_the_largest_singular_value():
    series = dict(zip(TOKENS, [torch.tensor([4.0, 1.0, 2.0]), np.zeros(3), [1.0], torch.tensor([1.0, 0.0])]))
    ax = plot.spectrum(series, reference={"rounding 猫": 1e-7})
    assert np.allclose(ax.lines[0].get_ydata(), [1.0, 0.5, 0.25])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_one_layers_mechanism_is_drawn_for_any_family_and_any_words(tiny, kind):
    lm = tiny(kind, torch.float32)
    trace = lens.capture(lm, "猫 $x", "is")
    for layer in (0, -1):
        assert plot.mlp_pass(lm, trace, layer).texts
        for pair in (TOKENS[:2], TOKENS[2:4], TOKENS[4:6]):
            outcome = {token: (0.1, 1e-5) for token in pair}
            assert plot.imprint_and_shift(lm, trace, layer, 0.1, outcome, token=0).texts


def test_every_public_figure_is_drawn_here():
    drawn = "by_layer by_segment grid imprint_and_shift mlp_pass outer_product roofline similarity spectrum"
    masks = "LiveHistory density_heatmap head_heatmap mask_history sensitivity"  # in test_plot_masks.py
    others = "energy_ratios iou_heatmap learning_curves upset venn"  # in files of their own
    assert set(plot.__all__) == {*drawn.split(), *masks.split(), *others.split()}, "a new figure needs its test"


def results(dtype: str = "float32") -> pd.DataFrame:
    """A made-up machine of 10 GB/s and 100 GFLOP/s: two operations bound by bytes, one by arithmetic."""
    names = ("mask", TOKENS[2], TOKENS[1])
    rows = []
    for name, moved, flop in zip(names, (100.0, 50.0, 10.0), (0.0, 0.1, 20.0)):
        floor = max(moved / 10, 10 * flop)
        for way, slower in (("lens", 2.0), ("naive", 5.0), (TOKENS[3], 0.5)):
            rows.append((name, "any", dtype, way, "torch", slower * floor, floor, slower, moved, flop, None))
    columns = "operation work dtype way path milliseconds floor_milliseconds floor_ratio moved_MB gigaflop extra_MB"
    return pd.DataFrame(rows, columns=columns.split())


def test_a_roofline_has_the_machines_two_limits_and_a_point_for_every_way():
    left, right = plot.roofline(results(), title="any $machine")
    intensity, roof = left.lines[0].get_data()
    assert np.allclose(roof, np.minimum(10, 100 / np.maximum(intensity, 1e-9)))
    assert [float(line.get_ydata()[0]) for line in left.lines[1:]] == [5, 5, 0.025]  # half of each limit
    assert sum(len(line.get_xdata()) for line in right.lines if line.get_marker() != "None") == 9
    assert [t.get_text()[-1] for t in right.get_yticklabels()] == list("abc")


def test_a_roofline_without_arithmetic_is_flat_and_fits_given_axes():
    _, axes = plt.subplots(1, 2, layout="constrained")
    bytes_only = results()[:6].assign(gigaflop=0.0)
    left, right = plot.roofline(bytes_only, axes=axes)
    assert left is axes[0] and right is axes[1]
    assert np.allclose(left.lines[0].get_ydata(), 10)


def test_a_roofline_of_two_dtypes_is_refused(refuses):
    with refuses(ValueError, "float32, bfloat16"):
        plot.roofline(pd.concat([results(), results("bfloat16")]))


def test_similarity_and_outer_product_return_their_axes():
    assert plot.similarity(np.eye(8), title="cosine").get_xlabel() == "layer"
    scales = {0.0: 0, 0.76: 0.7, 0.99: 0.9, -0.2: -1}
    for least, low in scales.items():
        image = plot.similarity([[1, least], [least, 1]]).images[0]
        assert image.get_clim() == (pytest.approx(low), 1)
    generator = torch.Generator().manual_seed(0)
    n = len(TOKENS)
    for dtype in (torch.float32, torch.bfloat16):
        g = FactoredGradient(
            torch.randn(n, 60, generator=generator).to(dtype), torch.randn(n, 70, generator=generator).to(dtype)
        )
        axes = plot.outer_product(g, TOKENS)
        assert len(axes) == 3 and f"rank {n}" in axes[2].get_title(loc="left")
        assert np.allclose(axes[2].images[0].get_array(), (g.x[:, :48].float().T @ g.delta[:, :48].float()))
    plot.outer_product(FactoredGradient(torch.zeros(1, 3), torch.zeros(1, 2)))


def luminance(rgb) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(rgb)]
    return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))


def ratio(a, b) -> float:
    """WCAG contrast of two colors, 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_cells_word_has_a_contrast_of_at_least_three_on_the_whole_color_map():
    colors = matplotlib.colormaps[style.HEAT](np.linspace(0, 1, 256))
    assert min(ratio(style.contrast(c), c[:3]) for c in colors) >= 3


def test_the_mark_of_a_zero_vector_can_be_read_on_white():
    assert ratio(style.FAINT, "white") >= 3


def test_the_color_map_grows_steadily_darker_so_that_grey_print_keeps_the_order():
    light = [luminance(c[:3]) for c in matplotlib.colormaps[style.HEAT](np.linspace(0, 1, 256))]
    assert all(a > b for a, b in zip(light, light[1:]))


@pytest.mark.parametrize("token", TOKENS)
def test_a_label_is_short_on_one_line_and_has_a_glyph_for_every_character(token):
    shown = style.label(token, 12)
    assert len(shown) <= 13 and all(style._has_glyph(c) for c in shown) and "\n" not in shown
    assert style.label("·Paris") == "·Paris"
