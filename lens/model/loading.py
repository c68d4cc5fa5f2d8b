"""How is a model opened?  By one name: a built-in one, a hub id, or a local folder; safely and in one sentence.

Only safetensors files are read, never pickles, and no code from a model's repository is run.  A folder that lacks its
tokenizer or some of its weights is refused: transformers would open it with an empty or random one.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

import torch

from lens.data import manifest, paths
from lens.model import LanguageModel
from lens.model.families import family_of


def load(
    name: str = "mini", device: str | torch.device | None = None, dtype: torch.dtype | str | None = None
) -> LanguageModel:
    """Open a language model: a built-in one, a Hugging Face hub id, or a local folder.

    Built in are ``mini`` and its siblings, taught the same: ``mini-s`` is smaller, ``mini-l`` larger, ``mini-llama`` a
    Llama.

    ``device``: ``None`` takes the GPU where there is one; ``"auto"`` spreads a large model over the devices there are
    (needs ``accelerate``).  ``dtype``: ``None`` keeps the checkpoint's own.  Only safetensors files are read, never
    pickles, and no code from a model's repository is run.

    Raises ``ValueError`` for an unknown family and ``OSError`` for files that are missing, damaged or out of reach;
    each says in one sentence what to do.

    >>> lm = load("mini")
    >>> lm.model.config.model_type
    'gpt2'
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    source = str(name)
    if source in paths.BUILT_IN:
        manifest.verify(source)
        source = str(paths.model(source))
    elif Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser())
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    quiet = logging.is_progress_bar_enabled()
    if Path(source).is_dir():
        logging.disable_progress_bar()  # a bar is for downloads
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        family_of(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype or "auto",
            device_map="auto" if device == "auto" else None,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        if absent := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
            raise OSError(f"its weights lack {absent[0]}")
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise OSError("it has no tokenizer")
    except Exception as error:
        if isinstance(error, ValueError) and "lens/model/families.py" in str(error):
            raise
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        first = shorten(first, 240, placeholder=" …")  # transformers 4 lists every model it knows
        raise OSError(
            f"The model {str(name)!r} could not be opened ({first.rstrip('.')}): check that the name is 'mini', a "
            "hub id with safetensors files and a network to reach it, or a folder saved with save_pretrained."
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()
    model.eval()
    return LanguageModel(model if device == "auto" else model.to(device), tokenizer, str(name))
