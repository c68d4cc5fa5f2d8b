"""Families: for every family and every site, the factors are the gradient, the weight is W, the lens is the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

import lens
from lens.model.families import FAMILIES, family_of

VARIANTS = [(kind, {}) for kind in FAMILIES] + [
    ("gpt2", dict(scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False)),
    ("gpt_neox", dict(use_parallel_residual=False, attention_bias=False)),
    ("opt", dict(do_layer_norm_before=False)),  # OPT-350M: norms after the sum, none at the end
    ("opt", dict(word_embed_proj_dim=24, enable_bias=False)),
    ("llama", dict(attention_bias=False, mlp_bias=False, tie_word_embeddings=True, num_key_value_heads=1)),
    ("mistral", dict(sliding_window=None)),
    ("gemma2", dict(final_logit_softcapping=None, attn_logit_softcapping=None)),
    ("gemma3_text", dict(final_logit_softcapping=4.0)),
    ("gptj", dict(rotary_dim=6, n_inner=None)),
    ("olmo2", dict(attention_bias=True, num_key_value_heads=1)),
    ("smollm3", dict(use_sliding_window=True, sliding_window=3, mlp_bias=True, attention_bias=True)),
    ("phi3", dict(num_attention_heads=2, num_key_value_heads=1, sliding_window=None)),
]
NAMES = [" ".join([kind, *(f"{k}={v}" for k, v in changes.items())]) for kind, changes in VARIANTS]
each_family = pytest.mark.parametrize("kind, changes", VARIANTS, ids=NAMES)
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-6}  # transformers 4 gives GPT-J's logits in float32, whatever it is
PROMPT, TARGET = [5, 9, 100, 33, 77, 9], [44, 51, 60]  # three: a third is not a float32


def columns(kind: str, site: str, module) -> list[int]:
    """Which output columns of a site's module are the site's: all, or a third of a fused q, k, v (written out anew)."""
    out = module.nf if type(module).__name__ == "Conv1D" else module.out_features
    if kind == "phi3" and site != "attn_out" and site != "ff2":  # [q | k | v], twice as many heads in q; [gate | up]
        wide = out // 2
        halves = {"attn_q": (0, wide), "attn_k": (wide, wide * 3 // 2), "attn_v": (wide * 3 // 2, out)}
        return list(range(*(halves | {"ff1_gate": (0, wide), "ff1": (wide, out)})[site]))
    if site not in ("attn_q", "attn_k", "attn_v") or kind not in ("gpt2", "gpt_neox"):
        return list(range(out))
    part = ("attn_q", "attn_k", "attn_v").index(site)
    width, heads = out // 3, 4
    if kind == "gpt2":  # [q | k | v]
        return list(range(part * width, (part + 1) * width))
    size = width // heads  # [q1 k1 v1 | q2 k2 v2 | ...]
    return [3 * size * head + size * part + i for head in range(heads) for i in range(size)]


def dense_gradients(lm, prompt, target):
    """The loss and every weight's gradient the ordinary way: the whole model, labels, ``backward``."""
    lm.model.requires_grad_(True).zero_grad()
    logits = lm.model(torch.tensor([prompt + target[:-1]])).logits[0]
    loss = cross_entropy(logits[len(prompt) - 1 :], torch.tensor(target))
    loss.backward()
    return loss.detach()


@each_family
def test_factored_gradient_is_autograds_weight_gradient_at_every_site(tiny, error, kind, changes):
    lm = tiny(kind, **changes)
    trace = lens.capture(lm, PROMPT, TARGET)
    loss = dense_gradients(lm, PROMPT, TARGET)
    close = CLOSE[loss.dtype]
    assert error(trace.loss[0], loss) <= close
    for layer in range(3):
        for site in lm.sites:
            module = lm.site(layer, site)
            want = module.weight.grad if type(module).__name__ == "Conv1D" else module.weight.grad.T
            want = want[:, columns(kind, site, module)]
            assert want.abs().max() > 0
            got = trace.gradient(layer, site)
            assert got.shape == tuple(want.shape)
            assert error(got.dense(), want) <= close, (layer, site)


@each_family
def test_weight_is_oriented_so_that_x_w_plus_b_is_the_modules_output(tiny, error, kind, changes):
    lm = tiny(kind, **changes)
    trace = lens.capture(lm, PROMPT, TARGET)
    for site in lm.sites:
        module, x = lm.site(1, site), trace.gradient(1, site).x
        which = columns(kind, site, module)
        bias = 0 if module.bias is None else module.bias[which]
        assert error(x @ lm.weight(1, site) + bias, module(x)[:, which]) <= 1e-12, site


@each_family
def test_last_lens_layer_is_the_models_own_logits(tiny, error, kind, changes):
    lm = tiny(kind, **changes)
    with torch.no_grad():
        want = lm.model(torch.tensor([PROMPT])).logits[0]  # [n, V]
    seen = lens.logit_lens(lm, PROMPT, k=want.shape[1])
    got = torch.zeros_like(seen.logits[-1]).scatter(1, seen.ids[-1], seen.logits[-1])
    assert error(got, want) <= CLOSE[want.dtype]
    assert error(seen.probabilities[-1].sum(-1), torch.ones(len(PROMPT))) <= 1e-5


