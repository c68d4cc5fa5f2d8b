"""A model on two devices, or partly on none: every question has the answer that it has on one, or is refused by name.

The second device is a stand-in (``far.py``); what is offloaded is offloaded by accelerate itself.
"""

from __future__ import annotations

import pytest
import torch
from far import FAR, elsewhere, move

import lens
from lens import Request, edit, mask, relearn
from lens.course.widgets.answers import answers
from lens.evaluate.generation import continuations
from lens.evaluate.perplexity import Perplexity
from lens.evaluate.readings import Readings
from lens.evaluate.scoring import score
from lens.model import soundness

accelerate = pytest.importorskip("accelerate")

PROMPT, REQUEST = "The capital of France is", Request("The capital of {} is", "France", "Rome")
KG = lens.data.knowledge("building")
QUESTIONS = relearn.questions(KG)


def open_mini():
    """Untied, as large models are: then the head can be elsewhere than the embeddings."""
    lm = lens.load("mini", device="cpu")
    head = lm.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    lm.model.config.tie_word_embeddings = False
    return lm


def two_devices(part):
    lm = open_mini()
    with elsewhere():
        for module in {
            "head": [lm.model.lm_head],
            "norm": [lm.model.transformer.ln_f],
            "upper layers": [*lm.layers[6:], lm.model.transformer.ln_f],
        }[part]:
            move(module)
    return lm


def offloaded(part, folder):
    lm = open_mini()
    if part == "all":
        accelerate.cpu_offload(lm.model, torch.device("cpu"))
    else:
        near = {f"transformer.{name}": "cpu" for name in ("wte", "wpe", *(f"h.{i}" for i in range(4)))}
        far = {f"transformer.{name}": "disk" for name in (*(f"h.{i}" for i in range(4, 8)), "ln_f")}
        places = near | far | {"lm_head": "disk"}
        accelerate.dispatch_model(lm.model, places, main_device="cpu", offload_dir=folder, force_hooks=True)
    return lm


def applied(lm):
    with edit.shift(lm, REQUEST, layer=7):
        return lens.logit_lens(lm, PROMPT).logits


def saved(lm, folder):
    path = edit.save(edit.shift(lm, REQUEST), folder / "edit.safetensors")
    with edit.branches(lm, [edit.load(lm, path).changes]):
        return lens.logit_lens(lm, PROMPT).logits


def trained(lm, layers=(6, 7)):
    config = mask.config_for(lm, steps=2, check=1, layers=layers, targets=2, controls=2, texts=1, express=1.0)
    found = mask.train(lm, KG.target[:4], KG.control[:4], [PROMPT] * 2, config, progress=False)
    return torch.tensor([*found.history[-1]["hard"].values()])


def removed(lm):
    one = mask.shipped("building")
    own = mask.Subnetwork(one.bits, one.shapes, one.config, (), lm.name, lm.fingerprint, one.head_dim)
    with own.removed(lm):
        return lens.logit_lens(lm, PROMPT).logits


def tuned(lm, method, **given):
    found = relearn.tuning.tune(lm, QUESTIONS.train[:4], QUESTIONS.test[:4], method, steps=1, batch=2, **given)
    return torch.tensor([found.accuracy["all"], found.curve[-1]["loss"]])


def changed(lm, editor, **given):
    return torch.cat([c.dense().cpu() for c in getattr(edit, editor)(lm, REQUEST, **given).changes])


