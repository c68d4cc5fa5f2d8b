"""What is to be removed, and what must stay?  A TargetKG with its controls, in words, split for training and for test.

    target    facts to remove, in the phrasings a mask trains on;     unseen         the same facts in other phrasings
    control   facts of the same source that share neither head nor    control_held_out   such facts it never trains on
              tail with a target, to keep
    text      ordinary text, to keep                                  text_held_out  such text it never trains on

A mask that hides one sentence has not removed a fact: each target fact is trained on in several phrasings and measured
in two that the model was taught with but the mask never saw, and in those that neither of them saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from lens.data.prose import paragraphs
from lens.data.released import load_prompts, name_of
from lens.data.spelling import one_name
from lens.data.text import heldout, passages
from lens.data.world import Fact, Prompt, facts, prompts
from lens.given import several
from lens.results.display import Grid, Shown

UNSEEN = 2
"""Taught phrasings of a target fact that no mask trains on, where it has so many beside its first."""

HELD_OUT = 4
"""Every so-manieth control fact is held out, and every so-manieth paragraph of a text that is given."""

TEXT_SEED = 1 << 21
"""The prose generator's seed for ControlLM: beyond every epoch's of the model's training and the held-out text's."""

CAPITALS = "capitals"
"""A TargetKG of the encyclopedia, for pretrained models, which know it well: the capitals of Europe's countries."""

Prompts = str | Path | Iterable[Prompt]
"""Prompts, or the file that holds them."""


@dataclass(frozen=True, repr=False)
class Knowledge(Shown):
    """The sets of one removal, named as its TargetKG.  Prompts say facts; texts are paragraphs.

    >>> kg = knowledge("building")
    >>> kg.unseen[0].fact in {prompt.fact for prompt in kg.target}, kg.unseen[0] in kg.target
    (True, False)
    """

    name: str
    target: tuple[Prompt, ...]
    unseen: tuple[Prompt, ...]
    control: tuple[Prompt, ...]
    control_held_out: tuple[Prompt, ...]
    text: tuple[str, ...]
    text_held_out: tuple[str, ...]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(some)}" for name, some in self._sets().items())
        return f"Knowledge({self.name!r}: {counts})"

    def _sets(self) -> dict[str, tuple]:
        return {f.name: getattr(self, f.name) for f in fields(self)[1:]}

    def _grid(self) -> Grid:
        rows = [
            [name, str(len(some)), (some[0] if isinstance(some[0], str) else f"{some[0].text} → {some[0].target}")]
            for name, some in self._sets().items()
            if some
        ]
        return Grid(("set", "how many", "the first"), rows)


@cache
def target_kgs(every: bool = False) -> tuple[str, ...]:
    """The names of the paper's TargetKGs: seven of WordNet's hypernyms, three of ConceptNet; ``every``: of all.

    >>> len(target_kgs()), target_kgs()[0], target_kgs(every=True)[-1]
    (10, 'building', 'capitals')
    """
    names = dict.fromkeys(fact.topic for fact in facts() if fact.role == "target")
    return (*names, CAPITALS) if every else tuple(names)


def knowledge(
    target: Prompts = "building",
    *,
    unseen: Prompts | None = None,
    control: Prompts | None = None,
    control_held_out: Prompts | None = None,
    text: Sequence[str] | None = None,
    text_held_out: Sequence[str] | None = None,
    model: str | None = None,
) -> Knowledge:
    """A TargetKG with its controls: a built-in one by name, a released JSON file, or your own prompts (``verbalize``).

    What is not given is chosen.  ``unseen``: of each fact's phrasings at most two, but never its first, and those that
    the model was not taught; what the target says is left out.  ``control``: the built-in triplets of the target's
    source (beside Europe's capitals the other capitals; for your own and released targets, of WordNet and ConceptNet).
    ``control_held_out``: a fourth of the control's facts.  Control facts that share a head or tail with a target are
    left out.  ``text``: generated prose, as the built-in model read; for a public model give other text, such as
    ``wikitext()``.  ``text_held_out``: a fourth of a text that is given.  ``model``: whose wording is read from files
    (``load_prompts``).

    Raises ``ValueError`` for a name that is none and where a set remains empty, and what ``load_prompts`` raises.

    >>> kg = knowledge("building")
    >>> kg.target[0].text, kg.target[0].target
    ('We may think of a structure as a type of', 'artifact')
    """
    name, prompts_given = _target(target, model)
    seen, rest = _split(prompts_given) if unseen is None else (prompts_given, _read(unseen, model))
    rest = _without(seen, rest)
    targets = [prompt.fact for prompt in (*seen, *rest)]
    pool = _apart(_beside(target, targets) if control is None else _read(control, model), targets)
    if control_held_out is None:
        held_out = [p for p in pool if not _draw(p.fact) % HELD_OUT]
    else:
        held_out = _apart(_read(control_held_out, model), targets)
    out = {p.fact for p in held_out}
    kept = [p for p in pool if p.fact not in out]
    if not kept:
        raise ValueError(f"No control fact is left for {name}: give control facts with other heads and other tails.")
    return Knowledge(name, *map(tuple, (seen, rest, kept, _without(kept, held_out), *_texts(text, text_held_out))))


