"""What does a step of ordinary training hold?  Weights, a gradient and Adam's two moments of what learns, activations.

    all weights in float32: 4 + 4 + 8 = 16 bytes a weight; with LoRA 4, and 12 for each weight of its small factors

The gradient grows while the activations go: the peak is at the backward pass's beginning or at its end.
"""

from __future__ import annotations

from lens.scale.cost.activations import NORM
from lens.scale.cost.shapes import Shape
from lens.scale.cost.steps import Found, Work, kept, loss, sites_of, weights, working


def finetune(s: Shape, w: Work) -> Found:
    """Adam on all parameters, or on chosen matrices: gradient and two moments a weight, in the model's dtype."""
    if w.layers is None and w.sites is None:
        learns, first, entry = s.parameters, 0, False
        learning = dict.fromkeys(
            range(s.layers), ({site for m in s.modules(range(s.layers)) for site in m.sites} | {NORM})
        )
    else:
        chosen = s.modules(range(s.layers) if w.layers is None else w.layers, w.sites)
        learns, learning = sum(m.weights for m in chosen), sites_of(chosen)
        first, entry = min(learning), True
    return _trained(s, w, learns, learns * w.width, first, learning, entry)


def lora(s: Shape, w: Work) -> Found:
    """Adam on factors A [d_in, r] and B [r, d_out] beside chosen matrices; x is kept for A, x A for B."""
    chosen = s.modules(range(s.layers) if w.layers is None else w.layers, w.sites)
    learns = sum(w.rank * (m.d_in + m.d_out) for m in chosen)
    phases, learns, result = _trained(s, w, learns, learns * w.width, min(m.layer for m in chosen), sites_of(chosen))
    between = w.batch * w.tokens * w.rank * len(chosen) * w.width
    for parts in phases.values():
        parts["weights"] += learns * w.width
        parts["activations"] = parts.get("activations", 0) + between
    return phases, learns, learns * w.width


def _trained(s, w, learns: int, result: int, first: int, learning, entry=True) -> Found:
    places = w.batch * w.tokens
    base = weights(s, w) | {"optimizer": 2 * learns * w.width}
    acts = kept(s, w, w.batch, w.tokens, first, learning, entry)
    standing = kept(s, w, w.batch, w.tokens, first, learning, entry, again=False)
    # The unembedding's gradient comes first, where it learns: all parameters do.
    head = s.vocabulary * s.width * w.width if learns >= s.parameters else 0
    work = working(s, w, places, any("ff2" in sites for sites in learning.values()))
    return (
        {
            "loss": base | {"activations": standing, "logits": loss(s, w, w.batch * w.scored, held=False)},
            "backward begins": base | {"gradients": head, "activations": acts, "working": work},
            "backward ends": base
            | {"gradients": learns * w.width, "activations": acts // max(1, s.layers - first), "working": work},
            "Adam": base | {"gradients": learns * w.width},
        },
        learns,
        result,
    )
