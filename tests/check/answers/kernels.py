"""Answers to the exercises of *Writing the kernels*."""

import math

import numpy as np
import torch
from library import Answers

import lens
from lens import kernels
from lens.course.check.kernels import SITES, STEPS, mystery
from lens.kernels import Key
from lens.kernels.masking import exp_minus
from lens.kernels.noise import philox, uniform


def floor(n, d, V, bandwidth, rate):
    return 1e3 * max(4 * (n * d + V * d + n * V) / (1e9 * bandwidth), 2 * n * d * V / (1e9 * rate))


def by_tensor(n, d, V, bandwidth, rate):
    gigabytes, operations = (n * d + V * d + n * V) * 4e-9, 2e-9 * n * d * V
    return torch.maximum(torch.tensor(gigabytes / bandwidth), torch.tensor(operations / rate)) * 1000


def times(n, d, V, bandwidth, rate):
    return [1e3 * 4 * (n * d + V * d + n * V) / bandwidth / 1e9, 1e3 * 2 * n * d * V / rate / 1e9]


def tile(scores, key, row, column):
    rows = row + torch.arange(scores.shape[0])[:, None]
    columns = column + torch.arange(scores.shape[1])
    four = torch.stack(philox((columns // 4, rows, key.step, key.site), (key.seed & 0xFFFFFFFF, key.seed >> 32)))
    a = 2 * (four.gather(0, (columns % 4).expand(1, *scores.shape))[0] >> 9) + 1
    return a > (2**24 - a) * exp_minus(scores)


def by_groups(scores, key, row, column):
    """Whole groups of four columns, from the one in which the tile begins; then what is too much is cut off."""
    skip, seed = column % 4, (key.seed & 0xFFFFFFFF, key.seed >> 32)
    groups = column // 4 + torch.arange((skip + scores.shape[1] + 3) // 4)
    rows = row + torch.arange(scores.shape[0])[:, None]
    words = torch.stack(philox((groups, rows, key.step, key.site), seed), -1).flatten(1)
    a = 2 * (words[:, skip : skip + scores.shape[1]] >> 9) + 1
    return a > (2**24 - a) * exp_minus(scores)


def compared(scores, key, row, column, how):
    u = uniform((row + scores.shape[0], column + scores.shape[1]), key)[row:, column:]
    return how(u * 2**24, scores)


def cut_out(scores, key, row, column):
    whole = torch.zeros(row + scores.shape[0], column + scores.shape[1])
    whole[row:, column:] = scores
    return kernels.sample(whole, key)[row:, column:]


def from_the_whole(scores, key, row, column):
    """Draws everything above and left of the tile too: right, and what a kernel cannot afford."""
    u = uniform((row + scores.shape[0], column + scores.shape[1]), key)[row:, column:].double()
    return u / (1 - u) > (-scores.double()).exp()


def one_by_one(scores, key, row, column):
    m = np.zeros(tuple(scores.shape), dtype=bool)
    for i in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            seed = key.seed % 2**32, key.seed // 2**32
            word = philox(((column + j) // 4, row + i, key.step, key.site), seed)[(column + j) % 4]
            a = 2 * (word // 512) + 1
            m[i, j] = a > (2**24 - a) * exp_minus(scores[i, j])
    return m


def by_counter(scores, key, counter, word, seed=None):
    """One call of Philox for each entry, with whatever counter, word and seed a student would write."""
    m, seed = torch.zeros(scores.shape), seed or (key.seed & 0xFFFFFFFF, key.seed >> 32)
    for i in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            u = (2 * (philox(counter(i, j), seed)[word(i, j)] >> 9) + 1) / 2**24
            m[i, j] = math.log(u / (1 - u)) + float(scores[i, j]) > 0
    return m


def wrong_tile(counter, word):
    def answer(scores, key, row, column):
        return by_counter(
            scores, key, lambda i, j: counter(row + i, column + j, key), lambda i, j: word(row + i, column + j)
        )

    return answer


def own_corner(scores, key, row, column):
    return kernels.sample(scores, key)


def running(blocks):
    log_sum, total, count = torch.full((len(blocks[0]),), -torch.inf), 0, 0
    for z in blocks:
        log_sum, total, count = torch.logaddexp(log_sum, z.logsumexp(1)), total + z.sum(1), count + z.shape[1]
    return log_sum - total / count - math.log(count)


def online(blocks):
    """The online softmax: a running maximum, and a sum that is rescaled when it grows."""
    top, scale, total, count = -np.inf, 0.0, 0.0, 0
    for z in blocks:
        z = z.double().numpy()
        new = np.maximum(top, z.max(1))
        scale = scale * np.exp(top - new) + np.exp(z - new[:, None]).sum(1)
        top, total, count = new, total + z.sum(1), count + z.shape[1]
    return top + np.log(scale) - total / count - np.log(count)


def by_lists(blocks):
    """Row by row and entry by entry, with math alone."""
    found = []
    for rows in zip(*(z.tolist() for z in blocks)):
        top, scale, total, count = -math.inf, 0.0, 0.0, 0
        for v in (v for row in rows for v in row):
            new = max(top, v)
            top, scale, total, count = new, scale * math.exp(top - new) + math.exp(v - new), total + v, count + 1
        found.append(top + math.log(scale) - total / count - math.log(count))
    return found


def joined(blocks):
    log_p = torch.cat(blocks, 1).log_softmax(1)
    return torch.nn.functional.kl_div(log_p, torch.full_like(log_p, 1 / log_p.shape[1]), reduction="none").sum(1)


def naive_exp(blocks):
    total = sum(z.exp().sum(1) for z in blocks)
    z = torch.cat(blocks, 1)
    return total.log() - z.mean(1) - math.log(z.shape[1])


def kl(z):
    return -z.log_softmax(1).mean(1) - math.log(z.shape[1])


def mean_of_means(blocks):
    log_sum = torch.stack([z.logsumexp(1) for z in blocks]).logsumexp(0)
    mean = sum(z.mean(1) for z in blocks) / len(blocks)
    return log_sum - mean - math.log(sum(z.shape[1] for z in blocks))


def other_way(blocks):
    p = torch.cat(blocks, 1).softmax(1)
    return math.log(p.shape[1]) - torch.special.entr(p).sum(1)


def candidates(scores, mask, seed, weights):
    """All addresses that decide alike on the first weights of the first row, in order."""
    alive = torch.ones(STEPS, SITES, dtype=torch.bool)
    for quad in range(weights // 4):
        words = philox((quad, 0, torch.arange(STEPS)[:, None], torch.arange(SITES)), (seed, 0))
        for j, word in enumerate(words):
            u = (2 * (word >> 9) + 1).double() / 2**24
            alive &= (u > torch.sigmoid(-scores[0, 4 * quad + j].double())) == mask[0, 4 * quad + j]
    return alive.nonzero()


def address(*given):
    return candidates(*given, weights=40)[0]


def by_sampling(scores, mask, seed):
    """Draws whole masks, once few candidates are left."""
    few = candidates(scores, mask, seed, weights=8).tolist()
    return next(pair for pair in few if torch.equal(kernels.sample(scores, Key(seed, *pair)), mask))


ANSWERS = {
    "floor": Answers(
        right=[floor, by_tensor, lambda *given: max(times(*given))],
        wrong={
            "were added": lambda *given: sum(times(*given)),
            "arithmetic's time where": lambda *given: min(times(*given)),
            "time of the bytes": lambda *given: times(*given)[0],
            "logits are written": lambda n, d, V, b, r: max(4e-6 * (n + V) * d / b, 2e-6 * n * d * V / r),
            "counted as one operation": lambda n, d, V, b, r: floor(n, d, V, b, 2 * r),
            "Numbers were counted": lambda n, d, V, b, r: floor(n, d, V, 4 * b, r),
            "in seconds": lambda *given: floor(*given) / 1000,
            "E was counted once for each": lambda n, d, V, b, r: max(
                n * floor(1, d, V, b, 1e30), 1e3 * 2 * n * d * V / r / 1e9
            ),
        },
        blind=[
            lambda *given: sum(times(*given)) / 2,
            lambda n, d, V, b, r: floor(n, d, V, b / 2, r),
        ],
    ),
    "tile": Answers(
        right=[tile, by_groups, one_by_one],
        wrong={
            "belongs to other programs": cut_out,
            "in numbers": lambda *given: tile(*given).float(),
            "On a tie": lambda *given: compared(*given, lambda a, z: a >= (2**24 - a) * exp_minus(z)),
            "nearly equal": lambda *given: compared(*given, lambda a, z: torch.logit(a / 2**24) + z > 0),
            "logarithms and sigmoids": lambda *given: compared(*given, lambda a, z: a / 2**24 > torch.sigmoid(-z)),
            "inside a group of four": lambda scores, key, row, column: tile(scores, key, row, column // 4 * 4),
            "own first corner": own_corner,
            "Rows and columns are exchanged": wrong_tile(
                lambda r, c, key: (r // 4, c, key.step, key.site), lambda r, c: r % 4
            ),
            "counter of its own": wrong_tile(lambda r, c, key: (c, r, key.step, key.site), lambda r, c: c % 4),
            "Four neighbors get the same": wrong_tile(
                lambda r, c, key: (c // 4, r, key.step, key.site), lambda r, c: 0
            ),
            "Step and site are exchanged": wrong_tile(
                lambda r, c, key: (c // 4, r, key.site, key.step), lambda r, c: c % 4
            ),
            "upper half of the seed": lambda scores, key, *at: one_by_one(
                scores, Key(key.seed % 2**32, key.step, key.site), *at
            ),
            "passed whole": lambda scores, key, row, column: by_counter(
                scores,
                key,
                lambda i, j: ((column + j) // 4, row + i, key.step, key.site),
                lambda i, j: (column + j) % 4,
                seed=(key.seed, 0),
            ),
            "halves of the seed are exchanged": lambda scores, key, *at: one_by_one(
                scores, Key((key.seed >> 32) + ((key.seed & 0xFFFFFFFF) << 32), key.step, key.site), *at
            ),
            "remaining model's side": lambda *given: ~from_the_whole(*given),
            "sign of the score": lambda scores, *rest: one_by_one(-scores, *rest),
            "holds no noise": lambda scores, *rest: kernels.sample(scores),
        },
    ),
    "uniform_kl": Answers(
        right=[running, online, by_lists],
        wrong={
            "larger than any block": joined,
            "mean of the blocks' means": mean_of_means,
            "losses were averaged": lambda blocks: sum(map(kl, blocks)) / len(blocks),
            "log-sum-exps were added": lambda blocks: (
                sum(z.logsumexp(1) for z in blocks)
                - torch.cat(blocks, 1).mean(1)
                - math.log(torch.cat(blocks, 1).shape[1])
            ),
            "log V is missing": lambda blocks: -torch.cat(blocks, 1).log_softmax(1).mean(1),
            "KL(p ‖ uniform)": other_way,
            "overflow or vanish": naive_exp,
            "mean over the rows": lambda blocks: running(blocks).mean(),
            "vocabulary is the second axis": lambda blocks: kl(torch.cat(blocks, 1).T),
            "opposite way": lambda blocks: -running(blocks),
        },
        blind=[
            lambda blocks: running(blocks) / math.log(2),
            lambda blocks: torch.cat([kl(z) for z in blocks]),
        ],
    ),
    "which_step": Answers(
        right=[lambda *given: address(*given).tolist(), address, by_sampling, lambda *given: address(*given).numpy()],
        wrong={
            "exchanged": lambda *given: address(*given).flip(0),
            "mask of this address": lambda *given: [int(address(*given)[0]) + 1, int(address(*given)[1])],
            "four weights and not beyond": lambda *given: candidates(*given, weights=4)[0],
            "another one": lambda *given: [(int(address(*given)[0]) + 500) % STEPS, int(address(*given)[1])],
            "below": lambda *given: [int(address(*given)[0]), 40],
            "two whole numbers": lambda *given: int(address(*given)[0]),
        },
        context=lambda lm: mystery(lens.check.student("ada")),
        computed=True,
    ),
}
