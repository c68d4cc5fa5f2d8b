"""What does a step of mask training hold?  ``lens.mask.train``'s, and the published formulation's.

For N masked weights of a float32 model, in bytes a weight:

    scores 4, Adam's two moments 8                                         always
    W ∘ (1 − m), a sample                                          4       while passes use it
    its gradient                                                   4       from the first pass's end
    the scores' gradient                                           4       in exchange for sample and gradient

so 20 at the peak, and 16 in bfloat16, where sample and gradient are 2 each.  Passes come one after another, so that
only one pass's activations are there at a time.
"""

from __future__ import annotations

from dataclasses import replace

from lens.scale.cost.activations import FULL
from lens.scale.cost.shapes import Shape
from lens.scale.cost.steps import Found, Parts, Phases, Work, chunk, kept, sites_of, weights, working


def mask(s: Shape, w: Work) -> Found:
    """One step of ``lens.mask.train``, with scores for ``config``'s layers and sites."""
    c = w.config
    w = replace(w, checkpointing=w.checkpointing or c.checkpointing)
    modules = s.modules(c.layers, c.sites)
    inside, largest = sum(m.inside for m in modules), max(m.weights for m in modules)
    first, learning = min(m.layer for m in modules), sites_of(modules)
    neuron = c.granularity == "neuron"
    # One score a stored weight, whether its site is masked or not; or one an input row and site.
    scores = sum(m.d_in * len(m.sites) if neuron else m.weights for m in modules)
    sampled = sum(m.weights for m in modules) * w.width
    bits = sum(m.d_in * len(m.sites) for m in modules) if neuron else inside
    base = weights(s, w) | {
        "scores": FULL * scores,
        "optimizer": 2 * FULL * scores,
        "packed mask": bits // 8,
        "kept rows": _rows(s, w),
    }
    phases: Phases = {}
    drawn = 0  # samples so far, each with its gradient once its pass is over
    for name, losses, fresh in _passes(c):
        rows, tokens, scored, buffered = _size(s, w, losses)
        places = rows * tokens
        drawn += fresh
        held: Parts = base | {"sampled weights": drawn * sampled}
        done = (drawn - fresh) * sampled
        acts = kept(s, w, rows, tokens, first, learning)
        standing = kept(s, w, rows, tokens, first, learning, again=False)
        moving = places * s.width * w.width  # h, as it enters the first masked layer
        slopes = scored * 2 * s.width * w.width  # ln_f's rows, and ∂loss/∂ of each
        gradient = max(done, 0 if fresh else sampled)
        phases[f"{name}: loss"] = held | {
            "gradients": gradient,
            "activations": standing + 2 * moving + slopes,
            "logits": buffered,
        }
        phases[f"{name}: backward begins"] = held | {
            "gradients": gradient + (largest * w.width if fresh else 0),
            "activations": acts + moving + slopes,
            "working": max(working(s, w, places, True), 0 if fresh else largest * w.width),
        }
        phases[f"{name}: backward ends"] = held | {
            "gradients": done + sampled if fresh else sampled,
            "activations": acts // (s.layers - first) + moving + slopes,
            "working": working(s, w, places, True),
        }
    both = base | {"sampled weights": drawn * sampled, "gradients": drawn * sampled}
    phases["to the scores"] = both | {"working": largest * (2 * w.width if neuron else FULL)}
    phases["Adam"] = base | {"gradients": FULL * scores}
    return phases, inside, bits // 8


def _passes(c) -> list[tuple[str, tuple[str, ...], int]]:
    """(name, losses, 1 where the pass draws a sample of its own), as ``Objective.backward`` takes them."""
    passes = [("suppress",), ("maintain_kg",)]
    passes = [passes[0] + passes[1]] if c.samples == "shared" else passes
    wanted = [tuple(name for name in one if getattr(c, name)) for one in (*passes, ("maintain_lm",), ("express",))]
    found, seen = [], set()
    for i, losses in enumerate(one for one in wanted):
        if losses:
            key = (0 if c.samples == "shared" else i), losses == ("express",)
            found.append((" and ".join(losses), losses, int(key not in seen)))
            seen.add(key)
    return found


