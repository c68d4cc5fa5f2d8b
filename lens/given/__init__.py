"""What may a reader give, and what is said of anything else?  One table of names for every door.

A door is a public function or a command.  What it calls ``seed``, ``layer``, ``eta`` or ``out`` means the same at
every door, so the names are the rules: ``@door`` reads each argument that is given by the rule of its name, before
any work.  What the rules let pass the function itself may still refuse, in the same words.
"""

from lens.given.door import RULES, door, read
from lens.given.values import (
    address,
    named,
    number,
    one_or_several,
    passes,
    path,
    refuse,
    result_file,
    result_folder,
    result_place,
    several,
    spelled,
    whole,
    words,
)

__all__ = [
    "RULES", "address", "door", "named", "number", "one_or_several", "passes", "path", "read", "refuse", "result_file",
    "result_folder", "result_place", "several", "spelled", "whole", "words",
]  # fmt: skip
