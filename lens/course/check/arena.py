"""Checks of *The editors' arena*: two conventions, ROME's least squares, paired records, a judge that is fooled."""

from __future__ import annotations

from functools import partial

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.edit import Change, Edit, Request
from lens.evaluate import score

PROBABILITIES = {  # new word, true word, the best other
    "efficacy": [[0.50, 0.30, 0.10]],
    "paraphrase": [[0.30, 0.10, 0.45], [0.20, 0.60, 0.10]],
    "neighborhood": [[0.1, 0.7, 0.05], [0.2, 0.35, 0.4], [0.5, 0.3, 0.1], [0.05, 0.1, 0.8], [0.1, 0.8, 0.05]],
}


def _judged(true_for=("neighborhood",), total=False):
    """[2, 3]: accuracy and success of the three measures; ``true_for``: where the true word is the right one."""
    columns = []
    for measure, rows in PROBABILITIES.items():
        new, true, other = torch.tensor(rows, dtype=torch.float64).T
        right, wrong = (true, new) if measure in true_for else (new, true)
        first, ahead = (right > wrong) & (right > other), right > wrong
        columns.append([part.double().sum() if total else part.double().mean() for part in (first, ahead)])
    return torch.tensor(columns).T


two_judges = Value(
    _judged,
    {
        "The two conventions are exchanged: accuracy asks for the first place, success for the better of the two.": (
            lambda: _judged().flip(0)
        ),
        "The neighbors were scored by the new word: for them the right answer is the true one.": lambda: _judged(()),
        "The rewrite and the paraphrases were scored by the true word: for them the right answer is the new one.": (
            lambda: _judged(tuple(PROBABILITIES))
        ),
        "Both rows are success: for accuracy the right answer has to beat every other word, not only its rival.": (
            lambda: _judged()[[1, 1]]
        ),
        "Both rows are accuracy: for success it is enough to be ahead of the rival.": lambda: _judged()[[0, 0]],
        "These are counts: divide each by the number of its prompts.": lambda: _judged(total=True),
        "These are percents: shares between 0 and 1 are asked for.": lambda: 100 * _judged(),
        "Right but transposed: one row for accuracy, one for success.": lambda: _judged().T,
    },
    "The same model, and two judges who do not agree on it.",
)


