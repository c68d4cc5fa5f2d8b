"""Projection into the vocabulary, both paths: against float64, against itself in other chunks, ties, NaN, infinity."""

from __future__ import annotations

import math

import pytest
import torch

from lens.kernels import logits, naive, unembed, vocabulary
from lens.kernels.vocabulary import project

pytestmark = pytest.mark.operation("project")

# N, V, d: a Triton program reads 4096 logits, or makes 128 by 128 of them where d is a multiple of 64
SIZES = [(24, 5000, 8), (24, 4096, 8), (24, 700, 5), (24, 65, 3), (1, 1, 1), (130, 5000, 64), (24, 700, 192), (3, 65, 64)]


def read(*args, **kwargs):
    return project(*args, log_normalizer=True, entropy=True, **kwargs)


def whole(vectors, unembedding, tokens, k, largest=True, **maps):
    """The same answers from the naive formulas and all logits."""
    z = naive.logits(vectors, unembedding, **maps)
    return {
        "logits": z.topk(k, largest=largest).values,
        "ranks": naive.rank(z, tokens),
        "token_logits": z.gather(1, tokens[:, None])[:, 0],
        "log_normalizer": z.logsumexp(-1),
        "entropy": naive.entropy(z),
    }


def scaled(x):
    """Something like RMSNorm."""
    return x / x.pow(2).mean(-1, keepdim=True).sqrt()


def whole_numbers(random, *shape, **kwargs):
    """Small integers, whose products and sums every dtype holds exactly."""
    return random(*shape, **kwargs).round().clamp(-2, 2)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_every_answer_is_that_of_the_whole_logits(place, dtype, random, accurate, size, largest):
    n, v, d = size
    x, e, bias = (random(*s, dtype=dtype, device=place.device) for s in ((n, d), (v, d), (v,)))
    tokens = torch.arange(n, device=place.device) * (v - 1) // max(n - 1, 1)
    k = min(10, v)
    for maps in ({}, {"bias": bias, "softcap": 2.0, "norm": scaled}):
        with place():
            got = read(x, e, k=k, largest=largest, tokens=tokens, **maps)
        plain = whole(x, e, tokens, k, largest, **maps)
        exact = whole(x.double(), e.double(), tokens, k, largest, **(maps and maps | {"bias": bias.double()}))
        for name in ("logits", "token_logits", "log_normalizer", "entropy"):
            accurate(got[name], plain[name], exact[name])
        assert got["ids"].dtype == got["ranks"].dtype == torch.int64
        assert got["log_normalizer"].dtype == got["entropy"].dtype == torch.float32


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_words_and_ranks_are_exact_where_logits_are_whole_numbers_and_tie(place, dtype, random, size, largest):
    n, v, d = size
    x, e = (whole_numbers(random, *s, dtype=dtype, device=place.device) for s in ((n, d), (v, d)))
    tokens = torch.arange(n, device=place.device) * (v - 1) // max(n - 1, 1)
    k = min(10, v)
    with place():
        got = read(x, e, k=k, largest=largest, tokens=tokens)
    z = naive.logits(x.double(), e.double())
    assert torch.equal(got["ranks"], naive.rank(z, tokens))
    assert torch.equal(got["token_logits"].double(), z.gather(1, tokens[:, None])[:, 0])
    assert torch.equal(got["logits"].double(), z.topk(k, largest=largest).values)
    assert torch.equal(z.gather(1, got["ids"]), got["logits"].double())
    assert all(len(set(row)) == k for row in got["ids"].tolist()), "one token named twice"


def test_logits_and_ranks_are_those_of_float64_whatever_the_dtype_of_the_weights(place, dtype, random):
    """Rounded to bfloat16, most rows' ten best words would tie."""
    n, v = 24, 5000
    x, e = random(n, 64, dtype=dtype, device=place.device), random(v, 64, dtype=dtype, device=place.device)
    tokens = torch.arange(n, device=place.device) * 200
    with place():
        got = project(x, e, k=10, tokens=tokens)
    z = naive.logits(x.double(), e.double())
    assert got["logits"].dtype == got["token_logits"].dtype == torch.float32
    assert torch.equal(got["ids"], z.topk(10).indices)
    assert (got["ranks"] - naive.rank(z, tokens)).abs().max() <= 1  # two words one rounding apart
    assert (got["ranks"] == naive.rank(z, tokens)).sum() >= n - 2


