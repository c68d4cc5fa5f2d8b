"""Are two answers the same, and if not, how do they differ?

Answers are numbers, words, or nested lists and tensors of them.  Numbers are compared in float64, relative to the
largest entry wanted, so that any correct way to compute them passes, in float32 too.  What can be said about a wrong
answer without knowing the exercise is said here: transposed, opposite sign, a constant factor, a missing leading space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

TOLERANCE = 1e-4


def numbers(value: Any) -> torch.Tensor | None:
    """``value`` as a float64 tensor, or ``None`` where it is not made of real numbers of one shape."""
    if isinstance(value, torch.Tensor):
        return None if value.is_complex() else value.detach().cpu().to_dense().double()
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in tree_leaves(value)):
        parts = [numbers(v) for v in value]
        same = all(p is not None and p.shape == parts[0].shape for p in parts)
        return torch.stack(parts) if same else None
    if isinstance(value, (str, bytes, Mapping, set, frozenset)) or value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal length
        return None
    return torch.as_tensor(array.astype(np.float64)) if array.dtype.kind in "biuf" else None


def same(got: Any, want: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether ``got`` is the answer ``want``: same shape, numbers within ``tolerance`` of the largest entry wanted,
    words equal (``·`` stands for a leading space), sets without order, mappings key by key."""
    if isinstance(want, str):
        return isinstance(got, str) and spaced(got) == spaced(want)
    if isinstance(want, (set, frozenset)):
        return isinstance(got, (set, frozenset, list, tuple)) and {spaced(g) for g in got} == {spaced(w) for w in want}
    if isinstance(want, Mapping):
        alike = isinstance(got, Mapping) and set(got) == set(want)
        return alike and all(same(got[k], want[k], tolerance) for k in want)
    a, b = numbers(got), numbers(want)
    if b is not None:
        return a is not None and a.shape == b.shape and close(a, b, tolerance)
    if isinstance(want, (list, tuple)):
        alike = isinstance(got, (list, tuple)) and len(got) == len(want)
        return alike and all(same(g, w, tolerance) for g, w in zip(got, want))
    return bool(got == want)


def truths(value: Any) -> bool:
    """Whether these are True and False, and not numbers."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(truths, value))
    return isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.bool_)


def counted(value: Any) -> bool:
    """Whether these are whole numbers: counts, layers, ranks."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(map(counted, value))
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    """Equal but for rounding; NaN is equal to nothing, infinity to itself."""
    finite = b[b.isfinite()]
    scale = float(finite.abs().max()) if len(finite) else 0.0
    return torch.allclose(a, b, rtol=0, atol=tolerance * (scale or 1.0))


def spaced(word: Any) -> Any:
    """A word with its leading space, however it is written."""
    return " " + word[1:] if isinstance(word, str) and word.startswith(("·", "Ġ", "▁")) else word


def difference(got: Any, want: Any, tolerance: float = TOLERANCE) -> str:
    """What a wrong answer has in common with the right one, in a sentence that does not give it away."""
    if isinstance(want, str):
        return _words(got, want)
    a, b = numbers(got), numbers(want)
    if b is None or a is None:
        return _kinds(got, want, tolerance)
    if a.isnan().any():
        return "The result holds NaN, which comes from 0/0, ∞ − ∞ or ∞/∞: which step makes it?"
    if a.shape != b.shape:
        return _shapes(a, b, tolerance)
    if b.ndim == 2 and b.shape[0] == b.shape[1] and close(a.T, b, tolerance):
        return "Right but transposed: rows and columns are exchanged."
    if close(-a, b, tolerance):
        return "Right but for the sign: everything points the opposite way."
    if b.ndim and b.numel() > 2 and close(a.flip(0), b, tolerance):
        return "Right but in reverse order."
    if b.numel() > 1 and b.any() and not counted(want):
        factor = float((a * b).sum() / (b * b).sum())
        if factor and close(a / factor, b, tolerance):
            return "Right up to a constant factor: was a mean taken for a sum, or a scale left out or used twice?"
    if b.numel() == 1:
        return "The number is not right."
    wrong = ((a - b).abs() > tolerance * float(b.abs().max() or 1)).sum()
    return f"The shape is right, but {int(wrong)} of {b.numel()} entries are not."


def _words(got: Any, want: str) -> str:
    if not isinstance(got, str):
        return f"A word or text is asked for, and this is a {type(got).__name__}."
    if spaced(got).strip() == spaced(want).strip():
        return "Right but for the space in front: a word inside a sentence begins with one, and that is another token."
    if spaced(got).strip().lower() == spaced(want).strip().lower():
        return "Right but for capital letters: they are different tokens."
    return "This is another word."


def _kinds(got: Any, want: Any, tolerance: float) -> str:
    if isinstance(want, Mapping) and isinstance(got, Mapping):
        if missing := [k for k in want if k not in got]:
            return f"There is no entry for {missing[0]!r}."
        if set(got) != set(want):
            return "There are entries that were not asked for."
        k = next(k for k, v in want.items() if not same(got[k], v, tolerance))
        return f"At {k!r}: {difference(got[k], want[k], tolerance)}"
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        if len(got) != len(want):
            return f"{len(want)} things are asked for, and there are {len(got)}."
        i = next((i for i, (g, w) in enumerate(zip(got, want)) if not same(g, w, tolerance)), 0)
        return f"Number {i + 1} of {len(want)} is not right: {difference(got[i], want[i], tolerance)}"
    return f"{_kind(want)} is asked for, and this is a {type(got).__name__}."


def _kind(want: Any) -> str:
    if isinstance(want, bool):
        return "True or False"
    value = numbers(want)
    if value is None:
        return {"set": "A set", "dict": "A dictionary"}.get(type(want).__name__, f"A {type(want).__name__}")
    return "A number" if value.ndim == 0 else f"A tensor or list of shape {list(value.shape)}"


def _shapes(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> str:
    shapes = f"the shape is {list(a.shape)}, and {list(b.shape)} was expected"
    if a.ndim == 2 and a.T.shape == b.shape:
        if close(a.T, b, tolerance):
            return f"Right but transposed: {shapes}."
        return f"Not right yet; and it looks transposed: {shapes}."
    if a.numel() == b.numel() and close(a.reshape(b.shape), b, tolerance):
        return f"The numbers are right, but {shapes}."
    if a.ndim and b.ndim and a.shape[1:] == b.shape[1:] and abs(a.shape[0] - b.shape[0]) == 1:
        return f"Off by one along the first axis: {shapes}."
    return f"Here {shapes}."
