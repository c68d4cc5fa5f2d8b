"""How does a GGUF file become a model?  Its 4-bit weights are multiplied out once, and kept in half precision.

A block of 32 weights of type Q4_1 holds two halves and 32 numbers of 4 bits: w = d·q + m, q in 0 … 15.  Half precision
rounds w by at most 2⁻¹¹ of itself, far less than the step d between two neighbours, so q can be read back from it.
Tensors that are not packed stay in half precision only where it holds them exactly.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from lens.data import paths
from lens.data.manifest import digest, entry
from lens.model.families import family_of
from lens.results.provenance import provenance

ABOUT = "lens.json"
"""The file of a converted model that says what it was made from, and the size and SHA-256 of its weights."""

PLAIN = {"F32", "F16", "BF16"}
"""Types of tensor that are not packed."""


def convert(file: Path, folder: Path, about: dict | None = None) -> Path:
    """Write the model in the GGUF ``file`` into ``folder`` in transformers' own format, whole or not at all.

    ``about``: what is to be said of it besides.  An existing folder is replaced at the end.  Raises ``ImportError``
    where the package gguf is missing, ``OSError`` where the file is none, and ``ValueError`` for an unknown family.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError("Reading a GGUF file needs the package gguf: run 'pip install gguf'.") from None
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    _check(file)
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    family_of(AutoConfig.from_pretrained(**where).model_type)
    packed = sorted({t.tensor_type.name for t in gguf.GGUFReader(file).tensors} - PLAIN)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**where)

    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        tokenizer.save_pretrained(temporary)
        _plain_tokenizer(temporary / "tokenizer_config.json")
        tied = set(getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or ())
        tied = tied if model.config.tie_word_embeddings else set()
        weights = {name: _half(t, bool(packed)) for name, t in model.state_dict().items() if name not in tied}
        save_file(weights, temporary / "model.safetensors", {"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(_config(model), indent=1) + "\n", encoding="utf-8")
        shutil.copymode(temporary / "config.json", temporary / "model.safetensors")  # written for its owner alone
        made = {"file": file.name, "sha256": digest(file), "packed": packed, **(about or {})}
        made |= {"weights": entry(temporary / "model.safetensors"), "made": provenance(torch.device("cpu"))["versions"]}
        (temporary / ABOUT).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def opened(file: Path) -> Path:
    """The folder that a GGUF file was converted into, in the cache folder; converts it where there is none yet.

    Raises what ``convert`` raises.
    """
    _check(file)
    folder = paths.cache() / "models" / f"{file.stem}-{digest(file)[:12]}"
    if is_whole(folder):  # also where nothing may be written
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):  # two processes convert it once
        return folder if is_whole(folder) else convert(file, folder)


def is_whole(folder: Path) -> bool:
    """Are the weights of a converted model there, as they were written?"""
    try:
        made = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return made["weights"] == entry(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check(file: Path) -> None:
    """``OSError`` where the file is missing or no GGUF file."""
    if not file.is_file() or file.open("rb").read(4) != b"GGUF":
        raise OSError(f"{file} is no GGUF file: give one whose first four bytes are 'GGUF'.")


def _half(weight: Tensor, packed: bool) -> Tensor:
    """In half precision where that loses nothing that was there: a rounding of ½ unit on what 4 bits have said."""
    half = weight.half()
    near = torch.allclose(half.float(), weight, rtol=2**-11 if packed and weight.dim() > 1 else 0, atol=2**-25)
    return half.contiguous() if near else weight.contiguous()


def _config(model) -> dict:
    """The configuration of a plain model: computed in float32, as the built-in ones are."""
    config = {k: v for k, v in model.config.to_diff_dict().items() if k not in ("quantization_config", "dtype")}
    config = {k: v for k, v in config.items() if not k.startswith("_")}
    config |= {"architectures": [type(model).__name__], "dtype": "float32", "torch_dtype": "float32"}
    rope = config.get("rope_parameters") or {}
    return config | ({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {})  # as transformers 4 asks


def _plain_tokenizer(file: Path) -> None:
    """The settings of a fast tokenizer under the name by which every version of transformers opens it."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only", "name_or_path"):
        settings.pop(name, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
