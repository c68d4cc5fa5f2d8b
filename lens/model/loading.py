"""How is a model opened?  By one name: a built-in one, a fetched one, a hub id, a local folder or GGUF file; safely.

Only safetensors files are read, never pickles, and no code from a model's repository is run.  A folder that lacks its
tokenizer or some of its weights is refused: transformers would open it with an empty or random one.  A model that
transformers has opened already is taken as it is, if it passes the same checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import torch
from torch import nn

from lens.data import manifest, paths
from lens.given import door
from lens.model import gguf, pretrained, soundness
from lens.model.families import family_of
from lens.model.language_model import LanguageModel


@door
def load(
    name: str | Path | nn.Module = "mini",
    tokenizer=None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> LanguageModel:
    """Open a language model: a named one, a Hugging Face hub id, a local folder or GGUF file, or one loaded already.

    Built in are ``mini`` and its siblings: ``mini-s`` is smaller, ``mini-l`` larger, ``mini-llama`` a Llama;
    ``mini-twin`` was never taught half of the topics.  ``smollm2-135m`` is a real pretrained model, to be fetched once
    with ``python -m lens model get``; so are the siblings where ``lens`` was installed from a wheel.

    ``device``: ``None`` takes the GPU where there is one; ``"auto"`` spreads a large model over the devices there are
    (needs ``accelerate``).  ``dtype``: ``None`` keeps the checkpoint's own.  ``revision``: a branch, tag or commit of a
    hub id.  Only safetensors files are read, never pickles, and no code from a model's repository is run.

    ``load(model, tokenizer)`` takes a loaded model of transformers as it is, and moves it only where a ``device`` is
    given.

    Raises ``ValueError`` for an unknown family, a quantized or adapted model, weights that are NaN, and logits that
    ``lens`` would misread, ``OSError`` for files that are missing, damaged or out of reach, and ``TypeError`` for what
    is no causal language model or lacks its tokenizer; each says in one sentence what to do.

    >>> lm = load("mini")
    >>> lm.model.config.model_type
    'gpt2'
    >>> load(lm.model, lm.tokenizer).model is lm.model
    True
    """
    if isinstance(name, nn.Module):
        lm = _taken(name, tokenizer, device, dtype, revision)
    elif tokenizer is not None:
        raise TypeError(
            f"A tokenizer goes with a model that is loaded already, and {str(name)!r} brings its own: leave "
            f"{tokenizer!r:.40} out, and write device= before a device."
        )
    else:
        lm = _opened(str(name), device, dtype, revision)
    _ = lm.fingerprint  # read now, so that whatever is written later is noticed
    return lm


def _taken(model: nn.Module, tokenizer, device, dtype, revision) -> LanguageModel:
    """A loaded model and its tokenizer, as they are."""
    if dtype is not None or revision is not None:
        raise TypeError("A loaded model is taken as it is: leave out dtype and revision, or give a name to be opened.")
    if not hasattr(tokenizer, "get_vocab") or _wordless(tokenizer):
        raise TypeError(f"A loaded model needs its tokenizer, and got {tokenizer!r:.80}: call load(model, tokenizer).")
    lm = LanguageModel(model, tokenizer, getattr(getattr(model, "config", None), "name_or_path", ""))
    soundness.check_numbers(lm)
    if device not in (None, "auto"):
        model.to(device)
    return lm


def _opened(name: str, device, dtype, revision) -> LanguageModel:
    """The model and tokenizer that files hold."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = name
    if source in paths.BUILT_IN:
        manifest.verify(source)
        source = str(paths.model(source))
    elif source in paths.FETCHED:
        source = str(pretrained.find(source))
    elif Path(source).suffix == ".gguf":
        source, name = str(gguf.opened(Path(source).expanduser())), Path(source).stem
    elif Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser())
    here = Path(source).is_dir()
    if here and revision is not None:
        raise ValueError(f"Only a hub id has revisions, and {name!r} is a folder: leave revision={revision!r} out.")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {"trust_remote_code": False, "revision": revision or "main"}
    with _one_sentence(name, here):
        config = AutoConfig.from_pretrained(source, **given)
    family = family_of(config.model_type)
    if packed := getattr(config, "quantization_config", None):
        method = packed.get("quant_method") if isinstance(packed, dict) else packed.quant_method
        raise ValueError(
            f"The weights of {name!r} are quantized ({method}), and lens reads and edits plain float weights: give the "
            "model that this one was made from."
        )
    with _one_sentence(name, here):
        tokenizer = AutoTokenizer.from_pretrained(source, **given)
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype or "auto",
            device_map="auto" if device == "auto" else None,
            attn_implementation=family.attention,
            use_safetensors=True,
            output_loading_info=True,
            **given,
        )
        if absent := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
            raise OSError(f"its weights lack {absent[0]}")
        depth = getattr(config, "num_hidden_layers", 0)
        beyond = re.compile(rf"{re.escape(family.layers.split('.')[-1])}\.(\d+)\.")
        if more := [n for n in report["unexpected_keys"] if (m := beyond.search(n)) and int(m[1]) >= depth]:
            raise OSError(f"its configuration says {depth} layers, and its weights have {min(more)}")
        if _wordless(tokenizer):
            raise OSError("it has no tokenizer")
    model.eval()
    lm = LanguageModel(model if device == "auto" else model.to(device), tokenizer, name)
    soundness.check_numbers(lm)
    return lm


def _wordless(tokenizer) -> bool:
    return set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens)


@contextmanager
def _one_sentence(name: str, here: bool) -> Iterator[None]:
    """What transformers raises inside the block becomes an ``OSError`` of one sentence."""
    from transformers.utils import logging

    quiet = logging.is_progress_bar_enabled()
    if here:
        logging.disable_progress_bar()  # a bar is for downloads
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        first = shorten(first, 240, placeholder=" …")  # transformers 4 lists every model it knows
        raise OSError(
            f"The model {name!r} could not be opened ({first.rstrip('.')}): check that the name is 'mini', a "
            "hub id with safetensors files and a network to reach it, or a folder saved with save_pretrained."
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()
