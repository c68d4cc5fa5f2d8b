"""Which weights make up a subnetwork, and what does the model say without them?"""

from __future__ import annotations

from collections.abc import Mapping

from lens.course.widgets.answers import UNIT
from lens.course.widgets.explorer import Explorer, numbered, page
from lens.course.widgets.in_page import digests, in_page
from lens.course.widgets.mask_cases import AskedFact, but_for_head, densities, heads, parts, questions, said, typed
from lens.course.widgets.named_masks import Masks, Named, named
from lens.data import Knowledge, knowledge, target_kgs
from lens.given import RULES, door
from lens.model import LanguageModel


class MaskExplorer(Explorer):
    """Subnetworks by TargetKG and seed: their density by layer, site and head, and what the model says without them.

    ``subnetworks``: one, a list, or a dict by (TargetKG, seed); files may stand in their place.  ``kgs``: the facts to
    ask for, by TargetKG, where it is none of the built-in ones.  ``k``: words shown behind each prompt.  Prompts are
    answered without the whole subnetwork, without each layer's part of it, without each site's, and with each layer's
    part given back.  In a running notebook a prompt of one's own can be typed, and a head's part given back.

    The model is afterwards what it was, bit for bit.  Raises ``ValueError`` for another model than the subnetworks',
    and for a TargetKG whose facts are not known, and what ``load`` raises.

    >>> import lens
    >>> explorer = MaskExplorer(lens.load("mini"), lens.mask.shipped("building"))
    >>> explorer.state["masks"][0]["questions"][0][0]
    'target'
    """

    _esm, _css = page("mask")

    @door(k=RULES["count"])
    def __init__(self, lm: LanguageModel, subnetworks: Masks, kgs: Mapping[str, Knowledge] | None = None, k: int = 4):
        self._lm, self._k = lm, k
        self._masks = named(subnetworks)
        for one in self._masks:
            one.subnetwork.check(lm)
        groups = dict.fromkeys(one.group for one in self._masks)
        by_group = {group: questions(lm, _facts(group, kgs or {})) for group in groups}
        self._asked = [by_group[one.group] for one in self._masks]
        masks = [self._mask(one, asked) for one, asked in zip(self._masks, self._asked)]
        asked = [[[q.of, q.text, q.token] for q in some] for some in self._asked]
        kernel = in_page("mask", lm, masks=digests(one.subnetwork for one in self._masks), asked=asked, k=k)
        super().__init__({"masks": masks, "unit": UNIT, "kernel": kernel})

    def _mask(self, one: Named, asked: tuple[AskedFact, ...]) -> dict:
        names = {"group": one.group, "label": one.label}
        return names | densities(one.subnetwork) | said(self._lm, asked, parts(one.subnetwork), self._k)

    def compute(self, request: dict) -> dict:
        """A typed ``prompt``, answered with and without the parts of subnetwork number ``mask``, and all but each head.

        With ``layer`` in the prompt's place, the prepared prompts, without all of it but each head of this layer.
        """
        number, prompt = request.get("mask"), str(request.get("prompt", "")).rstrip()
        one = numbered(self._masks, number, "subnetwork").subnetwork
        found, known = {"mask": number}, heads(one)
        if "layer" in request:
            layer = request["layer"]
            if not isinstance(layer, int) or isinstance(layer, bool) or layer not in known:
                has = ", ".join(map(str, known)) or "none"
                raise ValueError(f"Layer {layer!r} has no heads in this subnetwork; those that have: {has}.")
            asked, removed = self._asked[number], []
            found["layer"], known = layer, {layer: known[layer]}
        else:
            asked, removed = [AskedFact("typed", *typed(self._lm, prompt))], parts(one)
        removed += [but_for_head(one, layer, head) for layer, count in known.items() for head in range(count)]
        return found | said(self._lm, asked, removed, self._k)

    def summary(self) -> str:
        """What the explorer shows, in a sentence of plain text."""
        sizes = ", ".join(f"{one} ({100 * one.subnetwork.density():.2f} %)" for one in self._masks)
        return f"Subnetworks, their share of the maskable weights, and answers without them: {sizes}."


def _facts(group: str, kgs: Mapping[str, Knowledge]) -> Knowledge:
    if group not in kgs and group not in target_kgs(every=True):
        raise ValueError(
            f"The facts of {group!r} are not known: give kgs={{{group!r}: lens.data.knowledge(…)}}, "
            f"or name the subnetwork by a built-in TargetKG ({', '.join(target_kgs(every=True))})."
        )
    return kgs[group] if group in kgs else knowledge(group)
