"""Which tokens are a text, and which word is a token?

Which special tokens stand around a prompt is decided here alone: those that the tokenizer puts before a text (a
beginning-of-text token, or none), unless the text spells them itself, as a chat template does; and never one behind
it, where the model would go on from the end of a text.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral

from torch import Tensor

from lens.data.spelling import continuation
from lens.given import spelled

Tokens = str | int | Sequence[int] | Tensor | Mapping
"""Text, one token id, or several: a sequence, tensor, array, or what a tokenizer returns."""

SPACE_LAST = (
    "The prompt ends in a space, which belongs to the token of the word that comes next: leave it out, or the model is "
    "asked for a word without its space."
)


def bare(tokenizer, text: str) -> list[int]:
    """The ids of a text alone; ``ValueError`` where it holds half a character, which no tokenizer can spell."""
    return tokenizer(spelled("The text", text), add_special_tokens=False, verbose=False)["input_ids"]


def start(tokenizer) -> list[int]:
    """The special tokens that this tokenizer puts before a text."""
    if not tokenizer.num_special_tokens_to_add():
        return []
    letter, around = bare(tokenizer, "a"), tokenizer("a")["input_ids"]
    places = (i for i in range(len(around)) if around[i : i + len(letter)] == letter)
    return around[: next(places, 0)]


def text_ids(tokenizer, text: str) -> list[int]:
    """The ids of a text with what stands before it."""
    first, ids = start(tokenizer), bare(tokenizer, text)
    return ids if ids[: len(first)] == first else first + ids


def prompt_ids(tokenizer, prompt: Tokens) -> list[int]:
    """``text_ids`` of a text, other ids as they are; says so where a text ends in a space."""
    if not isinstance(prompt, str):
        return as_ids(prompt)
    if prompt.endswith(" ") and prompt.strip():
        _warn(SPACE_LAST)
    return text_ids(tokenizer, prompt)


def target_ids(tokenizer, target: Tokens) -> list[int]:
    """The ids of a target, where it is text with the space that running text has before it (``continuation``)."""
    if not isinstance(target, str):
        return as_ids(target)
    text = continuation(target)
    if not text.strip():
        return []
    # Tokenized behind a letter: some tokenizers treat the beginning of a text in their own way.  A line break, where
    # the letter and the text are one token.
    for before in ("a", "\n", ""):
        head, both = bare(tokenizer, before), bare(tokenizer, before + text)
        if both[: len(head)] == head:
            break
    return both[len(head) :]


def first_token(tokenizer, target: Sequence[int]) -> int:
    """The token whose rank stands for a target's: its first; says so where that is nothing but a space."""
    if len(target) > 1 and not word(tokenizer, target[0]).strip("·"):
        _warn(
            "The first token of a target is a bare space, and the rank read is that of the space: put '##' before the "
            "target's text to leave the space out, or give the id of the token that counts."
        )
    return target[0]


def subject_tokens(tokenizer, text: str, begin: int, end: int) -> tuple[list[int], range]:
    """The ids of a text, and which of them hold a letter of ``text[begin:end]``."""
    ids = text_ids(tokenizer, text)
    if not tokenizer.is_fast:  # a tokenizer in Python does not tell where its tokens stand
        # Those that the text before and the text behind have too; a space before may be a part of the subject's first.
        before = max(_shared(ids, text_ids(tokenizer, some)) for some in (text[:begin], text[:begin].rstrip()))
        behind = _shared(ids[::-1], bare(tokenizer, text[end:])[::-1])
        return ids, range(before, len(ids) - behind)
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    inside = []
    for i, (a, b) in enumerate(places, len(ids) - len(places)):
        letters = text[a:b].lstrip()
        a = b - len(letters) if letters else a  # a leading space belongs to its word, not to the text before
        if b > begin and a < end:
            inside.append(i)
    return ids, range(inside[0], inside[-1] + 1) if inside else range(0)


def _shared(some: Sequence[int], other: Sequence[int]) -> int:
    """How many ids the two begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(some, other)) if a != b), min(len(some), len(other)))


def word(tokenizer, token: int) -> str:
    """A token as people read it: ``·`` for a leading space, ``\\n`` and ``\\xc3`` for what cannot be seen.

    A row of E that has no word shows its id, ``[6150]``.
    """
    piece = tokenizer.convert_ids_to_tokens(token)
    if not piece or (piece == tokenizer.unk_token and token != tokenizer.unk_token_id):
        return f"[{token}]"
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    text = _bytes(piece).decode("utf-8", "backslashreplace") if "\ufffd" in text else text or piece
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text.removeprefix("▁")  # sentencepiece drops the space of a text's first word
    lead = len(text) - len(text.lstrip(" "))
    return "·" * lead + text[lead:].replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def _bytes(piece: str) -> bytes:
    """The bytes of a piece that is no whole character: sentencepiece writes ``<0xC3>``, GPT-2's kind ``Ã``."""
    if one := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
        return bytes.fromhex(one[1])
    return b"".join(_letters()[c] if c in _letters() else c.encode() for c in piece)


@cache
def _letters() -> dict[str, bytes]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: bytes([byte]) for byte, letter in bytes_to_unicode().items()}


def plain(given):
    """Tensors, arrays and a tokenizer's dictionary as ints and lists, without the padding that a mask marks."""
    if isinstance(given, Mapping):
        if "input_ids" not in given:
            raise TypeError(f"Expected token ids, and got a dictionary of {list(given)!r:.80}: give it input_ids.")
        ids, mask = plain(given["input_ids"]), plain(given.get("attention_mask"))
        if mask is None:
            return ids
        rows = [ids] if is_one(ids) else ids
        rows = [[i for i, real in zip(*row) if real] for row in zip(rows, [mask] if is_one(mask) else mask)]
        return rows[0] if is_one(ids) else rows
    return given.tolist() if hasattr(given, "tolist") else given


def is_one(given) -> bool:
    """Is it one text, id or row of ids, and not several?"""
    if isinstance(given, (str, Integral)) or not isinstance(given, Sequence):
        return True
    return len(given) > 0 and isinstance(plain(given[0]), (Integral, float))


def as_ids(tokens: Tokens) -> list[int]:
    """The ids of one row, in whatever form."""
    ids = plain(tokens)
    if isinstance(ids, (bytes, bytearray)):
        raise TypeError(f"Expected text or token ids, and got the bytes {ids!r:.40}: decode them, .decode('utf-8').")
    if not isinstance(ids, Sequence) or isinstance(ids, str):
        ids = [ids]
    ids = [plain(i) for i in ids]
    rows = [row for row in ids if isinstance(row, list)]
    if len(rows) > 1:
        raise ValueError(f"Expected one row of token ids, and got {len(rows)}: pass them one at a time.")
    ids = rows[0] if rows and len(ids) == 1 else ids
    if any(isinstance(i, list) for i in ids):
        raise ValueError("Expected one row of token ids, and got rows within a row: pass them one at a time.")
    if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in ids):
        raise TypeError(
            f"Expected text or whole-number token ids, and got {ids[:3]!r}: pass a string or a list of ints."
        )
    return [int(i) for i in ids]


def _warn(sentence: str) -> None:
    """Warn whoever called ``lens`` (torch's decorators stand in between)."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("lens", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, stacklevel=level)
