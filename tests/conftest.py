"""What every test may ask for: tiny random models of every family, the built-in model, exact comparisons, a browser.

The tiny models are float64 and lopsided on purpose (24 wide, MLP 40, four heads of eight where the family allows it,
two key-value heads, three layers, 300 tokens), so that a transposed or misread matrix cannot fit by accident.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from browsing import visiting

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the hub, which is asked again and again for half a minute

# Two processes: pytest -n 2

BOOK, PDF, PAGES = "tests/test_book.py", "tests/test_pdf.py", "tests/test_pages.py"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """Each process computes on one core: two that use both are slower than one after the other."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay in one process and share what they made; pages, the last, go one by one to who is free."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return {PDF: BOOK, PAGES: page_of(nodeid)}.get(file, file)

    config.option.loadscopereorder = False
    return ByFile(config, log)


def page_of(nodeid: str) -> str:
    """The page that a test of ``PAGES`` looks at, the last of its parameters."""
    return re.split(r"[-[]", nodeid)[-1]


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="nothing slow, no trained model, two families for all")


def quick(item) -> bool:
    """Does ``--fast`` run it?  Random models show most mistakes, GPT-2 and Llama most of what families differ in."""
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    families = {value for value in given if isinstance(value, str) and value in SIZES}
    trained = {"mini", "built"} & set(item.fixturenames)
    return not (item.get_closest_marker("slow") or trained or families - {"gpt2", "llama"})


def pytest_collection_modifyitems(config, items):
    """Of two processes, one begins with the book, which takes longest, and the other with the files of slow tests.

    What needs the built book comes after these, so that nobody waits for it.
    """
    if config.getoption("fast"):
        config.hook.pytest_deselected(items=[item for item in items if not quick(item)])
        items[:] = filter(quick, items)
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}

        def turn(item) -> tuple[int, str]:
            file = item.nodeid.split("::")[0]
            kinds = file in (BOOK, PDF), item.path in slow and "built" not in item.fixturenames, file != PAGES
            place = next((i for i, kind in enumerate(kinds) if kind), len(kinds))
            return place, page_of(item.nodeid) if file == PAGES else ""

        items.sort(key=turn)


# The models

VOCABULARY = 300
SIZES = {
    "gpt2": dict(n_embd=24, n_inner=40, n_layer=3, n_head=4, n_positions=64),
    "gpt_neox": dict(intermediate_size=40),
    "gptj": dict(n_embd=24, n_inner=40, n_layer=3, n_head=4, n_positions=64, rotary_dim=4),
    "opt": dict(ffn_dim=40, word_embed_proj_dim=16, pad_token_id=1),
    "llama": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, attention_bias=True, mlp_bias=True),
    "mistral": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, sliding_window=3),
    "qwen2": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8),
    "qwen3": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, attention_bias=True),
    "smollm3": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, no_rope_layers=[1, 0, 1], pad_token_id=0),
    "phi3": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, sliding_window=3, pad_token_id=0),
    "olmo2": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, pad_token_id=1),
    "gemma": dict(intermediate_size=40, num_key_value_heads=2, head_dim=8, pad_token_id=0),
    "gemma2": dict(
        intermediate_size=40,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=3,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=4.0,
        query_pre_attn_scalar=8,
        pad_token_id=0,
    ),
    "gemma3_text": dict(
        intermediate_size=40,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=3,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
        pad_token_id=0,
    ),
    # Not asked for by name in lens.model.families: used to see that it is refused.
    "bloom": dict(n_head=4),
}
COMMON = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64)


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer of 300 tokens with GPT-2's leading-space convention; it can spell any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("Ġ", "a"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("i", "s"), ("Ġ", "is"), ("o", "n"), ("e", "r")]
    pieces += [a + b for a, b in merges]
    pieces += [f"<|{i}|>" for i in range(len(pieces), VOCABULARY)]
    inside = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    inside.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inside.decoder = decoders.ByteLevel()
    end = pieces[0]
    return PreTrainedTokenizerFast(tokenizer_object=inside, bos_token=end, eos_token=end, unk_token=end)


