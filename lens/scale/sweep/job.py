"""What is one job of a sweep?  A function by its name, and its arguments as JSON: it means the same on every machine.

    identity = SHA-256 of the function's name, the arguments, and the version of lens

A result counts as the job's only where their identities agree.  Jobs that use a model hold its fingerprint among their
arguments, so another model is another job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pkgutil import resolve_name

from lens.given import several
from lens.results.provenance import VERSION

NAME = re.compile(r"[\w=+-][\w.=+-]{0,199}", re.ASCII)


@dataclass(frozen=True)
class Job:
    """Call ``function``, "package.module:name", with ``arguments``; the result is kept under the job's ``name``.

    The name is a file's: letters, digits and ``_ . = + -``.  ``arguments``: whatever JSON can write; the job keeps a
    copy, as it reads after the journey through JSON (tuples become lists).  What the function returns must be fit for
    JSON too.  A function with a parameter ``folder`` that ``arguments`` do not give gets a folder of its own there, for
    checkpoints and large files, in which nothing but this job writes.

    Raises ``ValueError`` for a name, function or arguments that are none.

    >>> job = Job("mean", "statistics:fmean", {"data": (2, 4)})
    >>> job.arguments, job.resolve()(**job.arguments)
    ({'data': [2, 4]}, 3.0)
    """

    name: str
    function: str
    arguments: Mapping = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            raise ValueError(f"A job's name is a file's, and got {self.name!r}: use letters, digits and _ . = + -.")
        module, _, name = self.function.partition(":") if isinstance(self.function, str) else ("", "", "")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError(f"The function of a job is {self.function!r}: name it as 'package.module:function'.")
        try:
            copy = json.loads(json.dumps(dict(self.arguments)))
            if not all(isinstance(key, str) for key in self.arguments):
                raise TypeError("an argument's name is no text")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The arguments of the job {self.name!r} are not fit for JSON ({error}): give names with numbers, "
                "texts, lists and dicts."
            ) from None
        object.__setattr__(self, "arguments", copy)

    @property
    def identity(self) -> str:
        """What decides the result, as hexadecimal digits; the name does not."""
        return sha256(json.dumps([self.function, self.arguments, VERSION], sort_keys=True).encode()).hexdigest()

    def resolve(self) -> Callable:
        """The function itself; ``ValueError`` where there is none."""
        try:
            found = resolve_name(self.function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"The function {self.function!r} of a job cannot be imported here ({error}).") from None
        if not callable(found):
            raise ValueError(f"The function {self.function!r} of a job is no function but a {type(found).__name__}.")
        return found


def check_jobs(jobs: Iterable[Job]) -> list[Job]:
    """The jobs; ``ValueError`` where one is none, or two would write the same file."""
    found = list(several("jobs", jobs, "a lens.sweep.Job", lambda item: True))
    seen: set[str] = set()
    for job in found:
        if not isinstance(job, Job):
            raise ValueError(f"Got {job!r} for a job: make it with lens.sweep.Job.")
        if job.name.casefold() in seen:  # some file systems do not tell upper from lower case
            raise ValueError(f"Two jobs have the name {job.name!r}: give each its own.")
        seen.add(job.name.casefold())
    return found
