"""What is an edit asked to do?  Make one prompt about a subject continue with another target.

A request is CounterFact's: the prompt with ``{}`` where the subject stands, the subject, the target to write, and the
true one where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from unicodedata import normalize

from lens.data.spelling import continuation, find
from lens.model.tokens import as_ids

FIELDS = ("prompt", "subject", "target_new")

Target = str | tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """ "After ``prompt``, with ``subject`` in place of its ``{}``, say ``target_new``."

    ``target_true`` is what the world says, where that is known.  A prompt that names the subject instead of ``{}`` is
    taken too: ``{}`` is put where it first stands as a whole word.  A target is text, with ``##`` in front where no
    space comes before it, or token ids, which are kept as a tuple.  Text is kept composed (Unicode's NFC), so that two
    spellings of a name are one request.

    Raises ``ValueError`` in one sentence for a subject that is not in the prompt, an empty target, and a target equal
    to the true one, and ``TypeError`` for what is neither text nor ids.

    >>> Request("The capital of {} is", "France", "Rome").text
    'The capital of France is'
    >>> Request("The capital of France is", "France", "Rome").prompt
    'The capital of {} is'
    """

    prompt: str
    subject: str
    target_new: Target
    target_true: Target | None = None

    def __post_init__(self):
        for field in fields(self):
            if field.name != "target_true" or self.target_true is not None:
                object.__setattr__(self, field.name, _read(field.name, getattr(self, field.name)))
        if not self.subject.strip():
            raise ValueError("The subject of an edit is empty: give the words the fact is about, such as 'France'.")
        if "{}" not in self.prompt and (place := find(self.prompt, self.subject)):
            start, end = place
            object.__setattr__(self, "prompt", f"{self.prompt[:start]}{{}}{self.prompt[end:]}")
        if self.prompt.count("{}") != 1:
            raise ValueError(
                f"The subject {self.subject!r} has no place in the prompt {self.prompt!r}: write {{}} where it stands, "
                "once."
            )
        new, true = _said(self.target_new), _said(self.target_true)
        if not new:
            raise ValueError("The target of an edit is empty: give the word the model should say, such as 'Rome'.")
        if new == true:
            raise ValueError(
                f"The target {self.target_new!r} is the true one already, so there is nothing to edit: give another."
            )

    @property
    def text(self) -> str:
        """The prompt with its subject."""
        return self.prompt.replace("{}", self.subject)

    @classmethod
    def from_record(cls, record: Mapping) -> Request:
        """The request of a CounterFact record, or of its ``requested_rewrite`` alone.

        >>> from lens.data import records
        >>> Request.from_record(records()[0]).target_new
        'Asia'
        """
        rewrite = record.get("requested_rewrite", record)
        for name in FIELDS:
            if name not in rewrite:
                raise ValueError(f"The edit request has no field {name!r}: it needs {', '.join(FIELDS)}.")

        def text(value):
            return value["str"] if isinstance(value, Mapping) and "str" in value else value

        true = rewrite.get("target_true")
        return cls(rewrite["prompt"], rewrite["subject"], text(rewrite["target_new"]), text(true))


def _read(name: str, value) -> Target:
    if isinstance(value, str):
        return normalize("NFC", value)
    target = name.startswith("target")
    with suppress(TypeError, ValueError):
        if target:
            return tuple(as_ids(value))
    raise TypeError(f"The {name} of an edit is {value!r}: give a text{' or token ids' if target else ''}.")


def _said(target: Target | None) -> Target | None:
    return continuation(target).rstrip() if isinstance(target, str) else target


def as_requests(request: Request | Mapping | Sequence[Request | Mapping]) -> tuple[Request, ...]:
    """One request or several, each a ``Request`` or a record, as a tuple of at least one."""
    several = [request] if isinstance(request, (Request, Mapping)) else request
    if not isinstance(several, Sequence) or isinstance(several, str) or not several:
        raise TypeError(f"Expected an edit request, a record or a list of them, and got {request!r}: see lens.Request.")
    for r in several:
        if not isinstance(r, (Request, Mapping)):
            raise TypeError(f"Expected an edit request or a record, and got {r!r}: see lens.Request.")
    return tuple(r if isinstance(r, Request) else Request.from_record(r) for r in several)
