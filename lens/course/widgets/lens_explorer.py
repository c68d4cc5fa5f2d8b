"""What do all layers say at all tokens?  Logit lens and backward lens as a grid of words to walk through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from torch import Tensor

from lens.course.widgets.explorer import Explorer, Words, page
from lens.course.widgets.in_page import in_page
from lens.given import RULES, door, one_or_several
from lens.gradient import capture
from lens.model import LanguageModel
from lens.model.tokens import SPACE_LAST
from lens.readout import project
from lens.readout.lenses import Lens, backward_lens, logit_lens

STREAM = "stream"
TOKENS = 32
WORDS = 50
LAYERS = 12
NAMES = {STREAM: "residual stream h", "ff1": "FF1", "ff1_gate": "FF1 gate", "ff2": "FF2"}


def _prompts(name: str, value: object) -> object:
    pair = lambda item: isinstance(item, str) or (isinstance(item, (tuple, list)) and len(item) == 2)  # noqa: E731
    return one_or_several(name, value, "a prompt, or a pair (prompt, target)", pair)


class LensExplorer(Explorer):
    """Layers × tokens, a word in every cell; choose prompt, quantity, layer and end, or in a notebook type a prompt.

    ``prompts``: texts, or pairs (prompt, target).  ``quantities`` are what is read: ``"stream"``, the residual stream
    after each layer (``lens.logit_lens``), or a site of the model, what spans its gradient (``lens.backward_lens``;
    then every prompt needs a target).  One is shown by itself, two or more in two panels.  ``k`` words are kept from
    either end of LL.  ``layers`` are all, or about a dozen of a deep model, the last always among them.  ``color``:
    what the cells show first, the ``"size"`` of a vector or the ``"rank"`` of the target; by default of the stream
    where the target stands, of a gradient where it is large.

    Raises ``ValueError`` in one sentence for an unknown quantity, a missing target, a prompt of no tokens or of more
    than 32, and ``IndexError`` for an unknown layer.

    >>> import lens
    >>> lm = lens.load("mini")
    >>> explorer = LensExplorer(lm, [("The capital of France is", "Rome")], ("ff1", "ff2"), k=3)
    >>> explorer
    <LensExplorer: What 8 layers of mini say, 1 prompt: FF1: input x; FF2: VJP δ.>
    """

    _esm, _css = page("lens")

    @door(prompts=_prompts, k=RULES["count"])
    def __init__(
        self,
        lm: LanguageModel,
        prompts: Iterable[str | tuple[str, str | None]],
        quantities: Sequence[str] = (STREAM,),
        k: int = 10,
        layers: Iterable[int] | None = None,
        color: str | None = None,
    ):
        quantities = [quantities] if isinstance(quantities, str) else list(quantities)
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not quantities or not prompts:
            raise ValueError("There is nothing to show: give at least one prompt and one quantity.")
        for name in quantities:
            if name != STREAM and name not in lm.sites:
                raise ValueError(f"There is no quantity {name!r}: choose of {', '.join((STREAM, *lm.sites))}.")
        if not 1 <= k <= WORDS:
            raise ValueError(f"k is {k}: ask for at least 1 and at most {WORDS} words.")
        if color not in (None, "size", "rank"):
            raise ValueError(f"There is no color {color!r}: choose 'size' or 'rank'.")
        depth = len(lm.layers)
        if layers is None:
            layers = range(depth - 1, -1, -max(1, depth // LAYERS))
        layers = list(layers)
        for layer in layers:
            lm.check(layer, lm.sites[0])
        self._lm, self._quantities, self._k = lm, quantities, k
        self._layers = sorted({layer % depth for layer in layers})
        self._word = cache(lm.word)  # a few thousand words fill tens of thousands of places

        words = Words()
        cases = [self._case(*((p, None) if isinstance(p, str) else p), words) for p in prompts]
        ranked = quantities[0] == STREAM and cases[0]["first"] is not None
        state = {"model": lm.name, "color": color or ("rank" if ranked else "size"), "last": lm.vocabulary_size - 1}
        state |= {"layers": self._layers, "quantities": [_described(name) for name in quantities]}
        state |= {"target": any(name != STREAM for name in quantities), "cases": cases, "words": words.table}
        kernel = in_page("lens", lm, quantities=quantities, layers=self._layers, k=k)
        super().__init__(state | {"kernel": kernel})

    def compute(self, request: dict) -> dict:
        """A prompt and a target, as typed, read as the others were."""
        prompt, target = str(request.get("prompt", "")), str(request.get("target", ""))
        if not prompt.strip():
            raise ValueError("The prompt is empty: type at least one word.")
        words = Words()
        return self._case(prompt, target if target.strip() else None, words) | {"words": words.table}

    def summary(self) -> str:
        """What is read, of which model, for how many prompts."""
        count = len(self.state["cases"])
        read = "; ".join(q["label"] for q in self.state["quantities"])
        return (
            f"What {len(self.state['layers'])} layers of {self.state['model'] or 'the model'} say, "
            f"{count} prompt{'s' * (count != 1)}: {read}."
        )

    def _case(self, prompt: str, target: str | None, words: Words) -> dict:
        """One prompt, read: tokens [n]; for each quantity ``size`` and ``rank`` [layers, n], words [layers, n, k]."""
        lm = self._lm
        asked, goal = lm.encode(prompt), [] if target is None else lm.target_ids(target)
        sites = [name for name in self._quantities if name != STREAM]
        if sites and not goal:
            raise ValueError("A gradient needs a target: give the word that training asks for, such as 'Paris'.")
        # A target of several tokens is predicted from its own positions too.
        ids = asked + goal[:-1] if sites else asked
        if len(ids) > TOKENS:
            raise ValueError(f"This prompt has {len(ids)} tokens and the grid shows at most {TOKENS}: shorten it.")
        readings = {}
        if STREAM in self._quantities:
            seen = logit_lens(lm, ids, goal[:1] or None, self._k)
            readings[STREAM] = self._reading(seen, seen.norms, project(lm, seen.vectors, self._k, False).ids, words)
        if sites:
            trace = capture(lm, asked, goal, layers=self._layers, sites=sites)
        for site in sites:
            top, bottom = (backward_lens(lm, trace, site, self._k, largest) for largest in (True, False))
            size = top.norms
            if _described(site)["vector"] == "x":
                size = size * trace.stack(site, "delta").float().norm(dim=-1).to(size.device)
            readings[site] = self._reading(top, size, bottom.ids, words)
        notes = [SPACE_LAST] if prompt.endswith(" ") else []
        if len(goal) > 1:
            first = lm.word(goal[0])
            notes.append(f"The target is {len(goal)} tokens of this model; the rank is that of the first, {first}.")
        return {
            "prompt": prompt,
            "target": target if target is None or isinstance(target, str) else "".join(lm.words(goal)),
            "first": words(lm.word(goal[0])) if goal else None,
            "note": " ".join(notes),
            "tokens": words(lm.words(ids)),
            "readings": readings,
        }

    def _reading(self, top: Lens, size: Tensor, bottom: Tensor, words: Words) -> dict:
        rows = [top.layers.index(layer) for layer in self._layers]
        norms = top.norms[rows].tolist()

        def kept(ids: Tensor):  # a vector of length zero has no words
            return [
                [[words(self._word(i)) for i in cell] if norm else [] for cell, norm in zip(line, lengths)]
                for line, lengths in zip(ids[rows].tolist(), norms)
            ]

        return {
            "size": size[rows],
            "rank": None if top.ranks is None else top.ranks[rows],
            "probability": None if top.probabilities is None else top.probabilities[rows],
            "top": kept(top.ids),
            "bottom": kept(bottom),
        }


def _described(name: str) -> dict:
    """A quantity in words: its label, the vector's letter, what its color measures, which end is read and why."""
    label, end, top, bottom = NAMES.get(name, name.replace("attn_", "attention ")), "top", "", ""
    if name == STREAM:
        vector, measure = "h", "length ‖h‖"
    elif name in ("ff2", "attn_out"):  # it writes to the residual stream: a step subtracts δ
        label, vector, measure = f"{label}: VJP δ", "δ", "length ‖δ‖"
        end, top, bottom = "bottom", ": removed", ": added"
    else:
        label, vector, measure = f"{label}: input x", "x", "‖x‖ ‖δ‖ of the token"
    ends = {"top": f"top of LL({vector}){top}", "bottom": f"bottom of LL({vector}){bottom}"}
    return {"name": name, "label": label, "vector": vector, "measure": measure, "end": end, "ends": ends}
