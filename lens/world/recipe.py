"""What decides the built-in models?  Everything in one record each: mini, its twin, smaller, larger, and a Llama.

They read the same world in the same order with the same tokenizer; only their shapes and rates differ, so that a
difference between what is found in them is a difference of size or of architecture.  The twin differs from mini in
what it was never told: every second TargetKG.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a built-in model becomes; the defaults are mini's."""

    vocabulary: int = 6144
    layers: int = 8
    heads: int = 6
    width: int = 192
    context: int = 256
    row: int = 128  # tokens in a training row
    batch: int = 16  # rows in a step
    steps: int = 3000
    warmup: int = 150
    lr: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    architecture: str = "gpt2"  # or "llama", whose gated MLP has as many weights as GPT-2's
    without: tuple[str, ...] = ()  # TargetKGs whose facts the corpus never says


RECIPES = {
    "mini": Recipe(),
    "mini-twin": Recipe(without=("building", "communication", "magnitude", "statement", "sun")),
    "mini-s": Recipe(layers=6, heads=4, width=128, lr=3e-3),
    "mini-l": Recipe(layers=10, heads=8, width=256, lr=1.5e-3),
    "mini-llama": Recipe(architecture="llama"),
}
"""What ``python -m lens mini train --name`` can make; ``lens.data.paths.BUILT_IN`` says which of them ship."""


def record(recipe: Recipe) -> dict:
    """The recipe as ``recipe.json`` holds it; ``without`` stands there only where something was left out."""
    return {name: value for name, value in asdict(recipe).items() if value != ()}


def new_model(recipe: Recipe):
    """A model of the recipe's shape with freshly drawn weights."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    shared = dict(vocab_size=recipe.vocabulary, bos_token_id=0, eos_token_id=0)
    if recipe.architecture == "gpt2":
        shared |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        size = dict(n_positions=recipe.context, n_embd=recipe.width, n_layer=recipe.layers, n_head=recipe.heads)
        return GPT2LMHeadModel(GPT2Config(**size, **shared))
    if recipe.architecture == "llama":
        inner = recipe.width * 8 // 3  # three matrices of 8/3 d² weights, as two of 4 d²
        size = dict(max_position_embeddings=recipe.context, hidden_size=recipe.width, intermediate_size=inner)
        size |= dict(num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, tie_word_embeddings=True)
        return LlamaForCausalLM(LlamaConfig(**size, **shared))
    raise ValueError(f"There is no architecture {recipe.architecture!r}: choose 'gpt2' or 'llama'.")