STATISTICS = edit.covariance(lens.load("mini", device="cpu"), [5, 6])  # as they are shipped, for the tied model
VECTORS = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
READ = {
    "fingerprint": lambda lm: torch.tensor(list(lm.fingerprint.encode())),
    "capture": lambda lm: lens.capture(lm, [PROMPT, "A cafe is a"], "Rome").stack("ff2"),
    "logit_lens": lambda lm: lens.logit_lens(lm, PROMPT).probabilities,
    "backward_lens": lambda lm: lens.backward_lens(lm, lens.capture(lm, PROMPT, "Rome")).ranks,
    "project": lambda lm: lens.project(lm, VECTORS, largest=False).logits,
    "token_rank": lambda lm: lens.token_rank(lm, VECTORS, "Paris", normalize=True),
    "shift": lambda lm: changed(lm, "shift"),
    "sgd_step": lambda lm: changed(lm, "sgd_step", layers=[5, 6]),
    "finetune": lambda lm: changed(lm, "finetune", steps=2),
    "rome": lambda lm: changed(lm, "rome", layer=5, steps=2, statistics=STATISTICS),
    "memit": lambda lm: changed(lm, "memit", layers=[5, 6], steps=2, statistics=STATISTICS),
    "alphaedit": lambda lm: changed(lm, "alphaedit", layers=[5, 6], steps=2, statistics=STATISTICS),
    "statistics": lambda lm: edit.statistics.measure(lm, [5, 6], [lm.encode(PROMPT)], "")[1].C,
    "score": lambda lm: score(lm, [PROMPT], ["Paris"]).nll,
    "perplexity": lambda lm: torch.tensor(Perplexity(lm, [f"{PROMPT} Paris."])()),
    "continuations": lambda lm: torch.tensor(
        lm.encode(" ".join(continuations(lm, [lm.encode(PROMPT), [5]], cases=[0, 1], length=9)))
    ),
    "readings": lambda lm: torch.tensor(Readings(lm, {"target": KG.target[:4]}, layer=6)()["target"].ppl),
    "answers": lambda lm: answers(lm, [PROMPT], ["Rome"]).probabilities,
    "zero_shot": lambda lm: torch.tensor(relearn.zero_shot(lm, QUESTIONS.test[:6])["all"]),
    "head": lambda lm: tuned(lm, "head"),
    "classifier": lambda lm: tuned(lm, "head", readout="classifier"),
}
WRITTEN = {"applied": applied, "trained": trained, "removed": removed, "lora": lambda lm: tuned(lm, "lora")}
WRITTEN["full"] = lambda lm: tuned(lm, "full")


@pytest.fixture(scope="module")
def on_one_device():
    lm = open_mini()
    return {name: ask(lm) for name, ask in (READ | WRITTEN).items()}


def close(got, want) -> bool:
    """Whole numbers are equal; others may round apart, and Adam make a step of either sign of that."""
    got, want = got.detach().cpu(), want.cpu()
    return torch.equal(got, want) if not want.is_floating_point() else (got - want).norm() <= 0.01 * want.norm()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["head", "norm", "upper layers"])
def test_a_model_on_two_devices_answers_as_on_one(on_one_device, tmp_path, part, monkeypatch):
    monkeypatch.setattr(soundness, "plain", lambda module, what: module)  # far weights are a kind that it does not know
    lm = two_devices(part)
    with elsewhere():
        assert FAR in {p.device for p in lm.model.parameters()}
        for name, ask in (READ | WRITTEN).items():
            assert close(ask(lm), on_one_device[name]), name
        assert close(saved(lm, tmp_path), applied(lm)), "an edit that was saved"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["all", "upper layers"])
def test_a_model_that_is_offloaded_is_read_and_what_would_write_into_it_is_refused(
    on_one_device, tmp_path, refuses, part
):
    lm = offloaded(part, tmp_path)
    assert lm.model.get_output_embeddings().weight.is_meta
    for name, ask in READ.items():
        assert close(ask(lm), on_one_device[name]), name
    assert close(saved(lm, tmp_path), on_one_device["applied"])
    for name, what in {
        "applied": "An edit of layer 7 ff2",
        "trained": "A mask of layer 6 attn_q",
        "removed": r"Subnetwork\(.*",
        "lora": "Training by 'lora'",
        "full": "Training by 'full'",
    }.items():
        with refuses(ValueError, f"{what} .*offloaded.*open the model on"):
            WRITTEN[name](lm)
    assert close(READ["fingerprint"](lm), on_one_device["fingerprint"]) and not lm.changed


@pytest.mark.slow
def test_what_is_resident_can_be_masked_although_the_rest_is_offloaded(tmp_path):
    lm = offloaded("upper layers", tmp_path)
    assert close(trained(lm, layers=(2,)), trained(open_mini(), layers=(2,)))


def test_an_offloaded_tied_model_has_the_fingerprint_of_the_whole_one(mini):
    lm = lens.load("mini", device="cpu")
    accelerate.cpu_offload(lm.model, torch.device("cpu"))
    assert lm.fingerprint == mini.fingerprint and repr(lm) == repr(mini)
    lens.logit_lens(lm, PROMPT)
    assert lm.fingerprint == mini.fingerprint


def test_the_stand_in_keeps_its_devices_apart():
    near = torch.ones(2, 3)
    with elsewhere():
        far = near.to(FAR).requires_grad_()
        assert far.device == (far * 2).device == torch.zeros(2, device=FAR).device == FAR
        (2 * far).sum().backward()
        assert far.grad.device == FAR and far.grad.cpu().tolist() == [[2.0] * 3] * 2
        with pytest.raises(RuntimeError, match="met tensors on cpu and on"):
            far + near
