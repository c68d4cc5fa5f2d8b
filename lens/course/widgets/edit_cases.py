"""What do a fact's prompts say under each editor, layer and strength of an edit?

    W ← W + s · ΔW,      s the strength: 1 is the editor's own edit, 0 the model as it is

An edit is made once for each fact, editor and place; its strengths are multiples of it.  Thin edits run side by side
as branches of one batch, an edit without factors (fine-tuning's) is applied and taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from lens.course.widgets.answers import answers
from lens.course.widgets.explorer import Words
from lens.course.widgets.relations import siblings, world_relations
from lens.data.records import check_records
from lens.edit import Change, Edit, Request
from lens.edit.branch import thin
from lens.evaluate.editors import Editor, resolve
from lens.model import LanguageModel


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt of a fact: which measure it serves, its text, and the words hoped for behind it, as token ids."""

    measure: str
    text: str
    hoped: tuple[int, ...]


@dataclass(frozen=True)
class PreparedEdit:
    """A request, its new and its true target as token ids, and its questions; the first is the request's own."""

    request: Request
    new: tuple[int, ...]
    true: tuple[int, ...]
    questions: tuple[AskedPrompt, ...]

    @classmethod
    def of(cls, lm: LanguageModel, given: Request | Mapping, neighbors: int) -> PreparedEdit:
        """Of a bare request its own prompt; of a record also its paraphrases and the first ``neighbors`` of its own.

        A true target that is not given is the word that the model says.
        """
        if isinstance(given, Request):
            request, record = given, {}
        else:
            (record,) = check_records([given])
            request = Request.from_record(record)
        new = tuple(lm.target_ids(request.target_new))
        if request.target_true is None:
            true = tuple(answers(lm, [request.text], [new], 1).ids[0].tolist())
        else:
            true = tuple(lm.target_ids(request.target_true))
        questions = [AskedPrompt("efficacy", request.text, new)]
        questions += [AskedPrompt("paraphrase", text, new) for text in record.get("paraphrase_prompts", ())]
        near = record.get("neighborhood_prompts", ())[:neighbors]
        return cls(request, new, true, (*questions, *(AskedPrompt("neighborhood", text, true) for text in near)))

    def asked(self, text: str) -> PreparedEdit:
        """The same edit, of which only this prompt of a reader's is asked."""
        if not text:
            raise ValueError("The prompt is empty: type at least one word.")
        return replace(self, questions=(AskedPrompt("free", text, self.new),))

    def among(self, lm: LanguageModel, others: Iterable[PreparedEdit], neighbors: int) -> PreparedEdit:
        """Itself; where it brings no neighbors of its own, prompts that ask the same of other subjects stand in.

        These are the ``others`` with the same prompt, then those of the prompt's relation, where it has a known one; of
        the latter the model's own word is hoped for.  One whose answer is the new target already would tell nothing.
        """
        if any(q.measure == "neighborhood" for q in self.questions):
            return self
        request, near = self.request, {}
        for one in others:
            if one.request.prompt == request.prompt and one.request.subject != request.subject:
                near[one.request.text] = one.true
        more = [text for text in siblings(request.text, world_relations(2 * neighbors + 2)) if text not in near]
        if more:
            said = answers(lm, more, [self.new] * len(more), 1).ids[:, 0].tolist()
            near |= {text: (word,) for text, word in zip(more, said)}
        kept = [AskedPrompt("neighborhood", text, true) for text, true in near.items() if true[0] != self.new[0]]
        return replace(self, questions=(*self.questions, *kept[:neighbors]))


@dataclass(frozen=True)
class Choice:
    """An editor, its step size η and the layer of its settings, where it has them, and the places to edit at.

    A place is a layer, or None (where the settings say), and a function that makes the edit there.  ``sites``: which
    it edits, where its settings name them; ``editor``: what it was made of.
    """

    name: str
    eta: float | None
    own: int | None
    places: tuple[tuple[int | None, Callable[[Request], Edit]], ...]
    sites: tuple[str, ...] | None = None
    editor: Editor = ""

    @property
    def layers(self) -> list[int | None]:
        """The layers of its places."""
        return [layer for layer, _ in self.places]


