"""What is this book about, in ten seconds?  A prompt, a new answer, and three steps: read, write, ask again."""

from __future__ import annotations

from collections.abc import Iterable

from lens.course.widgets.edit_explorer import EditExplorer
from lens.course.widgets.explorer import Explorer, page
from lens.course.widgets.lens_explorer import LensExplorer
from lens.edit import Request, settings
from lens.model import LanguageModel

FACTS = (
    Request("The capital of {} is", "France", "Rome", "Paris"),
    Request("The capital of {} is", "Japan", "Lima", "Tokyo"),
    Request("The capital of {} is", "Spain", "Oslo", "Madrid"),
)
"""What the model may be taught; of each the others are neighbors, facts of the same relation that should stay."""

EDITOR = "sgd_step"
ETAS = (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
"""The step sizes η to choose among: from one that changes little to one that breaks the neighbors."""


class FirstExplorer(Explorer):
    """The landing page's explorer: what the gradient says at every layer and token, and what the model says after.

    The grid shows the words that a step adds, the bottom of LL(δ) of FF2; the step changes FF2's matrix in one layer.

    >>> import lens
    >>> FirstExplorer(lens.load("mini"))
    <FirstExplorer: Teach mini a new answer, The capital of France is → Rome: read the gradient, write it, ask again.>
    """

    _esm, _css = page("first")

    def __init__(self, lm: LanguageModel, facts: Iterable[Request] = FACTS):
        self._lm, facts = lm, list(facts)
        self._lens = LensExplorer(lm, [(fact.text, fact.target_new) for fact in facts], "ff2", 6)
        eta = settings(lm, EDITOR)["eta"]
        near = len(facts) - 1
        self._edit = EditExplorer(lm, facts, EDITOR, sizes=[size / eta for size in ETAS], k=3, neighbors=near)
        kernel = self._lens.state["kernel"] and self._edit.state["kernel"] and {"model": lm.name}
        super().__init__({"model": lm.name, "lens": self._lens.state, "edit": self._edit.state, "kernel": kernel})

    def compute(self, request: dict) -> dict:
        """What the lens or the edit explorer answers, whichever the request is ``to``."""
        return (self._edit if request.get("to") == "edit" else self._lens).compute(request)

    def summary(self) -> str:
        """What is taught, in a sentence of plain text."""
        case = self.state["lens"]["cases"][0]
        taught = f"{case['prompt']} → {case['target']}"
        return f"Teach {self.state['model']} a new answer, {taught}: read the gradient, write it, ask again."