def test_a_norm_without_weights_is_refused(tiny, refuses):
    lm = tiny("opt", layer_norm_elementwise_affine=False)
    with refuses(ValueError, "A LayerNorm of this model has no weights"):
        lens.load(lm.model, lm.tokenizer)


@pytest.mark.parametrize("kind", FAMILIES)
def test_sites_are_wired_as_their_names_say(tiny, error, kind):
    """FF2 reads the activated FF1 (times the gate), and the first token's attention output is its own value."""
    lm = tiny(kind)
    trace = lens.capture(lm, PROMPT, TARGET)

    def output(site):
        module, x = lm.site(1, site), trace.gradient(1, site).x
        return module(x)[:, columns(kind, site, module)]

    mlp = lm.layers[1] if kind == "opt" else lm.layers[1].mlp
    act = next(getattr(mlp, name) for name in ("act", "act_fn", "activation_fn") if hasattr(mlp, name))
    hidden = act(output("ff1_gate")) * output("ff1") if "ff1_gate" in lm.sites else act(output("ff1"))
    assert error(trace.gradient(1, "ff2").x, hidden) <= 1e-12
    value = output("attn_v")[0]
    read = trace.gradient(1, "attn_out").x[0]
    groups = len(read) // len(value)
    size = len(read) // 4
    assert error(read, value.view(-1, size).repeat_interleave(groups, dim=0).flatten()) <= 1e-12
    assert lm.weight(1, "attn_q").shape == (24, len(read))


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in ("gpt2", "gpt_neox", "gptj", "opt")])
def test_grouped_queries_give_k_and_v_fewer_columns_than_q(tiny, kind):
    lm = tiny(kind)
    shapes = [tuple(lm.weight(0, site).shape) for site in ("attn_q", "attn_k", "attn_v", "attn_out")]
    assert shapes == [(24, 32), (24, 16), (24, 16), (32, 24)]


@pytest.mark.parametrize("kind", ["mistral", "phi3", "gemma2", "gemma3_text"])
def test_a_sliding_window_changes_the_gradient_and_lens_sees_it(tiny, kind):
    """Otherwise the two window variants above would test nothing."""
    models = (tiny(kind, sliding_window=window) for window in (3, 64))
    narrow, wide = (lens.capture(lm, PROMPT, TARGET).gradient(0, "ff2").delta for lm in models)
    assert (narrow - wide).abs().max() > 1e-6 * wide.abs().max()


