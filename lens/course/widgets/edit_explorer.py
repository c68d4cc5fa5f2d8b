"""What does an edit do to its own prompt, to other words for the same fact, and to its neighbors?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lens.course.widgets.answers import UNIT
from lens.course.widgets.edit_cases import PreparedEdit, case, choice, strengths
from lens.course.widgets.explorer import Explorer, page
from lens.edit import Request
from lens.evaluate.editors import Editor
from lens.model import LanguageModel

STRENGTHS = (0, 0.25, 0.5, 1, 1.5, 2)


class EditExplorer(Explorer):
    """Facts edited with some editors, layers and strengths: what the model answers before and after.

    ``requests``: ``lens.Request``s or CounterFact records, one or several.  A record brings its paraphrases and
    neighborhood prompts, at most ``neighbors`` of these; where there are none, the other facts' prompts stand in.
    ``editors``: names of ``lens.edit``, or functions ``(lm, request) -> Edit``.  ``layers``: where to edit; by default
    every layer for the editors of one step, and where their settings say for the others.  ``sizes``: multiples of an
    editor's own edit; 0, the model as it is, is always among them, and an editor with a step size η shows s·η.
    ``k``: words shown behind each prompt.

    In a running notebook a fact of one's own can be typed.  The model is afterwards what it was, bit for bit.  Raises
    ``ValueError`` where there is no fact or no number for a strength, and what ``Request``, ``lens.data.records`` and
    the editors raise.

    >>> import lens
    >>> explorer = EditExplorer(lens.load("mini"), lens.data.records()[:2], layers=[7], sizes=[1])
    >>> [fact["new"] for fact in explorer.state["facts"]]
    ['Asia', 'Burmese']
    """

    _esm, _css = page("edit")

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
        editors = [editors] if isinstance(editors, str) or callable(editors) else editors
        self._lm, self._k, self._neighbors = lm, k, neighbors
        self._sizes = strengths(sizes)
        self._choices = [choice(lm, editor, layers) for editor in editors]
        if not self._choices:
            raise ValueError("There is no editor: name at least one, such as 'shift'.")
        self._facts = [PreparedEdit.of(lm, one, neighbors) for one in given]
        super().__init__(
            {
                "editors": [
                    {"name": one.name, "eta": one.eta, "own": one.own, "layers": [layer for layer, _ in one.places]}
                    for one in self._choices
                ],
                "sizes": self._sizes,
                "unit": UNIT,
                "facts": [self._case(fact) for fact in self._facts],
            }
        )

    def _case(self, fact: PreparedEdit) -> dict:
        return case(self._lm, fact.among(self._facts, self._neighbors), self._choices, self._sizes, self._k)

    def compute(self, request: dict) -> dict:
        """A typed fact: its ``prompt``, ``subject`` and ``target``."""
        asked = Request(*(str(request.get(name, "")).strip() for name in ("prompt", "subject", "target")))
        return self._case(PreparedEdit.of(self._lm, asked, self._neighbors))

    def summary(self) -> str:
        """What the explorer shows, in a sentence of plain text."""
        facts = "; ".join(f"{fact.request.text} → {fact.request.target_new}" for fact in self._facts)
        names = ", ".join(one.name for one in self._choices)
        return f"Answers before and after editing ({names}): {facts}."