def choice(lm: LanguageModel, editor: Editor, layers: Iterable[int] | None, **options: float) -> Choice:
    """An editor at ``layers``; by default at all where an edit is one step (it has an η), else at its own place.

    ``options``: settings of it that differ from its own at these layers.
    """
    name, known, make = resolve(lm, editor)
    key = next((key for key in ("layer", "layers") if key in known), None)
    eta, own = known.get("eta"), known.get(key)
    own = own[-1] if isinstance(own, list) else own
    sites = tuple(known["sites"]) if known.get("sites") else None
    if key is None or (layers is None and eta is None):
        return Choice(name, eta, own, ((None, make),), sites, editor)
    depth, places = len(lm.layers), []
    for layer in range(depth) if layers is None else layers:
        lm.check(layer, "ff2")
        layer %= depth
        places.append((layer, resolve(lm, editor, {key: layer if key == "layer" else [layer], **options})[2]))
    return Choice(name, eta, own, tuple(places), sites, editor)


def chosen(lm: LanguageModel, one: Choice, layer: int, eta: float) -> Choice:
    """The editor of ``one`` at a layer and with a step size that a reader chooses; ``ValueError`` for what is none."""
    if one.eta is None or one.own is None:
        raise ValueError(f"The editor {one.name} takes no single step at a layer: choose shift or sgd_step.")
    if not isinstance(layer, int) or isinstance(layer, bool):
        raise ValueError(f"The layer is {layer!r}: give a whole number, such as 7.")
    if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not isfinite(eta):
        raise ValueError(f"The step size η is {eta!r}: give a number, such as 0.5.")
    return replace(choice(lm, one.editor, [layer], eta=eta), eta=eta)


def strengths(given: Iterable[float]) -> tuple[float, ...]:
    """The strengths in order, with 0; ``ValueError`` for one that is no number, and where there is no other than 0."""
    found = {0.0}
    for s in given:
        if isinstance(s, bool) or not isinstance(s, (int, float)) or not isfinite(s):
            raise ValueError(f"A strength of an edit is {s!r}: give numbers, such as 0, 0.5 and 1.")
        found.add(float(s))
    if len(found) == 1:
        raise ValueError("Every strength is 0, which edits nothing: give another, such as 1.")
    return tuple(sorted(found))


def case(lm: LanguageModel, fact: PreparedEdit, choices: Sequence[Choice], sizes: Sequence[float], k: int) -> dict:
    """The fact as plain JSON: ``before`` [questions], ``after`` [editors][places][strengths but 0][questions].

    An answer is [p of the hoped words, 1 if they are said, place of a word, its p, …], each p in 1/10 000 and, where
    several tokens are hoped for, their geometric mean.  ``layers`` [editors][places]: which layers an edit changes;
    ``notes`` [editors]: why an edit changes nothing, where that is so.
    """
    words, questions = Words(), fact.questions

    def ask(edits: Sequence[Sequence[Change]]) -> list:
        rows = [e for e in range(len(edits)) for _ in questions]
        texts, hoped = ([getattr(q, name) for q in questions] * len(edits) for name in ("text", "hoped"))
        found = answers(lm, texts, hoped, k, edits=edits if any(edits) else None, rows=rows).plain(lm, words)
        return _in_groups(found, len(questions))

    (before,) = ask([()])
    after, layers, notes = [], [], []
    for one in choices:
        edits = [make(fact.request) for _, make in one.places]
        scaled = [_scaled(edit, s) for edit in edits for s in sizes if s]
        if all(thin(lm, edit.changes) for edit in edits):
            found = ask([edit.changes for edit in scaled])
        else:
            found = []
            for edit in scaled:
                with edit:
                    found += ask([()])
        after.append(_in_groups(found, len(scaled) // len(edits)))
        layers.append([sorted({c.layer for c in edit.changes}) for edit in edits])
        notes.append(next((edit.note for edit in edits if edit.note), None))

    def said(tokens: Sequence[int]) -> str:
        if len(tokens) == 1:
            return lm.word(tokens[0]).removeprefix("·")
        # Together: a letter may be spread over several tokens.
        text = lm.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        return text.removeprefix(" ").replace(" ", "·")

    asked = {"prompt": fact.request.text, "subject": fact.request.subject}
    asked |= {"new": said(fact.new), "true": said(fact.true)}
    asked |= {"questions": [[q.measure, q.text, said(q.hoped)] for q in questions], "words": words.table}
    return asked | {"before": before, "after": after, "layers": layers, "notes": notes}


def _in_groups(some: list, size: int) -> list[list]:
    return [some[i : i + size] for i in range(0, len(some), size)]


def _scaled(edit: Edit, s: float) -> Edit:
    return replace(edit, changes=tuple(replace(change, delta=s * change.delta) for change in edit.changes))