def _size(s: Shape, w: Work, losses: tuple[str, ...]) -> tuple[int, int, int, int]:
    """Rows, tokens and scored places of a pass, and the bytes of its logits."""
    c = w.config
    if losses == ("maintain_lm",):
        scored = c.texts * (c.tokens - 1)
        return c.texts, c.tokens, scored, chunk(s, w, scored, 2)
    sizes = {"suppress": c.targets, "maintain_kg": c.controls, "express": c.targets}
    rows = sum(sizes[name] for name in losses)
    each = [chunk(s, w, sizes[n] * w.scored, 2 if n == "maintain_kg" else 1) for n in losses]  # one after the other
    return rows, w.tokens, rows * w.scored, max(each)


def _rows(s: Shape, w: Work) -> int:
    """h at the first masked layer, and ln_f's output where a prediction counts, of every row and of a step's."""
    c = w.config
    step = c.targets, c.controls, c.texts
    lengths = (w.tokens, w.scored), (w.tokens, w.scored), (c.tokens, c.tokens - 1)
    return sum((n + k) * (t + p) for n, k, (t, p) in zip(w.rows, step, lengths)) * s.width * w.width


def published(s: Shape, w: Work) -> Found:
    """Three samples drawn element by element; autograd keeps σ and W ∘ (1 − m) of each, all logits, all passes.

    Everything is kept until one backward pass at the end.  In the mean density σ(l) is kept once more.
    """
    c = w.config
    modules = s.modules(c.layers, c.sites)
    masked, largest = sum(m.weights for m in modules), max(m.weights for m in modules)
    first, learning = min(m.layer for m in modules), sites_of(modules)
    sizes = [(c.targets, w.tokens, w.scored, 0), (c.controls, w.tokens, w.scored, 1)]
    sizes.append((c.texts, c.tokens, c.tokens - 1, 1))
    number = s.vocabulary * w.width
    base = weights(s, w) | {
        "scores": FULL * masked,
        "optimizer": 2 * FULL * masked,
        "kept rows": sum((n + k) * t + n * p for n, (k, t, p, _) in zip(w.rows, sizes)) * s.width * w.width,
    }
    acts = logits = 0
    phases: Phases = {}
    for i, (rows, tokens, scored, reference) in enumerate(sizes):
        acts += kept(s, w, rows, tokens, first, learning)
        # All logits of the pass, those of the places, log p (and log q); or log p, log q, q, a difference, a product.
        most = max(rows * tokens + (2 + reference) * rows * scored, (1 + 4 * reference) * rows * scored)
        phases[f"loss {i + 1}"] = base | {
            "sampled weights": (i + 1) * 2 * FULL * masked,
            "activations": acts,
            "logits": logits + most * number,
        }
        logits += rows * scored * number * (1 + reference)  # log p stays; and q, where there is one
        # On the way back the chosen places' gradient is put among zeros for all logits, and copied.
        phases[f"backward of loss {i + 1}"] = base | {
            "sampled weights": (i + 1) * 2 * FULL * masked,
            "gradients": FULL * masked,
            "activations": acts,
            "logits": logits + 2 * rows * tokens * number,
        }
    last = rows * scored * number
    return (
        phases
        | {
            "backward begins": base
            | {
                "sampled weights": (3 * 2 + 1) * FULL * masked,  # and σ(l) of the mean density
                "activations": acts,
                "logits": logits + last,  # the gradient of the last
            },
            "backward ends": base | {"gradients": FULL * (masked + 2 * largest), "activations": acts // 3},
            "Adam": weights(s, w)
            | {"scores": FULL * masked, "optimizer": 2 * FULL * masked, "gradients": FULL * masked},
        },
        sum(m.inside for m in modules),
        sum(m.inside for m in modules) // 8,
    )
