"""Whose answers should an edit leave alone?  Prompts that ask the same of other subjects, by the fact's relation.

The relations are the encyclopedic ones of the built-in world (``lens.data.relations()``), facts of the real one.  A
prompt belongs to the relation that has its template: the longest whose words stand before and behind the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from lens.data.world import facts, relations

Wordings = tuple[tuple[str, ...], tuple[str, ...]]
"""Templates, with ``{}`` where the subject stands, and subjects."""


@cache
def world_relations(count: int) -> tuple[Wordings, ...]:
    """The relations, each with ``count`` subjects spread evenly over those of the world.

    >>> world_relations(3)[0][0][0], world_relations(3)[0][1]
    ('The capital of {} is', ('Albania', 'Kazakhstan', 'Nigeria'))
    """
    found = []
    for relation in relations().values():
        if relation.source == "encyclopedia":
            subjects = [fact.np for fact in facts() if fact.relation == relation.name]
            templates = (t.replace("{np}", "{}").replace("{Np}", "{}") for t in relation.templates)
            spread = tuple(subjects[i * len(subjects) // count] for i in range(count))
            found.append((tuple(t.removesuffix(" {tail}.") for t in templates), spread))
    return tuple(found)


def siblings(text: str, some: Sequence[Wordings]) -> list[str]:
    """The same question about the other subjects of its relation; none where the text has no known template.

    >>> siblings("The capital of France is", world_relations(3))
    ['The capital of Albania is', 'The capital of Kazakhstan is', 'The capital of Nigeria is']
    >>> siblings("France is famous for", world_relations(3))
    []
    """
    fitting = [(template, subjects) for templates, subjects in some for template in templates if fits(template, text)]
    if not fitting:
        return []
    template, subjects = max(fitting, key=lambda one: len(one[0]))
    return [other for subject in subjects if (other := _filled(template, subject)) != text]


def fits(template: str, text: str) -> bool:
    """Is the text this template with a subject in its place?"""
    before, after = template.split("{}")
    return text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)


def _filled(template: str, subject: str) -> str:
    return template.replace("{}", subject[0].upper() + subject[1:] if template.startswith("{}") else subject)
