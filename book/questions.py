"""Which questions does a chapter ask where no kernel is, and is each in order?  One cell with the tag `questions`.

    **1. The question?**

    <details><summary>An option</summary>

    **No.** Why a reader may think so, and what is the case.    (or **Right.** and the reason)

    </details>

So a notebook shows folded answers wherever it is read. `_static/questions.js` counts first choices in the page.
"""
import re
from dataclasses import dataclass

QUESTION = re.compile(r"(?ms)^\*\*\d+\. (?P<text>(?:(?!\*\*|\n\n).)+)\*\*[ \t]*$(?P<options>.*?)(?=^\*\*\d+\. |\Z)")
OPTION = re.compile(r"(?s)<details><summary>(.+?)</summary>\n\n\*\*(Right|No)\.\*\* (.+?)\n\n</details>")


@dataclass(frozen=True)
class Question:
    """A question with its options: (text, whether it is right, the reason)."""

    text: str
    options: tuple[tuple[str, bool, str], ...]


def is_questions(cell):
    return "questions" in cell.metadata.get("tags", [])


def parse(source):
    """The questions of a cell; `ValueError` says which is not in order, and how to put it right."""
    found = []
    for match in QUESTION.finditer(source):
        options = tuple((text, word == "Right", reason) for text, word, reason in OPTION.findall(match["options"]))
        if len(options) != match["options"].count("<details"):
            raise ValueError(f"the question {match['text']!r} has an option that does not read <details><summary>…"
                             "</summary>, an empty line, **Right.** or **No.** and a reason, an empty line, </details>.")
        if sum(right for _, right, _ in options) != 1 or len(options) < 2:
            raise ValueError(f"the question {match['text']!r} needs two options or more, of which one is **Right.**")
        found.append(Question(" ".join(match["text"].split()), options))
    read = sum(len(question.options) for question in found)
    if not found or read != source.count("<details"):
        raise ValueError(f"{source.count('<details') - read} options belong to no question: write **1. The question?** "
                         "alone on its line, with a full stop behind its number.")
    return found


def unfolded(source):
    """The same as a plain list, for a teacher."""
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", OPTION.sub(r"- *\1* **\2.** \3", source))
