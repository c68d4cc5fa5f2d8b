"""How are mini's texts cut into tokens?  Byte-level BPE with GPT-2's convention: a space leads its word."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lens.data.corpus import documents
from lens.data.world import facts
from lens.results.whole import write_text

END = "<|endoftext|>"
SPECIAL = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)


def train_tokenizer(vocabulary: int, seed: int = 0) -> PreTrainedTokenizerFast:
    """Learn the merges from two epochs of documents; single-word tails weigh more, so that an answer is one token."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words: Counter[str] = Counter()
    for epoch in range(2):
        for text in documents(epoch, seed):
            words.update(word for word, _ in splitter.pre_tokenize_str(text))
    for fact in facts():
        pieces = [word for word, _ in splitter.pre_tokenize_str(" " + fact.tail)]
        if len(pieces) == 1:
            words[pieces[0]] += 100
    bpe = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((word for word, count in sorted(words.items()) for _ in range(count)), trainer)
    bpe.pre_tokenizer = splitter
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=256, **SPECIAL)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """``tokenizer.json`` and a config that transformers 4 and 5 both read (they name the class differently)."""
    write_text(out / "tokenizer.json", tokenizer.backend_tokenizer.to_str(pretty=False) + "\n")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}
    config |= {"model_max_length": tokenizer.model_max_length, "clean_up_tokenization_spaces": False}
    write_text(out / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")