def _memories() -> list[tuple]:
    """Weights, second moments, keys and values of lopsided shapes, in float64."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cases = []
    for wide, thin in ((6, 3), (4, 5)):
        keys = draw(5 * wide, wide) @ draw(wide, wide) + 0.5
        cases.append((draw(wide, thin), keys.T @ keys / len(keys), draw(wide), draw(thin)))
    return cases


def _insert(W, C, k, v):
    u = torch.linalg.solve(C, k)
    return torch.outer(u, v - k @ W) / (k @ u)


def _along(u, W, k, v):
    return torch.outer(u, v - k @ W) / (k @ u)


insert = Function(
    _insert,
    _memories,
    {
        "The old output is still there: the edit has to add v − kW, not v.": (
            lambda W, C, k, v: torch.outer(torch.linalg.solve(C, k), v) / (k @ torch.linalg.solve(C, k))
        ),
        "The fact is written, but along k itself: C is left out, so ordinary text hears more of it than need be.": (
            lambda W, C, k, v: _along(k, W, k, v)
        ),
        "The fact is written, but C stands where its inverse belongs: the edit is turned toward ordinary inputs.": (
            lambda W, C, k, v: _along(C @ k, W, k, v)
        ),
        "The direction is right and the length is not: k·u is what the key itself hears, so divide by it.": (
            lambda W, C, k, v: torch.outer(torch.linalg.solve(C, k), v - k @ W)
        ),
        "Divided by k·k: what the key hears of this edit is k·u.": (
            lambda W, C, k, v: torch.outer(torch.linalg.solve(C, k), v - k @ W) / (k @ k)
        ),
        "The sign is reversed: to be added is what is wanted minus what is there.": lambda *given: -_insert(*given),
        "Right but transposed: ΔW is [d_m, d], its input first.": lambda *given: _insert(*given).T,
        "This is W after the edit: only what is added to it is asked for.": lambda W, C, k, v: W + _insert(W, C, k, v),
    },
    "Rank one, along C⁻¹k: the fact is written, and ordinary text disturbed as little as can be.",
)


def _lists() -> list[tuple]:
    """Shares of two editors on the same records, most of which are hard for both or easy for both."""
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hard = [draw(n) for n in (12, 40)]
    return [(0.8 * h + 0.2 * draw(len(h)), 0.7 * h + 0.2 * draw(len(h))) for h in hard]


def _interval(mean, spread, n, z=1.96):
    return torch.stack([mean, mean - z * spread / n**0.5, mean + z * spread / n**0.5])


def _paired(a, b, z=1.96, n=None):
    return _interval((a - b).mean(), (a - b).std(), len(a) if n is None else n, z)


paired = Function(
    _paired,
    _lists,
    {
        "The lists were treated as independent samples: the records are the same, so let the differences speak.": (
            lambda a, b: _interval((a - b).mean(), (a.var() + b.var()).sqrt(), len(a))
        ),
        "The standard deviations were subtracted: subtract record by record, then take one of that.": (
            lambda a, b: _interval((a - b).mean(), (a.std() - b.std()).abs(), len(a))
        ),
        "This interval holds single records: that of a mean is narrower by the root of n.": (
            lambda a, b: _paired(a, b, n=1)
        ),
        "Divided by n: a mean's standard error falls with the root of n.": lambda a, b: _paired(a, b, n=len(a) ** 2),
        "This standard deviation divides by n, not by n − 1: PyTorch's .std() takes n − 1, NumPy's does not.": (
            lambda a, b: _interval((a - b).mean(), (a - b).std(unbiased=False), len(a))
        ),
        "That is a 90 % interval: 1.645 is one-sided, a two-sided one takes 1.96.": lambda a, b: _paired(a, b, z=1.645),
        "The variance was taken for the standard deviation: the square root is missing.": (
            lambda a, b: _interval((a - b).mean(), (a - b).var(), len(a))
        ),
        "These are half widths: an interval's ends lie on both sides of the mean.": (
            lambda a, b: _paired(a, b) - torch.tensor([0.0, 1, 1]) * (a - b).mean()
        ),
        "The half width stands for the two ends: give the mean, the lower end, the upper end.": (
            lambda a, b: torch.stack([(a - b).mean(), (_paired(a, b)[2] - (a - b).mean())])
        ),
        "The sign is reversed: positive is to mean that the first list is better.": lambda a, b: _paired(b, a),
    },
    "Record by record, so that hard records cancel.",
)


def _changes(answer) -> tuple[Change, ...]:
    """The changes in a list of changes and edits, or in one of them."""
    several = answer if isinstance(answer, (list, tuple)) else [answer]
    found = [change for one in several for change in (one.changes if isinstance(one, Edit) else (one,))]
    if not found or not all(isinstance(change, Change) for change in found):
        raise TypeError("not changes")
    return tuple(found)


def _measured(lm, record, changes) -> list[list[float]]:
    """Accuracy and success of efficacy, paraphrase and neighborhood, with these changes beside the weights: [2][3]."""
    request = Request.from_record(record)
    groups = [[request.text], record["paraphrase_prompts"], record["neighborhood_prompts"]]
    texts = [text for group in groups for text in group]
    targets = [request.target_new] * len(texts) + [request.target_true] * len(texts)
    both = score(lm, texts * 2, targets, edits=[changes], rows=[0] * len(targets))
    (new, true), (new_first, true_first) = both.nll.view(2, -1), both.correct.view(2, -1)
    near = torch.arange(len(texts)) >= len(texts) - len(groups[-1])
    first = torch.where(near, true_first.cpu(), new_first.cpu()).double()
    ahead = torch.where(near, (true < new).cpu(), (new < true).cpu()).double()
    sizes = [len(group) for group in groups]
    return [[float(part.mean()) for part in shares.split(sizes)] for shares in (first, ahead)]


def _share(convention, measure):
    return lambda answer, lm, record: _measured(lm, record, _changes(answer))[convention][measure]


def _no_accuracy(measure):
    return lambda *given: _share(0, measure)(*given) == 0


fooled = Claims(
    {
        "A list of lens.edit.Change is asked for.": lambda answer, lm, record: _changes(answer),
        "These changes do not fit the model: for FF2, x is [r, d_m] and delta [r, d], and the layer must exist.": (
            lambda *given: _share(0, 0)(*given) >= 0
        ),
        "Efficacy success is not 1: at the edited prompt the new word has to stay ahead of the true one.": (
            lambda *given: _share(1, 0)(*given) == 1
        ),
        "Paraphrase success is below one half: does the third word's row resemble that of an answer? Try another.": (
            lambda *given: _share(1, 1)(*given) >= 0.5
        ),
        "Neighborhood success is below nine tenths: the good edit has to be one that neighbors hardly hear.": (
            lambda *given: _share(1, 2)(*given) >= 0.9
        ),
        "Efficacy accuracy is not 0: at the edited prompt the new word still comes first.": _no_accuracy(0),
        "Paraphrase accuracy is not 0: in other words the new answer still comes first, so shout louder.": (
            _no_accuracy(1)
        ),
        "Neighborhood accuracy is not 0: some neighbors still say their own answer, and do not hear the shout.": (
            _no_accuracy(2)
        ),
    },
    "Success is full of praise, and the model babbles: a measure of two words cannot see a third.",
)
