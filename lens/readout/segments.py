"""Which part of the prompt is a token in?  Before, inside or after the subject, and the last token on its own.

Where an edit lands is told by segment (*Backward Lens*, section 6): prompts differ in length and wording, segments do
not.
"""

from __future__ import annotations

from lens.data.spelling import find
from lens.given import door, words
from lens.model import LanguageModel
from lens.model.tokens import subject_tokens

SEGMENTS = ("before subject", "subject first", "subject middle", "subject last", "after subject", "last token")
"""The segments of a prompt, in reading order."""


@door(prompt=words, subject=words)
def segments(lm: LanguageModel, prompt: str, subject: str) -> list[str]:
    """The segment of every token of ``prompt``, as ``lm.encode`` cuts it.

    A subject of one token is "subject last", one of two tokens has no middle.  The prompt's final token is always
    "last token", even where it belongs to the subject.  Of a subject that occurs more than once the first occurrence
    counts, that of the whole word if there is one.  Raises ``ValueError`` where the subject is not in the prompt.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> segments(lm, "The capital of France is", "France")[-2:]
    ['subject last', 'last token']
    """
    place = find(prompt, subject)
    ids, inside = subject_tokens(lm.tokenizer, prompt, *place) if place else ([], range(0))
    if not inside:
        raise ValueError(
            f"The subject {subject!r} does not occur in the prompt {prompt!r}: give it as it stands there."
        )
    lm.encode(ids)  # it must fit the model
    places = ["before subject"] * inside[0] + ["subject middle"] * len(inside)
    places += ["after subject"] * (len(ids) - len(places))
    places[inside[0]] = "subject first"
    places[inside[-1]] = "subject last"
    places[-1] = "last token"
    return places
