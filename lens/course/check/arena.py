"""Checks of *The editors' arena*: two conventions, ROME's least squares, paired records, a judge that is fooled."""

from __future__ import annotations

import torch

from lens.course.check.exercise import Claims, Function, Value
from lens.course.check.mistakes import NEGATED, TRANSPOSED, Then
from lens.course.check.seeded import seeded
from lens.edit import Change, Edit
from lens.evaluate.prompts import CONVENTIONS, MEASURES, Case, shares

PROBABILITIES = {  # new word, true word, the best other
    "efficacy": [[0.50, 0.30, 0.10]],
    "paraphrase": [[0.30, 0.10, 0.45], [0.20, 0.60, 0.10]],
    "neighborhood": [[0.1, 0.7, 0.05], [0.2, 0.35, 0.4], [0.5, 0.3, 0.1], [0.05, 0.1, 0.8], [0.1, 0.8, 0.05]],
}


def _judged(true_for=("neighborhood",), of=torch.mean):
    """[2, 3]: accuracy and success of the three measures; ``true_for``: where the true word is the right one."""
    columns = []
    for measure, rows in PROBABILITIES.items():
        new, true, other = torch.tensor(rows, dtype=torch.float64).T
        right, wrong = (true, new) if measure in true_for else (new, true)
        columns.append([of(part.double()) for part in ((right > wrong) & (right > other), right > wrong)])
    return torch.tensor(columns).T


two_judges = Value(
    _judged,
    {
        "The two conventions are exchanged: accuracy asks for the first place, success for the better of the two.": (
            Then(lambda rows: rows.flip(0))
        ),
        "The neighbors were scored by the new word: for them the right answer is the true one.": dict(true_for=()),
        "The rewrite and the paraphrases were scored by the true word: for them the right answer is the new one.": (
            dict(true_for=tuple(PROBABILITIES))
        ),
        "Both rows are success: for accuracy the right answer has to beat every other word, not only its rival.": (
            Then(lambda rows: rows[[1, 1]])
        ),
        "Both rows are accuracy: for success it is enough to be ahead of the rival.": Then(lambda rows: rows[[0, 0]]),
        "These are counts: divide each by the number of its prompts.": dict(of=torch.sum),
        "These are percents: shares between 0 and 1 are asked for.": Then(lambda shares: 100 * shares),
        "Right but transposed: one row for accuracy, one for success.": TRANSPOSED,
    },
    "The same model, and two judges who do not agree on it.",
)


def _memories() -> list[tuple]:
    """Weights, second moments, keys and values of lopsided shapes, in float64."""
    draw = seeded(dtype=torch.float64)
    cases = []
    for wide, thin in ((6, 3), (4, 5)):
        keys = draw(5 * wide, wide) @ draw(wide, wide) + 0.5
        cases.append((draw(wide, thin), keys.T @ keys / len(keys), draw(wide), draw(thin)))
    return cases


def _insert(W, C, k, v, u=torch.linalg.solve, added=lambda W, k, v: v - k @ W, heard=lambda k, u: k @ u):
    u = u(C, k)
    return torch.outer(u, added(W, k, v)) / heard(k, u)


insert = Function(
    _insert,
    _memories,
    {
        "The old output is still there: the edit has to add v − kW, not v.": dict(added=lambda W, k, v: v),
        "The fact is written, but along k itself: C is left out, so ordinary text hears more of it than need be.": (
            dict(u=lambda C, k: k)
        ),
        "The fact is written, but C stands where its inverse belongs: the edit is turned toward ordinary inputs.": (
            dict(u=torch.matmul)
        ),
        "The direction is right and the length is not: k·u is what the key itself hears, so divide by it.": (
            dict(heard=lambda k, u: 1)
        ),
        "Divided by k·k: what the key hears of this edit is k·u.": dict(heard=lambda k, u: k @ k),
        "The sign is reversed: to be added is what is wanted minus what is there.": NEGATED,
        "Right but transposed: ΔW is [d_m, d], its input first.": TRANSPOSED,
        "This is W after the edit: only what is added to it is asked for.": lambda W, *given: W + _insert(W, *given),
    },
    "Rank one, along C⁻¹k: the fact is written, and ordinary text disturbed as little as can be.",
)


