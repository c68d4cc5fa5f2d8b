"""Which part of the prompt is a token in?  Before, inside or after the subject, and the last token on its own.

Where an edit lands is told by segment (*Backward Lens*, section 6): prompts differ in length and wording, segments do
not.
"""

from __future__ import annotations

from lens.model import LanguageModel

SEGMENTS = ("before subject", "subject first", "subject middle", "subject last", "after subject", "last token")
"""The segments of a prompt, in reading order."""


def segments(lm: LanguageModel, prompt: str, subject: str) -> list[str]:
    """The segment of every token of ``prompt``, as ``lm.encode`` cuts it.

    A subject of one token is "subject last", one of two tokens has no middle.  The prompt's final token is always
    "last token", even where it belongs to the subject.  Raises ``ValueError`` where the subject is not in the prompt.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> segments(lm, "The capital of France is", "France")[-2:]
    ['subject last', 'last token']
    """
    inside, places = _inside(lm, prompt, subject)
    for i in inside:
        places[i] = "subject middle"
    places[inside[0]] = "subject first"
    places[inside[-1]] = "subject last"
    places[-1] = "last token"
    return places


def subject_last(lm: LanguageModel, prompt: str, subject: str) -> int:
    """The index of the subject's last token among ``lm.encode(prompt)``: the token where ROME and MEMIT write.

    Of a subject that occurs more than once the first occurrence counts.  Raises ``ValueError`` where it does not occur.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> lm.words(lm.encode("The capital of France is"))[subject_last(lm, "The capital of France is", "France")]
    '·France'
    """
    return _inside(lm, prompt, subject)[0][-1]


def _inside(lm: LanguageModel, prompt: str, subject: str) -> tuple[list[int], list[str]]:
    """The tokens inside the subject, and for every token whether it is before, inside or after it."""
    start = prompt.find(subject) if subject.strip() else -1
    if start < 0:
        raise ValueError(
            f"The subject {subject!r} does not occur in the prompt {prompt!r}: give it as it stands there."
        )
    end = start + len(subject)
    lm.encode(prompt)
    encoding = lm.tokenizer(prompt, return_offsets_mapping=True)
    places = []
    for a, b in encoding["offset_mapping"]:
        word = prompt[a:b].lstrip()
        a = b - len(word) if word else a  # a leading space belongs to its word, not to the text before
        places.append("before subject" if b <= start or not b else "after subject" if a >= end else "subject")
    return [i for i, place in enumerate(places) if place == "subject"], places