def test_all_logits_at_once_are_float32_and_autograd_goes_through_them(place, dtype, random, error):
    h, e, b = (random(*s, dtype=dtype, device=place.device) for s in ((5, 8), (900, 8), (900,)))
    slopes = random(5, 900, device=place.device)
    mine, exact = ([t.detach().to(to).requires_grad_() for t in (h, e, b)] for to in (dtype, torch.float64))
    with place():
        z = unembed(*mine)
        got = torch.autograd.grad(z, mine, slopes)
    want = naive.logits(*exact[:2], bias=exact[2])
    assert z.dtype == torch.float32 and error(z, want) < 1e-6
    assert unembed(h[:0], e).shape == (0, 900) and unembed(h.expand(2, 5, 8), e).shape == (2, 5, 900)
    for found, true in zip(got, torch.autograd.grad(want, exact, slopes.double())):
        assert found.dtype == dtype and error(found, true) <= max(1e-6, torch.finfo(dtype).eps)


@pytest.mark.parametrize("v", [300, 3001])
@pytest.mark.parametrize("n", [1, 2, 5, 17])
@pytest.mark.parametrize("d", [24, 64])
def test_words_with_equal_rows_tie_wherever_they_are(place, dtype, random, n, v, d):
    """A column's logit must not depend on whether it is among the first or the last columns of a matrix product."""
    x, e = random(n, d, dtype=dtype, device=place.device), random(v, d, dtype=dtype, device=place.device)
    twins = [0, 7, 191, 192, 255, 256, v // 2, v - 65, v - 2, v - 1]
    e[twins] = e[5].clone()
    with place():
        ranks = torch.stack([project(x, e, tokens=torch.full((n,), t, device=x.device))["ranks"] for t in [5, *twins]])
    assert bool((ranks == ranks[0]).all())


def test_words_with_equal_rows_tie_in_float64(random):
    x, e = random(5, 24, dtype=torch.float64), random(1, 24, dtype=torch.float64).expand(3001, 24).contiguous()
    for token in (0, 1535, 3000):
        assert project(x, e, tokens=torch.full((5,), token))["ranks"].tolist() == [0] * 5


def test_the_best_word_of_each_row_has_rank_0_and_the_worst_v_minus_1(place, random):
    x, e = random(4, 16, device=place.device), random(1000, 16, device=place.device)
    with place():
        for largest, rank in ((True, 0), (False, 999)):
            ids = project(x, e, k=1, largest=largest)["ids"][:, 0]
            assert project(x, e, tokens=ids)["ranks"].tolist() == [rank] * 4


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_chunks_do_not_change_the_answer(place, random, monkeypatch, rows):
    x, e = (whole_numbers(random, *s, device=place.device) for s in ((7, 8), (500, 8)))
    tokens = torch.arange(7, device=place.device)
    with place():
        want = read(x, e, k=3, tokens=tokens)
        monkeypatch.setitem(logits.CHUNK_BYTES, place.device, rows * 512 * 4)
        monkeypatch.setattr(logits, "ROWS", 1)
        got = read(x, e, k=3, tokens=tokens)
    for name in want:
        if name != "ids":  # among equal logits any may come first
            assert torch.equal(got[name], want[name]), name


def test_no_more_than_a_chunk_of_logits_or_of_a_wider_e_is_held(place, dtype, random, monkeypatch, record):
    x, e = (random(*s, dtype=dtype, device=place.device) for s in ((40, 4), (1000, 4)))
    monkeypatch.setitem(logits.CHUNK_BYTES, place.device, 3 * 1024 * 4)
    monkeypatch.setattr(logits, "ROWS", 1)
    with place(), record() as sizes:
        read(x, e, k=3, tokens=torch.zeros(40, dtype=torch.long, device=place.device))
    assert max(sizes) <= 3 * 1024


@pytest.mark.parametrize("d", [8, 128])
def test_strided_vectors_and_a_strided_unembedding_are_read(place, dtype, random, d):
    x, e = (whole_numbers(random, *s, dtype=dtype, device=place.device) for s in ((d, 10), (d, 600)))
    tokens = torch.tensor([3, 0, 9, 0, 1, 0], device=place.device)[::2]
    with place():
        got = read(x.T[::4, ::2], e.T[:, ::2], k=2, tokens=tokens)
        want = read(x.T[::4, ::2].contiguous(), e.T[:, ::2].contiguous(), k=2, tokens=tokens.contiguous())
    for name in want:
        assert torch.equal(got[name], want[name]), name


def test_no_vectors_give_answers_of_no_rows(place, random):
    x, e = random(0, 4, device=place.device), random(1000, 4, device=place.device)
    with place():
        got = read(x, e, k=3, tokens=torch.zeros(0, dtype=torch.long, device=place.device))
    shapes = {name: tuple(t.shape) for name, t in got.items()}
    each = {name: (0,) for name in ("ranks", "token_logits", "log_normalizer", "entropy")}
    assert shapes == {"ids": (0, 3), "logits": (0, 3), **each}


def test_only_what_was_asked_for_is_in_the_result(place, random):
    x, e = random(2, 4, device=place.device), random(50, 4, device=place.device)
    with place():
        assert project(x, e) == {}
        assert set(project(x, e, k=1)) == {"ids", "logits"}
        assert set(project(x, e, entropy=True)) == {"entropy"}
        assert set(project(x, e, log_normalizer=True)) == {"log_normalizer"}


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("d", [4, 64])
def test_nan_in_a_vector_is_nan_in_its_answers_and_in_no_other_row(place, dtype, random, largest, d):
    x, e = random(3, d, dtype=dtype, device=place.device), random(600, d, dtype=dtype, device=place.device)
    x[1, 2] = torch.nan
    tokens = torch.zeros(3, dtype=torch.long, device=place.device)
    with place():
        got = read(x, e, k=2, largest=largest, tokens=tokens)
        want = read(x[[0, 2]], e, k=2, largest=largest, tokens=tokens[:2])
    for name in ("logits", "token_logits", "log_normalizer", "entropy"):
        assert bool(got[name][1].isnan().all()), name
        assert bool(got[name][[0, 2]].isfinite().all()), name
    assert got["ranks"][1] == 600 and torch.equal(got["ranks"][[0, 2]], want["ranks"])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_one_word_with_a_nan_is_placed_where_torch_topk_places_it(place, random, largest, dtype):
    x, e = (random(n, 64, dtype=dtype, device=place.device) for n in (3, 5000))
    e[70] = torch.nan
    with place():
        got = read(x, e, k=2, largest=largest, tokens=torch.zeros(3, dtype=torch.long, device=place.device))
    z = naive.logits(x.double(), e.double())
    want = z.topk(2, largest=largest)
    assert torch.equal(got["ids"], want.indices)
    assert got["ranks"].tolist() == (z > z[:, :1]).sum(1).tolist()  # a NaN is not larger
    assert bool(got["entropy"].isnan().all())


def test_infinite_logits_follow_the_formulas(place, random):
    x, e = random(2, 4, device=place.device), random(5000, 4, device=place.device)
    tokens = torch.tensor([0, 4999], device=place.device)
    out = torch.zeros(5000, device=place.device)
    out[4000:] = out[:4096] = -torch.inf  # the last block of columns, and a whole program's
    with place():
        one = torch.full((5000,), -torch.inf, device=place.device)
        one[4998] = 2.0
        alone = read(torch.zeros_like(x), e, bias=one, k=1, tokens=tokens)
        assert alone["ids"].tolist() == [[4998]] * 2 and alone["ranks"].tolist() == [1, 1]
        assert alone["log_normalizer"].tolist() == [2.0, 2.0] and alone["entropy"].tolist() == [0.0, 0.0]
        none = read(x, e, bias=out, tokens=tokens)
        assert none["log_normalizer"].tolist() == [-torch.inf] * 2 and bool(none["entropy"].isnan().all())
        one[3] = torch.inf
        top = read(x, e, bias=one, k=2, tokens=tokens)
        assert top["ids"].tolist() == [[3, 4998]] * 2 and top["ranks"].tolist() == [2, 2]
        assert top["log_normalizer"].tolist() == [torch.inf] * 2 and bool(top["entropy"].isnan().all())


def test_entropy_is_log_v_where_nothing_is_known_and_0_where_all_is(place, random, error):
    e = random(5000, 1, device=place.device).abs()
    e[17] = 100.0
    with place():
        flat, sure = project(torch.tensor([[0.0], [10.0]], device=place.device), e, entropy=True)["entropy"].cpu()
    assert error(flat, torch.tensor(5000.0).log()) < 1e-6 and sure == 0


def test_the_norm_sees_every_row_once(place, random):
    x, e, seen = random(5, 4, device=place.device), random(20, 4, device=place.device), []

    def norm(rows):
        seen.append(len(rows))
        return scaled(rows)

    with place():
        got, want = project(x, e, norm=norm, k=4), project(scaled(x), e, k=4)
    assert sum(seen) == 5 and torch.equal(got["ids"], want["ids"])


def test_a_norm_may_change_width_and_dtype(place, random):
    x, e = random(2, 6, device=place.device), random(20, 4, device=place.device)
    with place():
        got, want = project(x, e, norm=lambda v: v[:, :4].double(), k=3), project(x[:, :4].contiguous(), e, k=3)
    assert torch.equal(got["ids"], want["ids"])


def test_vectors_that_require_grad_are_read_and_nothing_is_recorded(place, random):
    x, e = random(2, 4, device=place.device).requires_grad_(), random(20, 4, device=place.device).requires_grad_()
    with place():
        assert not any(t.requires_grad for t in read(x, e, k=2).values())


def test_a_bad_call_is_refused_in_one_sentence(random, refuses):
    x, e = random(2, 4), random(20, 4)
    with refuses(ValueError, r"\[2, 3\], \[20, 4\]"):
        project(x[:, :3], e)
    with refuses(ValueError, r"\[N, d\].*\[4\]"):
        project(x[0], e)
    with refuses(ValueError, r"a bias \[3\]"):
        project(x, e, bias=torch.zeros(3))
    with refuses(ValueError, "share dtype"):
        project(x.half(), e)
    for k in (-1, 21):
        with refuses(ValueError, f"k is {k}.*at most 20"):
            project(x, e, k=k)
    with refuses(ValueError, r"int64 token.*2 vectors.*\[3\]"):
        project(x, e, tokens=torch.zeros(3, dtype=torch.long))
    with refuses(ValueError, "int64 token.*float32"):
        project(x, e, tokens=torch.zeros(2))
    for token in (-1, 20):
        with refuses(ValueError, "0 to 19"):
            project(x, e, tokens=torch.tensor([0, token]))


def test_short_vectors_of_a_half_precision_model_are_surveyed_where_their_logits_are_made(place, dtype, random):
    def at_once(width, plain=True):
        x, e = (random(n, width, dtype=dtype, device=place.device) for n in (2, 9))
        with place():
            return vocabulary._survey_of(x, e, plain) is vocabulary._survey_at_once

    assert at_once(768) == (place.path == "triton" and dtype != torch.float32)
    assert not (at_once(768, plain=False) or at_once(vocabulary.SHORT) or at_once(780))


@pytest.mark.parametrize("width, more", [(768, 0.05), (1600, 0.03), (2048, 0.195), (3584, 0.11), (4096, 0.10)])
def test_on_paper_an_a100_takes_no_more_than_a_fifth_longer_than_the_product(width, more):
    """Bytes at 1.56 TB/s beside 2 d operations a logit at 312 TFLOP/s, of what is read after the product."""
    surveyed = 2 * 20 / 128 + 10 * 128 * 4 / 50257  # written and read again of each block; the tiles of the ten best
    moved = surveyed if width < vocabulary.SHORT else 4
    added = (moved / 1.56e12) / (2 * width / 312e12)
    assert added == pytest.approx(more, abs=0.006) and added <= 0.2


@pytest.mark.parametrize(
    "size, width, chunks, share", [(50257, 768, 4, 0.08), (128256, 4096, 10, 1.02), (256000, 3584, 10, 0.90)]
)
def test_on_a_gpu_the_unembedding_passes_no_more_often_than_the_logits(monkeypatch, size, width, chunks, share):
    """The table of ``chunk_bytes``, for 10,000 vectors in bfloat16."""
    card = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    row = 4 * -(-size // 64) * 64
    rows = logits.chunk_bytes(card, row) // row
    assert rows >= 1024 and math.ceil(10_000 / rows) == chunks
    passes = 2 * width * size * chunks
    assert passes / (8 * size * 10_000) == pytest.approx(share, abs=0.01)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 30, 80 << 30))
    assert logits.chunk_bytes(card, row) == 1 << 28  # a quarter of what is free