def _lists() -> list[tuple]:
    """Shares of two editors on the same records, most of which are hard for both or easy for both."""
    draw = seeded(torch.rand, dtype=torch.float64)
    hard = [draw(n) for n in (12, 40)]
    return [(0.8 * h + 0.2 * draw(len(h)), 0.7 * h + 0.2 * draw(len(h))) for h in hard]


def _paired(a, b, z=1.96, spread=lambda a, b: (a - b).std(), root=lambda n: n**0.5):
    mean, half = (a - b).mean(), z * spread(a, b) / root(len(a))
    return torch.stack([mean, mean - half, mean + half])


paired = Function(
    _paired,
    _lists,
    {
        "The lists were treated as independent samples: the records are the same, so let the differences speak.": (
            dict(spread=lambda a, b: (a.var() + b.var()).sqrt())
        ),
        "The standard deviations were subtracted: subtract record by record, then take one of that.": (
            dict(spread=lambda a, b: (a.std() - b.std()).abs())
        ),
        "This interval holds single records: that of a mean is narrower by the root of n.": dict(root=lambda n: 1),
        "Divided by n: a mean's standard error falls with the root of n.": dict(root=lambda n: n),
        "This standard deviation divides by n, not by n − 1: PyTorch's .std() takes n − 1, NumPy's does not.": (
            dict(spread=lambda a, b: (a - b).std(correction=0))
        ),
        "That is a 90 % interval: 1.645 is one-sided, a two-sided one takes 1.96.": dict(z=1.645),
        "The variance was taken for the standard deviation: the square root is missing.": (
            dict(spread=lambda a, b: (a - b).var())
        ),
        "These are half widths: an interval's ends lie on both sides of the mean.": (
            Then(lambda found: found - torch.tensor([0.0, 1, 1]) * found[0])
        ),
        "The half width stands for the two ends: give the mean, the lower end, the upper end.": (
            Then(lambda found: torch.stack([found[0], found[2] - found[0]]))
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
    (found,) = shares(lm, [Case.of(lm, record)], [changes])
    return [[found[f"{measure}_{convention}"] for measure in MEASURES] for convention in CONVENTIONS]


def _claim(holds):
    """A claim on the accuracies and on the successes of efficacy, paraphrase and neighborhood."""
    return lambda answer, lm, record: holds(*_measured(lm, record, _changes(answer)))


fooled = Claims(
    {
        "A list of lens.edit.Change is asked for.": lambda answer, lm, record: _changes(answer),
        "These changes do not fit the model: for FF2, x is [r, d_m] and delta [r, d], and the layer must exist.": (
            _claim(lambda accuracy, success: True)
        ),
        "Efficacy success is not 1: at the edited prompt the new word has to stay ahead of the true one.": (
            _claim(lambda accuracy, success: success[0] == 1)
        ),
        "Paraphrase success is below one half: does the third word's row resemble that of an answer? Try another.": (
            _claim(lambda accuracy, success: success[1] >= 0.5)
        ),
        "Neighborhood success is below nine tenths: the good edit has to be one that neighbors hardly hear.": (
            _claim(lambda accuracy, success: success[2] >= 0.9)
        ),
        "Efficacy accuracy is not 0: at the edited prompt the new word still comes first.": (
            _claim(lambda accuracy, success: accuracy[0] == 0)
        ),
        "Paraphrase accuracy is not 0: in other words the new answer still comes first, so shout louder.": (
            _claim(lambda accuracy, success: accuracy[1] == 0)
        ),
        "Neighborhood accuracy is not 0: some neighbors still say their own answer, and do not hear the shout.": (
            _claim(lambda accuracy, success: accuracy[2] == 0)
        ),
    },
    "Success is full of praise, and the model babbles: a measure of two words cannot see a third.",
)
