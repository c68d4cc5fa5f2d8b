"""Projection and ranks: the words of a vector, against a naive float64 reference that holds every logit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lens
from lens import kernels
from lens.kernels import vocabulary

V, D = 300, 24


def naive_logits(lm, vectors, normalize: bool = False) -> np.ndarray:
    """LayerNorm and unembedding written out in float64, row by row: [N, V]."""
    ln, e = lm.model.transformer.ln_f, lm.unembedding.detach().double().numpy()
    gain, bias = (p.detach().double().numpy() for p in (ln.weight, ln.bias))
    rows = []
    for v in vectors.detach().double().reshape(-1, D).numpy():
        v = v / np.linalg.norm(v) if normalize else v
        centred = v - v.mean()
        rows.append(e @ (centred / np.sqrt((centred**2).mean() + ln.eps) * gain + bias))
    return np.array(rows)


@pytest.fixture(scope="module")
def lm(tiny):
    return tiny("gpt2")


@pytest.fixture(scope="module")
def vectors():
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor([1e-3, 1.0, 50.0, 1.0, 1e3, 0.2], dtype=torch.float64)  # very different lengths
    return torch.randn(6, D, generator=generator, dtype=torch.float64) * scale[:, None]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("largest", [True, False])
def test_project_finds_the_words_of_the_naive_reference(lm, vectors, error, largest, normalize):
    logits = naive_logits(lm, vectors, normalize)
    order = np.argsort(-logits if largest else logits, axis=1)[:, :7]
    got = lens.project(lm, vectors, k=7, largest=largest, normalize=normalize)
    assert got.ids.tolist() == order.tolist()
    assert error(got.logits, np.take_along_axis(logits, order, 1)) <= 1e-12
    assert got.words == [[lm.word(i) for i in row] for row in order] and repr(got).startswith("Projection([[")


@pytest.mark.parametrize("normalize", [False, True])
def test_token_rank_counts_the_strictly_larger_logits(lm, vectors, normalize):
    logits = naive_logits(lm, vectors, normalize)
    for token in (0, 7, 299):
        want = (logits > logits[:, token : token + 1]).sum(1)
        got = lens.token_rank(lm, vectors, token, normalize=normalize)
        assert got.dtype == torch.int64 and got.tolist() == want.tolist()


def test_ranks_of_all_tokens_are_the_places_0_to_v_minus_1(lm, vectors):
    ranks = lens.token_rank(lm, vectors[1].expand(V, D), torch.arange(V))
    assert sorted(ranks.tolist()) == list(range(V))
    best = lens.project(lm, vectors[1], k=V)
    assert ranks[best.ids].tolist() == list(range(V))


def test_tied_tokens_share_the_better_rank(lm, vectors, tiny):
    twin = tiny("gpt2")
    with torch.no_grad():
        twin.unembedding[[10, 20, 290]] = twin.unembedding[30].clone()
    ranks = torch.stack([lens.token_rank(twin, vectors, t) for t in (10, 20, 30, 290)])
    assert bool((ranks == ranks[0]).all())
    assert ranks[0].tolist() == [int((row > row[30]).sum()) for row in naive_logits(twin, vectors)]


def test_the_bottom_of_a_vector_is_the_top_of_its_opposite_without_bias(tiny, vectors):
    lm = tiny("llama")  # RMSNorm: no bias, so LL(−v) is exactly the reverse of LL(v)
    bottom, top = lens.project(lm, vectors, k=9, largest=False), lens.project(lm, -vectors, k=9)
    assert torch.equal(bottom.ids, top.ids) and torch.equal(bottom.logits, -top.logits)


def test_the_final_norm_is_recomputed_for_every_row(lm, vectors):
    together = lens.project(lm, vectors, k=5)
    for row, vector in enumerate(vectors):
        alone = lens.project(lm, vector, k=5)
        assert alone.ids.tolist() == together.ids[row].tolist()
    scaled = lens.project(lm, 1e6 * vectors[1], k=5)  # only direction counts, far above ε
    assert scaled.ids.tolist() == together.ids[1].tolist()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_normalize_rescues_a_vector_that_epsilon_flattens(tiny, kind):
    """‖v‖²/d far below ε: ln_f returns next to nothing and every token ties, or all that is left is its bias."""
    lm = tiny(kind, torch.float32)
    v = torch.randn(3, D, generator=torch.Generator().manual_seed(2))
    tiny_v = 1e-12 * v
    want = lens.token_rank(lm, v, 7, normalize=True)
    assert torch.equal(lens.token_rank(lm, tiny_v, 7, normalize=True), want)
    assert torch.equal(lens.project(lm, tiny_v, 5, normalize=True).ids, lens.project(lm, v, 5, normalize=True).ids)
    flat = lens.project(lm, tiny_v, k=V)
    if kind == "gpt2":  # three vectors, one answer: the bias's
        assert flat.ids[0].tolist() == flat.ids[1].tolist() == flat.ids[2].tolist()
    else:  # nothing but noise far below one
        assert flat.logits.abs().max() < 1e-6
    big = lens.project(lm, v, k=V)
    assert big.ids[0].tolist() != big.ids[1].tolist() and big.logits.abs().max() > 0.1


def test_normalize_reads_v_over_its_length(lm, vectors, error):
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    assert error(lens.project(lm, vectors, normalize=True).logits, lens.project(lm, unit).logits) <= 1e-12


def test_a_zero_vector_reads_as_finite_numbers_with_and_without_normalize(lm):
    for normalize in (False, True):
        assert torch.isfinite(lens.project(lm, torch.zeros(2, D), normalize=normalize).logits).all()


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_chunks_do_not_change_the_answer(lm, vectors, monkeypatch, rows):
    many = vectors.repeat(3, 1).view(2, 9, D)
    want = lens.project(lm, many, k=5), lens.token_rank(lm, many, torch.arange(18).view(2, 9))
    monkeypatch.setitem(kernels.CHUNK_BYTES, "cpu", rows * V * 8)
    monkeypatch.setitem(kernels.CHUNK_BYTES, "cuda", rows * V * 8)
    monkeypatch.setattr("lens.kernels.logits.ROWS", 1)
    got = lens.project(lm, many, k=5), lens.token_rank(lm, many, torch.arange(18).view(2, 9))
    assert torch.equal(got[0].ids, want[0].ids) and torch.equal(got[1], want[1])


def test_never_more_than_a_chunk_of_logits_is_held(lm, vectors, monkeypatch, record):
    monkeypatch.setitem(kernels.CHUNK_BYTES, "cpu", 2 * V * 8)
    with record() as sizes:
        lens.project(lm, vectors.repeat(10, 1), k=5)
    assert max(sizes) <= max(2 * V, 60 * D)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 255, 256, 257, 319, 320, 64 * 13, 64 * 40 - 1, 64 * 40 + 1])
@pytest.mark.parametrize("largest", [True, False])
def test_two_stage_top_k_is_torch_topk(size, largest):
    generator = torch.Generator().manual_seed(size)
    for logits in (
        torch.randn(4, size, generator=generator),
        torch.randint(0, 3, (4, size), generator=generator).float(),  # nothing but ties
        torch.arange(size).float().expand(4, size).contiguous(),  # the best all in the tail or the last tile
        torch.full((4, size), -torch.inf),
    ):
        for k in {1, min(3, size), min(10, size), size}:
            values, ids = vocabulary.topk(logits, k, largest)
            assert torch.equal(values, logits.topk(k, largest=largest).values)
            assert torch.equal(logits.gather(1, ids), values)
            assert all(len(set(row)) == k for row in ids.tolist()), "one token named twice"


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 3), (2, 1, 2)])
def test_every_shape_of_vectors_keeps_its_shape(lm, shape):
    vectors = torch.randn(*shape, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    got = lens.project(lm, vectors, k=3)
    assert got.ids.shape == got.logits.shape == (*shape, 3)
    assert lens.token_rank(lm, vectors, 7).shape == shape
    flat = lens.project(lm, vectors.reshape(-1, D), k=3)
    assert torch.equal(flat.ids, got.ids.reshape(-1, 3))


def test_a_token_may_be_text_an_id_or_a_tensor_one_per_vector(lm, vectors):
    the = lm.target_ids(" the")[0]
    by_id = lens.token_rank(lm, vectors, the)
    assert lm.word(the) == "·the"
    for token in ("the", " the", [the], torch.tensor(the), torch.full((6,), the)):
        assert torch.equal(lens.token_rank(lm, vectors, token), by_id)
    each = torch.tensor([0, 1, 2, 3, 4, 299])
    want = [int(lens.token_rank(lm, v, int(t))) for v, t in zip(vectors, each)]
    assert lens.token_rank(lm, vectors, each).tolist() == want


def test_vectors_that_require_grad_or_are_not_contiguous_or_of_another_dtype_are_read(lm, vectors):
    want = lens.project(lm, vectors, k=3).ids
    for v in (vectors.clone().requires_grad_(), vectors.T.contiguous().T, vectors.float()):
        assert torch.equal(lens.project(lm, v, k=3).ids, want)


def test_what_was_read_can_be_used_in_autograd(lm, vectors):
    """A reader may go on computing with the numbers: they are ordinary tensors."""
    logits = lens.project(lm, vectors, k=3).logits
    w = torch.ones_like(logits, requires_grad=True)
    (w * logits).sum().backward()
    assert torch.equal(w.grad, logits)
    h = lens.logit_lens(lm, [5, 6, 7]).vectors
    w = torch.ones_like(h, requires_grad=True)
    (w * h).sum().backward()
    assert torch.equal(w.grad, h)


@pytest.mark.parametrize("bad", [torch.zeros(3, 23), torch.zeros(D + 1), torch.tensor(1.0), [0.0] * D, None])
def test_vectors_of_another_width_are_refused_with_both_shapes(lm, refuses, bad):
    with refuses(ValueError, r"expected \[\.\.\., 24\], got"):
        lens.project(lm, bad)
    with refuses(ValueError, r"expected \[\.\.\., 24\], got"):
        lens.token_rank(lm, bad, 3)


@pytest.mark.parametrize("k", [0, -1, 301])
def test_k_outside_the_vocabulary_is_refused(lm, vectors, refuses, k):
    with refuses(ValueError, f"k is {k}.*at most 300"):
        lens.project(lm, vectors, k=k)
    with refuses(ValueError, f"k is {k}.*at most 300"):
        lens.logit_lens(lm, [1, 2], k=k)
    with refuses(ValueError, f"k is {k}.*at most 300"):
        lens.backward_lens(lm, lens.capture(lm, [1, 2], [3]), k=k)


@pytest.mark.parametrize("token", [300, -1, "", torch.tensor(300), torch.tensor([-1] * 6), torch.tensor([1, 2])])
def test_a_token_outside_the_vocabulary_or_of_the_wrong_number_is_refused(lm, vectors, refuses, token):
    with refuses(ValueError, "vocabulary|no tokens|one per vector|shape"):
        lens.token_rank(lm, vectors, token)


@pytest.mark.parametrize("token", [torch.tensor(7.9), torch.tensor(True), np.full(6, 7.0)])
def test_a_token_that_is_no_whole_number_is_refused(lm, vectors, refuses, token):
    with refuses(ValueError, "Token ids are whole numbers.*give int64"):
        lens.token_rank(lm, vectors, token)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_says_float32_logits_everywhere(tiny, kind, dtype, vectors, error):
    lm = tiny(kind, dtype)
    normed = lm.norm(vectors.to(dtype)).detach()
    want = normed.double() @ lm.unembedding.detach().double().T
    want = want if lm.softcap is None else lm.softcap * torch.tanh(want / lm.softcap)
    for logits in (lm.head(normed), lens.project(lm, vectors.to(dtype), k=V).logits):
        assert logits.dtype == torch.float32
    assert error(lm.head(normed), want) < 1e-6
    best = lens.project(lm, vectors.to(dtype), k=V)
    assert error(best.logits, want.gather(1, best.ids)) < 1e-6
    assert lens.token_rank(lm, vectors.to(dtype), 7).tolist() == (want > want[:, 7:8]).sum(1).tolist()


def test_several_tokens_in_a_list_are_refused_and_in_a_tensor_one_for_each_vector(lm, vectors, refuses):
    with refuses(ValueError, "Got 2 tokens in a list: give text, one id, or a tensor"):
        lens.token_rank(lm, vectors[:2], [7, 9])
    assert lens.token_rank(lm, vectors[:2], [7]).tolist() == lens.token_rank(lm, vectors[:2], 7).tolist()


def test_a_vector_that_half_precision_loses_is_refused_and_any_length_is_normalized(tiny, refuses):
    half, single = tiny("gpt2", torch.float16), tiny("gpt2", torch.float32)
    v = torch.randn(2, D, generator=torch.Generator().manual_seed(0))
    with refuses(ValueError, "1 of 2 vectors are too small for torch.float16: read them with normalize=True"):
        lens.project(half, v * torch.tensor([[1e-9], [1.0]]))
    want = lens.token_rank(single, v, 7, normalize=True)
    for scale in (1e-30, 1e-9, 1e25, 1e37):  # of whose squares some are no numbers
        assert torch.equal(lens.token_rank(single, v * scale, 7, normalize=True), want)