def disjoint(pool: Iterable[Fact], targets: Iterable[Fact]) -> list[Fact]:
    """The facts of ``pool`` that share neither head nor tail with a target, in whatever spelling: a ControlKG."""
    targets = list(targets)
    heads, tails = {one_name(fact.head) for fact in targets}, {one_name(fact.tail) for fact in targets}
    return [fact for fact in pool if one_name(fact.head) not in heads and one_name(fact.tail) not in tails]


def _target(target: Prompts, model: str | None) -> tuple[str, list[Prompt]]:
    """A name for the target, and all its prompts."""
    if isinstance(target, str) and target in target_kgs(every=True):
        return target, [p for f in facts() if _belongs(f, target) for p in prompts(f)]
    if isinstance(target, (str, Path)):
        path = Path(target)
        if path.suffix != ".json" and not path.is_file():
            names = ", ".join(target_kgs(every=True))
            raise ValueError(f"There is no TargetKG {str(target)!r}: choose one of {names}, or give a JSON file.")
        return name_of(path), _read(path, model)
    found = _read(target, model)
    if not found:
        raise ValueError("The target has no prompts: give at least one.")
    return " and ".join(dict.fromkeys(prompt.fact.topic for prompt in found)), found


def _belongs(fact: Fact, target: str) -> bool:
    """Is this fact one of the built-in ``target``?"""
    if target == CAPITALS:
        return fact.relation == "capital" and fact.head in _europe()
    return fact.topic == target and fact.role == "target"


@cache
def _europe() -> frozenset[str]:
    return frozenset(fact.head for fact in facts() if fact.relation == "continent" and fact.tail == "Europe")


def _read(given: Prompts, model: str | None) -> list[Prompt]:
    if isinstance(given, (str, Path)):
        given = load_prompts(given, model)
    found = list(dict.fromkeys(several("a list of prompts", given, "a lens.data.Prompt", lambda item: True)))
    for one in found:
        if not isinstance(one, Prompt):
            raise ValueError(f"Got {one!r} for a prompt: make prompts of triplets with lens.data.verbalize.")
    return found


def _split(found: Iterable[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The phrasings a mask trains on, and those it never sees; a fact's first is always trained on."""
    phrasings: dict[Fact, list[Prompt]] = {}
    for prompt in found:
        phrasings.setdefault(prompt.fact, []).append(prompt)
    seen, unseen = [], []
    for fact, some in phrasings.items():
        first, *others = [p for p in some if not p.held_out] or some
        Random(_draw(fact)).shuffle(others)
        unseen += others[:UNSEEN] + [p for p in some if p.held_out and p is not first]
        seen += [*others[UNSEEN:], first]
    return seen, unseen


def _without(trained: Iterable[Prompt], found: Iterable[Prompt]) -> list[Prompt]:
    """Each prompt that is not trained on, once: two facts may differ in the tail alone, or be said alike."""
    texts = {prompt.text for prompt in trained}
    return list({p.sentence: p for p in found if p.text not in texts}.values())


def _draw(fact: Fact) -> int:
    """A number that follows from the fact alone, so that a control fact is held out for every TargetKG or for none."""
    return int.from_bytes(sha256(f"{fact.relation}|{fact.head}|{fact.tail}".encode()).digest()[:4], "big")


def _beside(target: Prompts, targets: Iterable[Fact]) -> Iterable[Prompt]:
    """The built-in prompts among which controls are chosen: of all capitals, or of the target's sources."""
    if target == CAPITALS:
        return [prompt for fact in facts() if fact.relation == "capital" for prompt in prompts(fact)]
    return _graph(frozenset(fact.source for fact in targets))


@cache
def _graph(sources: frozenset[str]) -> tuple[Prompt, ...]:
    """Every prompt of the built-in facts of these sources; where the world has none of them, of both graphs."""
    known = sources & {fact.source for fact in facts()} or {"wordnet", "conceptnet"}
    return tuple(prompt for fact in facts() if fact.source in known for prompt in prompts(fact))


def _apart(pool: Iterable[Prompt], targets: Iterable[Fact]) -> list[Prompt]:
    allowed = set(disjoint(dict.fromkeys(prompt.fact for prompt in pool), targets))
    return [prompt for prompt in pool if prompt.fact in allowed]


def _texts(text: Sequence[str] | None, held_out: Sequence[str] | None) -> tuple[Sequence[str], Sequence[str]]:
    for name, given in (("text", text), ("text_held_out", held_out)):
        if isinstance(given, str):
            raise ValueError(f"{name} is one text: give a list of paragraphs.")
    if text is not None:
        text = list(dict.fromkeys(several("text", list(text), "a text", lambda t: isinstance(t, str))))
        held_out = text[::HELD_OUT] if held_out is None else held_out
        text = [t for t in text if t not in set(held_out)]
    text, held_out = _prose() if text is None else text, _unread() if held_out is None else held_out
    for name, given in (("text", text), ("text_held_out", held_out)):
        if not given:
            raise ValueError(f"{name} remains empty: give at least two different paragraphs, or leave both out.")
    return text, held_out


@cache
def _prose() -> tuple[str, ...]:
    return tuple(paragraphs(seed=TEXT_SEED, count=400))


def _unread() -> list[str]:
    """The held-out text that is generated; the passages written by hand are of another kind."""
    written = set(passages())
    return [text for text in heldout() if text not in written]
