"""What does an edit do to its own prompt, to other words for the same fact, and to its neighbors?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lens.course.widgets.answers import UNIT
from lens.course.widgets.edit_cases import PreparedEdit, case, choice, chosen, strengths
from lens.course.widgets.explorer import Explorer, numbered, page
from lens.course.widgets.in_page import in_page
from lens.course.widgets.relations import world_relations
from lens.edit import Request
from lens.evaluate.editors import Editor
from lens.given import RULES, door, several
from lens.model import LanguageModel

STRENGTHS = (0, 0.25, 0.5, 1, 1.5, 2)


class EditExplorer(Explorer):
    """Facts edited with some editors, layers and strengths: what the model answers before and after.

    ``requests``: ``lens.Request``s or CounterFact records, one or several.  A record brings its paraphrases and
    neighborhood prompts, at most ``neighbors`` of these; where there are none, prompts that ask the same of other
    subjects stand in, if the prompt has the form of a relation that is known (``relations.py``).
    ``editors``: names of ``lens.edit``, or functions ``(lm, request) -> Edit``.  ``layers``: where to edit; by default
    every layer for the editors of one step, and where their settings say for the others.  ``sizes``: multiples of an
    editor's own edit; 0, the model as it is, is always among them, and an editor with a step size η shows s·η.
    ``k``: words shown behind each prompt.

    In a running notebook a fact of one's own can be typed, and a prompt to try the edited model on.  The model is
    afterwards what it was, bit for bit.  Raises ``ValueError`` where there is no fact or no number for a strength, and
    what ``Request``, ``lens.data.records`` and the editors raise.

    >>> import lens
    >>> explorer = EditExplorer(lens.load("mini"), lens.data.records()[:2], layers=[7], sizes=[1])
    >>> [fact["new"] for fact in explorer.state["facts"]]
    ['Asia', 'Burmese']
    """

    _esm, _css = page("edit")

    @door(k=RULES["count"], sizes=lambda name, value: several(name, value, "a number", lambda item: True))
    def __init__(
        self,
        lm: LanguageModel,
        requests: Request | Mapping | Sequence[Request | Mapping],
        editors: Editor | Sequence[Editor] = ("shift",),
        layers: Iterable[int] | None = None,
        sizes: Iterable[float] = STRENGTHS,
        k: int = 4,
        neighbors: int = 4,
    ):
        given = [requests] if isinstance(requests, (Request, Mapping)) else list(requests)
        if not given:
            raise ValueError("There is no fact to edit: give at least one lens.Request or record.")
        layers = None if layers is None else list(layers)
        editors = [editors] if isinstance(editors, str) or callable(editors) else list(editors)
        self._lm, self._k, self._neighbors = lm, k, neighbors
        self._sizes = strengths(sizes)
        self._choices = [choice(lm, editor, layers) for editor in editors]
        if not self._choices:
            raise ValueError("There is no editor: name at least one, such as 'shift'.")
        alone = [PreparedEdit.of(lm, one, neighbors) for one in given]
        self._facts = [fact.among(lm, alone, neighbors) for fact in alone]
        names = [{"name": one.name, "eta": one.eta, "own": one.own, "layers": one.layers} for one in self._choices]
        facts = [case(lm, fact, self._choices, self._sizes, k) for fact in self._facts]
        super().__init__(dict(editors=names, sizes=self._sizes, unit=UNIT, facts=facts, kernel=self._in_page()))

    def compute(self, request: dict) -> dict:
        """A typed fact (``prompt``, ``subject``, ``target``) or a prepared one (``fact``, its number), edited.

        With ``free``, a typed prompt, this alone is asked of the edited models.  With ``layer`` and ``eta`` only the
        first editor (or number ``editor``) edits, there and with this step size.
        """
        lm, choices, sizes = self._lm, self._choices, self._sizes
        if "fact" in request:
            fact = numbered(self._facts, request["fact"], "fact")
        else:
            asked = Request(*(str(request.get(name, "")).strip() for name in ("prompt", "subject", "target")))
            fact = PreparedEdit.of(lm, asked, self._neighbors).among(lm, self._facts, self._neighbors)
        if "free" in request:
            fact = fact.asked(str(request["free"]).rstrip())
        if "layer" in request or "eta" in request:
            one = numbered(choices, request.get("editor", 0), "editor")
            choices, sizes = [chosen(lm, one, request.get("layer"), request.get("eta"))], (1,)
        return case(lm, fact, choices, sizes, self._k)

    def _in_page(self) -> dict | None:
        """What the page's kernel is told; None where an editor is none of those that take one step."""
        if not all(one.name in ("shift", "sgd_step") and one.eta is not None for one in self._choices):
            return None
        editors = [
            {"name": one.name, "eta": one.eta, "sites": one.sites, "layers": one.layers} for one in self._choices
        ]
        facts = [
            {
                "text": fact.request.text,
                "prompt": fact.request.prompt,
                "subject": fact.request.subject,
                "target": repr(fact.request.target_new),
                "new": fact.new,
                "true": fact.true,
                "questions": [[q.measure, q.text, q.hoped] for q in fact.questions],
            }
            for fact in self._facts
        ]
        sizes = [s for s in self._sizes if s]
        settings = {"editors": editors, "sizes": sizes, "k": self._k, "neighbors": self._neighbors, "facts": facts}
        settings["relations"] = world_relations(2 * self._neighbors + 2)
        return in_page("edit", self._lm, **settings)

    def summary(self) -> str:
        """What the explorer shows, in a sentence of plain text."""
        facts = "; ".join(f"{fact.request.text} → {fact.request.target_new}" for fact in self._facts)
        names = ", ".join(one.name for one in self._choices)
        return f"Answers before and after editing ({names}): {facts}."
