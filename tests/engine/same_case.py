"""Is the case that the page made the one that Python made?  The same but for the last digit, and for words that tie."""

from __future__ import annotations

LAST = 2
"""Whole numbers of 1/10 000 may differ by so many: a rounding of each side."""

CLEAR = 10
"""An answer's words with a probability below so many 1/10 000 may tie."""


def same(found: dict, want: dict) -> None:
    """``{id, case}`` or ``{id, problem}`` of the page is Python's; ``AssertionError`` says where it is not."""
    assert found.keys() == want.keys() and found["id"] == want["id"], (found, want)
    if "problem" in want:
        assert found["problem"] == want["problem"]
        return
    page, python = found["case"], want["case"]
    assert page.keys() == python.keys()
    kind = "readings" if "readings" in python else "found" if "found" in python else "before"
    rest = set(python) - {"readings", "found", "before", "after", "words", "tokens", "first"}
    for name in rest:
        assert page[name] == python[name], name
    {"readings": same_readings, "found": same_numbers, "before": same_answers}[kind](page, python)


NOISE = 1e-6
"""What float32 leaves of a zero: δ of q and k is nothing at the first token, and every δ little where a loss is."""


def same_numbers(page, python, close: float = 2e-3) -> None:
    """Nested lists of numbers, each to Python's four digits and a bit of float32."""
    if isinstance(python, dict):
        page, python = page["found"], python["found"]
    if isinstance(python, list):
        assert isinstance(page, list) and len(page) == len(python)
        for one, other in zip(page, python):
            same_numbers(one, other, close)
    elif python is None:
        assert page is None
    else:
        assert abs(page - python) <= close * abs(python) + NOISE, (page, python)


def same_answers(page: dict, python: dict) -> None:
    """What is said ``before`` and ``after``, in every place, with the words of its own table."""
    for name in ("before", "after"):
        _same_answer(page[name], python[name], page["words"], python["words"])


def _same_answer(page: list, python: list, words: list, pythons: list) -> None:
    assert len(page) == len(python)
    if python and isinstance(python[0], list) or not python:
        for one, other in zip(page, python):
            _same_answer(one, other, words, pythons)
        return
    (p, said, *best), (q, pythons_said, *other) = page, python
    assert abs(p - q) <= LAST, (page, python)
    values = list(zip(best[1::2], other[1::2]))
    assert all(abs(a - b) <= LAST for a, b in values), (page, python)
    clear = len(values) < 2 or values[0][1] - values[1][1] > LAST
    assert said == pythons_said or not clear, (page, python)
    for i, (_, value) in enumerate(values):
        near = [v for j, (_, v) in enumerate(values) if j != i]
        if value >= CLEAR and all(abs(value - v) > LAST for v in near) and (i + 1 < len(values) or len(values) == 1):
            assert words[best[2 * i]] == pythons[other[2 * i]], (page, python)


def same_readings(page: dict, python: dict) -> None:
    """Every cell's size, rank and words; a word may differ where it ties with its neighbor."""
    words = (page["words"], python["words"])
    assert [[table[i] for i in case["tokens"]] for case, table in zip((page, python), words)][0] == [
        python["words"][i] for i in python["tokens"]
    ]
    assert (page["first"] is None) == (python["first"] is None)
    if python["first"] is not None:
        assert page["words"][page["first"]] == python["words"][python["first"]]
    assert list(page["readings"]) == list(python["readings"])
    off = cells = 0
    for name, want in python["readings"].items():
        got = page["readings"][name]
        assert got.keys() == want.keys()
        same_numbers(got["size"], want["size"])
        same_numbers(got["probability"], want["probability"], close=5e-3)
        assert (got["rank"] is None) == (want["rank"] is None)
        for layer, row in enumerate(want["size"]):
            for token in range(len(row)):
                if want["rank"] is not None:
                    a, b = got["rank"][layer][token], want["rank"][layer][token]
                    assert abs(a - b) <= max(2, 0.002 * b), (name, layer, token, a, b)
                for end in ("top", "bottom"):
                    a, b = ([t[i] for i in r[end][layer][token]] for r, t in zip((got, want), words))
                    assert len(a) == len(b)
                    cells += 1
                    off += a != b
                    assert len(set(a) ^ set(b)) <= 2, (name, layer, token, end, a, b)
    assert off <= 0.002 * cells + 1, f"{off} of {cells} cells have other words"