def test_gemma_2_is_opened_with_its_cap_on_attentions_scores(tiny, tokenizer, tmp_path, error, refuses):
    """Layer 1 by hand, which sees all earlier tokens: softmax(c·tanh(q·k/√8/c)) v, q and k turned by their angles."""
    tiny("gemma2").model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = lens.load(tmp_path, device="cpu")
    call, layer = {}, lm.layers[1]
    hook = layer.self_attn.register_forward_pre_hook(lambda _, a, kw: call.update(kw), with_kwargs=True)
    x = [lens.capture(lm, PROMPT, TARGET).gradient(1, site).x for site in ("attn_q", "attn_out")]
    hook.remove()
    n = len(x[0])
    q, k, v = ((x[0] @ lm.weight(1, f"attn_{s}")).view(n, -1, 8).transpose(0, 1) for s in "qkv")
    cos, sin = (t[0].double() for t in call["position_embeddings"])
    q, k = (t * cos + torch.cat([-t[..., 4:], t[..., :4]], -1) * sin for t in (q, k))
    k, v = (t.repeat_interleave(2, 0) for t in (k, v))
    scores = q @ k.mT / 8**0.5
    later = torch.ones(n, n).triu(1).bool()
    by_hand = lambda z: (z.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(0, 1).flatten(1)  # noqa: E731
    assert error(x[1], by_hand(5 * torch.tanh(scores / 5))) < 1e-6
    assert error(x[1], by_hand(scores)) > 1e-3
    lm.model.set_attn_implementation("sdpa")  # as transformers itself would open it
    with refuses(ValueError, "gemma2 runs with.*sdpa.*lens.load.*eager"):
        lens.capture(lens.LanguageModel(lm.model, tokenizer), PROMPT, TARGET)


def test_the_soft_cap_bounds_what_the_lens_reads(tiny):
    assert lens.logit_lens(tiny("gemma2"), PROMPT).logits.abs().max() < 4.0
    assert lens.logit_lens(tiny("gemma2", final_logit_softcapping=None), PROMPT).logits.abs().max() > 4.0


def test_an_edit_of_weight_is_an_edit_of_the_model(tiny, error):
    """``weight`` shares memory, fused or not, stored either way round."""
    for kind in ("gpt2", "gpt_neox", "llama", "phi3"):
        lm = tiny(kind)
        for site in ("attn_v", "ff1", "ff2"):
            if kind == "gpt_neox" and site == "attn_v":
                continue  # its columns lie apart: no view can hold them
            module = lm.site(2, site)
            before = module.weight.detach().clone()
            with torch.no_grad():
                lm.weight(2, site)[3, 5] += 1.0
            moved = (module.weight - before).abs()
            assert float(moved.sum().detach()) == pytest.approx(1.0) and int((moved > 0).sum()) == 1


def test_an_unknown_family_is_refused_by_name_with_what_to_add(tiny, tokenizer, tmp_path, refuses):
    lm = tiny("bloom")
    lm.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with refuses(ValueError, "'bloom'.*FAMILIES in lens/model/families.py.*layers.*norm.*sites"):
        lens.load(str(tmp_path))
    with refuses(ValueError, "'bloom'"):
        lens.capture(lm, PROMPT, TARGET)
    with refuses(ValueError, "gpt2, gpt_neox, gptj, opt, llama, .*, gemma2, gemma3_text"):
        family_of("rwkv")


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_a_saved_folder_opens_on_one_device_and_spread_by_accelerate_with_one_result(
    tiny, tokenizer, tmp_path, error, kind
):
    pytest.importorskip("accelerate")
    tiny(kind).model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    one, spread = lens.load(str(tmp_path), device="cpu"), lens.load(tmp_path, device="auto")
    assert one.dtype == spread.dtype == torch.float64  # the checkpoint's own
    a, b = (lens.capture(lm, "on the other", "is") for lm in (one, spread))
    for layer in range(3):
        for site in one.sites:
            assert error(b.gradient(layer, site).dense().cpu(), a.gradient(layer, site).dense()) <= 1e-12
    vectors = a.stack("ff2")
    assert torch.equal(lens.token_rank(spread, vectors, 7).cpu(), lens.token_rank(one, vectors, 7))
    assert error(lens.logit_lens(spread, "on").logits.cpu(), lens.logit_lens(one, "on").logits) <= 1e-12
    assert lens.load(tmp_path, device="cpu", dtype=torch.bfloat16).dtype == torch.bfloat16


# --- opening a folder: whole, damaged, or not to be trusted -----------------------------------------------------------

EVIL = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import GPT2Config as Config, GPT2LMHeadModel as Model, PreTrainedTokenizerFast as Tok
"""


@pytest.fixture
def folder(tiny, tokenizer, tmp_path):
    """A whole GPT-2 folder in transformers' own format."""
    path = tmp_path / "a model"
    tiny("gpt2", torch.float32).model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def edit(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage_truncated(folder, _):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def damage_no_weights(folder, _):
    (folder / "model.safetensors").unlink()


def damage_header(folder, _):
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\xff" * 64 + weights.read_bytes()[64:])


def damage_a_tensor_is_missing(folder, _):
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def damage_a_tensor_is_too_small(folder, _):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"] = weights["transformer.h.1.mlp.c_fc.weight"][:, :-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def damage_no_tokenizer(folder, _):
    for file in folder.glob("token*"):
        file.unlink()


def damage_tokenizer(folder, _):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')


def damage_config(folder, _):
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes()[:40])


def damage_empty_folder(folder, _):
    for file in folder.iterdir():
        file.unlink()


def damage_only_a_harmless_pickle(folder, _):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def damage_only_a_pickle_that_runs(folder, marker):
    class Payload:
        def __reduce__(self):
            return (Path.write_text, (marker, "ran"))

    weights = load_file(folder / "model.safetensors")
    torch.save(weights | {"payload": Payload()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def damage_code_of_its_own(folder, marker):
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    edit(folder / "config.json", model_type="evil", auto_map=auto)


DAMAGES = {name.removeprefix("damage_"): do for name, do in list(globals().items()) if name.startswith("damage_")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_unsafe_folder_is_refused_in_one_sentence_that_names_it(folder, refuses, damage, tmp_path):
    lens.load(folder, device="cpu")
    marker = tmp_path / "marker"
    DAMAGES[damage](folder, marker)
    with refuses(OSError, "a model'.*(check|safetensors|save_pretrained)"):
        lens.load(folder, device="cpu")
    assert not marker.exists(), "code or a pickle from the folder was run"


def test_code_beside_a_known_family_is_left_alone(folder, tmp_path):
    """The folder offers its own classes; lens opens it with transformers' and runs none of them."""
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tok", "evil.Tok"]})
    try:
        assert type(lens.load(folder, device="cpu").model).__module__.startswith("transformers.")
    except OSError as refusal:
        assert "a model" in str(refusal)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["no-such/model-anywhere", "not a model's name", "/no/such/folder", ""])
def test_a_name_that_is_no_model_is_refused_offline_with_the_remedy(monkeypatch, refuses, name):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with refuses(OSError, "mini.*hub id.*folder"):
        lens.load(name)


def test_progress_bars_are_as_they_were_after_loading(folder):
    from transformers.utils import logging

    was = logging.is_progress_bar_enabled()
    try:
        for enabled in (True, False):
            (logging.enable_progress_bar if enabled else logging.disable_progress_bar)()
            lens.load(folder, device="cpu")
            assert logging.is_progress_bar_enabled() == enabled
    finally:
        (logging.enable_progress_bar if was else logging.disable_progress_bar)()
