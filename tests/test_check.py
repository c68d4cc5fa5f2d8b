"""Does ``python -m lens check MODEL`` tell a model that will do from one that will not, without a traceback?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lens.__main__ import main
from lens.commands import check


def lines(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return out.splitlines()


@pytest.mark.slow
def test_mini_passes_every_question_and_keeps_every_bit(mini, capsys):
    before = {name: p.detach().clone() for name, p in mini.model.named_parameters()}
    assert all(check.answer(name, question) for name, question in check.questions(mini))
    assert all(p.equal(before[name]) and p.grad is None for name, p in mini.model.named_parameters())
    shown = lines(capsys)
    names = [line.split(":")[0] for line in shown]
    assert names[:7] == ["✓ family", "✓ space", "✓ BOS", "✓ EOS", "✓ pad", "✓ dtype", "✓ head(norm(h))"]
    assert len(names) == len(set(names)) == 10 + len(check.STEPS)
    assert any("bit for bit" in line for line in shown)


def test_the_command_answers_with_its_exit_status(capsys, tmp_path):
    assert main(["check", str(tmp_path / "nothing")]) == 1
    (line,) = lines(capsys)
    assert line.startswith("✗ opened: The model") and "check that the name is" in line


@pytest.mark.parametrize(
    "question, spoil, told",
    [
        (check.head, lambda lm, p: p.setattr(type(lm), "head", lambda self, h: 2 * h @ self.unembedding.T), "other logits"),
        (check.space, lambda lm, p: p.setattr(type(lm), "target_ids", lambda self, text: [5]), "token ids"),
        (check.eos, lambda lm, p: p.setattr(type(lm), "encode", lambda self, t: [5, self.tokenizer.eos_token_id]), "behind a prompt"),
        (check.undone, lambda lm, p: p.setattr("lens.edit.edit.update_", lambda *a, **k: SimpleNamespace(undo=lambda: None)), "changed no weight"),
        (lambda lm: check.memory(lm, "mask"), lambda lm, p: p.setattr(check, "_memory_here", lambda device: 10), "GB: take"),
    ],
    ids=["head", "space", "EOS", "undone", "memory"],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(question, spoil, told, mini, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        spoil(mini, patch)
        assert not check.answer("it", lambda: question(mini))
    (line,) = lines(capsys)
    assert line.startswith("✗ it: ") and told in line