@pytest.fixture(scope="session")
def tiny(tokenizer):
    """``tiny("llama")``: a fresh random model of that family as a ``LanguageModel``; keywords change its config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from lens import LanguageModel
    from lens.model.families import FAMILIES

    def build(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, **changes) -> LanguageModel:
        sizes = SIZES[kind] if "n_embd" in SIZES[kind] else COMMON | SIZES[kind]
        config = AutoConfig.for_model(
            kind, **({"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0} | sizes | changes)
        )
        attention = FAMILIES[kind].attention if kind in FAMILIES else None
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).double().eval()
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():  # also norms and biases, which a fresh model leaves at one and at zero
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.data = 0.2 * noise if p.ndim > 1 else p.data + 0.1 * noise
        model.tie_weights()
        return LanguageModel(model.to(dtype), tokenizer, f"tiny {kind}")

    return build


@pytest.fixture(scope="session")
def mini():
    """The built-in model, as a reader opens it."""
    import lens

    return lens.load("mini", device="cpu")


@pytest.fixture(scope="session")
def error():
    """``error(got, want)``: the largest difference, relative to the largest entry wanted; shapes must agree."""

    def relative(got, want) -> float:
        got, want = torch.as_tensor(got).detach(), torch.as_tensor(want).detach()
        assert got.shape == want.shape, f"shape {tuple(got.shape)}, wanted {tuple(want.shape)}"
        if not want.numel():
            return 0.0
        scale = want.double().abs().max()
        return float((got.double() - want.double()).abs().max() / (scale if scale else 1))

    return relative


@pytest.fixture(scope="session")
def refuses():
    """``with refuses(ValueError, "words")``: the block raises that error, and says it in one sentence."""

    @contextmanager
    def context(kind, pattern: str):
        with pytest.raises(kind) as caught:
            yield
        text = str(caught.value)
        assert re.search(pattern, text), f"{pattern!r} is not said by: {text}"
        assert "\n" not in text and text.endswith(".") and len(text) < 700, f"not one sentence: {text!r}"

    return context


@pytest.fixture(scope="session")
def state():
    """``state(model)``: everything a function could leave changed; equal before and after means untouched."""

    def snapshot(model) -> dict:
        seen = {"rng": torch.get_rng_state().tolist(), "grad mode": torch.is_grad_enabled()}
        for name, module in model.named_modules():
            hooks = {k: list(v) for k, v in vars(module).items() if "hook" in k and hasattr(v, "keys")}
            seen[f"module {name}"] = (module.training, hooks, "forward" in vars(module))
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, t in tensors.items():
            grad = None if t.grad is None else (id(t.grad), t.grad.clone().tolist())
            content = t._version, t.dtype, t.detach().double().sum().item()
            seen[f"tensor {name}"] = (id(t), t.requires_grad, grad, content)
        return seen

    return snapshot


@pytest.fixture(scope="session")
def record():
    """``with record() as sizes``: how many elements each tensor has that is *made* meanwhile (views are not)."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Sizes(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.sizes: list[int] = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            old = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            for t in tree_leaves(out):
                if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in old:
                    self.sizes.append(t.numel())
            return out

    @contextmanager
    def context():
        gc.collect()
        mode = Sizes()
        with mode:
            yield mode.sizes

    return context


@pytest.fixture
def rendered():
    """Every figure that a test makes is really drawn, in the book's style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from lens.plot import style

    style.use()
    yield
    try:
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
    finally:
        plt.close("all")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of the book's pages, built as ``make book`` does; every chapter is executed anew if CI is set.

    One process of the suite builds it, with the cores as the book itself divides them; the other waits for it.
    """
    import fcntl

    book = Path(__file__).resolve().parents[1] / "book"
    shared = tmp_path_factory.getbasetemp()
    said = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "what the build said"
    with said.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            command, free = [sys.executable, str(book / "build.py")], os.environ.copy()
            free.pop("OMP_NUM_THREADS", None)
            done = subprocess.run(command, capture_output=True, text=True, env=free)
            said.write_text(done.stdout + done.stderr, encoding="utf-8")
    html = book / "_build" / "html"
    assert f"The book is ready: {html / 'index.html'}" in said.read_text(encoding="utf-8"), said.read_text()
    return html


@pytest.fixture(scope="module")
def module_patch():
    """pytest's ``monkeypatch`` for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def chromium(module_patch):
    """The browser that prints the book, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    module_patch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "book"))
    import pdf

    with playwright.sync_playwright() as driver:
        try:
            browser = pdf.browser(driver)
        except pdf.BuildError as error:
            pytest.skip(str(error))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """``visit(html or path)``, as ``visiting`` says, for one test."""
    with visiting(chromium, tmp_path) as open_page:
        yield open_page


def pytest_terminal_summary(terminalreporter):
    """How many malformed inputs and damaged files were tried, and how many were answered as they should be."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    found = [p for r in reports for p in r.user_properties]
    tried, refused = (sum(value for name, value in found if name == what) for what in ("tried", "refused"))
    if refused:
        terminalreporter.write_line(f"{tried} malformed inputs and damaged files tried, {refused} refused or harmless.")
