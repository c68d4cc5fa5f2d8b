"""A subnetwork comes out of its file as it went in, and no other file passes for one."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens.data import manifest, paths
from lens.kernels import pack
from lens.mask import Config, Subnetwork, all_shipped, load, save, shipped


@pytest.fixture
def made(tiny) -> Subnetwork:
    lm = tiny("gpt2")
    generator = torch.Generator().manual_seed(2)
    shapes = {(layer, site): tuple(lm.weight(layer, site).shape) for layer in (1, 2) for site in ("attn_q", "ff2")}
    bits = {key: pack(torch.rand(shape, generator=generator) < 0.2) for key, shape in shapes.items()}
    history = ({"step": 2, "seconds": 0.1, "sampled": {"suppress": 1 / 3}, "hard": {"density": 0.25}},)
    config = Config(layers=(1, 2), sites=("attn_q", "ff2"), stop={"density": 0.1}, steps=2)
    return Subnetwork(bits, shapes, config, history, lm.name, lm.fingerprint, 6, {"seconds": 0.5, "command": "x"})


def test_a_subnetwork_comes_out_of_its_file_as_it_went_in(made, tmp_path, tiny, monkeypatch):
    path = save(made, tmp_path / "folder" / "one.safetensors")
    assert load(path) == made == load(str(path), tiny("gpt2"))
    assert [f.name for f in path.parent.iterdir()] == ["one.safetensors"]
    monkeypatch.setenv("HOME", str(tmp_path))
    again = save(load("~/folder/one.safetensors"), "~/two.safetensors")
    assert again == tmp_path / "two.safetensors"
    assert again.read_bytes() == path.read_bytes()


def test_neurons_take_a_bit_a_row(made, tmp_path):
    rows = {key: pack(torch.arange(shape[0])[:, None] % 3 == 0) for key, shape in made.shapes.items()}
    path = save(made.with_bits(rows, "every third"), tmp_path / "rows.safetensors")
    back = load(path)
    assert back.bits == rows and back.about == {"note": "every third"}
    assert back.density() == pytest.approx(1 / 3, abs=0.02)
    assert back.mask(1, "ff2").shape == made.shapes[1, "ff2"]
    assert sum(t.numel() for t in load_file(path).values()) == sum(-(-d_in // 8) for d_in, _ in made.shapes.values())


def test_all_that_ships_is_what_lies_in_the_folder_by_topic_and_seed(made, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setattr("lens.mask.storage.target_kgs", lambda every: ("sun", "building"))
    for name in ("building-weight-2", "building-weight-0", "sun-weight-1", "sun-neuron-0", "another-weight-0"):
        save(made, tmp_path / "runs" / "a model" / f"{name}.safetensors")
    manifest.write()
    assert list(all_shipped("a model")) == [("sun", 1), ("building", 0), ("building", 2)]
    assert all_shipped("a model")["sun", 1] == made and all_shipped("none of these") == {}


@pytest.fixture
def sparse(made) -> Subnetwork:
    """Two weights a thousand: compressed."""
    generator = torch.Generator().manual_seed(3)
    bits = {key: pack(torch.rand(shape, generator=generator) < 0.002) for key, shape in made.shapes.items()}
    return made.with_bits(bits, "sparse")


def test_a_sparse_mask_takes_less_than_half_the_bits_and_comes_out_as_it_went_in(made, sparse, tmp_path):
    packed, small = (save(one, tmp_path / name) for name, one in {"packed": made, "small": sparse}.items())
    size = {path: sum(t.numel() for t in load_file(path).values()) for path in (packed, small)}
    assert size[small] < size[packed] / 2
    assert load(small) == sparse and dict(load(small, lazy=True).bits) == sparse.bits
    assert save(load(small), tmp_path / "again").read_bytes() == small.read_bytes()


@pytest.mark.parametrize("ending", [b"\0\0", b""])
def test_a_compressed_mask_that_is_damaged_is_refused(sparse, tmp_path, refuses, ending):
    path = save(sparse, tmp_path / "damaged.safetensors")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = min(tensors)
    tensors[name] = torch.tensor([*tensors[name].tolist()[:-3], *ending], dtype=torch.uint8)
    save_file(tensors, path, metadata)
    with refuses(OSError, "no whole subnetwork"):
        load(path)


def test_a_damaged_file_is_refused(made, tmp_path, refuses):
    whole = save(made, tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "damaged.safetensors"
    half = whole[: len(whole) // 2]
    for damaged in (b"", whole[:7], whole[:100], half, whole[:-1], b"\0" * 50, b"x" + whole, whole + b"x"):
        path.write_bytes(damaged)
        with refuses(OSError, "damaged.safetensors is no whole subnetwork"):
            load(path)


@pytest.mark.parametrize("change", [
    lambda held: held.pop("format"),
    lambda held: held.update(format="lens-mask-0"),
    lambda held: held.pop("config"),
    lambda held: held["config"].update(color="red"),
    lambda held: held["config"].update(start=3),
    lambda held: held["sites"][0].pop("shape"),
    lambda held: held["sites"][0].update(site="ff9"),
    lambda held: held["sites"][0].update(shape=[24, 26]),
    lambda held: held["sites"][0].update(rows=True),
])  # fmt: skip
def test_a_file_that_says_something_else_is_refused(made, tmp_path, refuses, change):
    from safetensors import safe_open

    path = save(made, tmp_path / "other.safetensors")
    with safe_open(path, "pt") as file:
        held = json.loads(file.metadata()["lens"])
    tensors = load_file(path)
    change(held)
    save_file(tensors, path, {"lens": json.dumps(held)})
    with refuses(OSError, "no whole subnetwork"):
        load(path)


def test_a_foreign_file_is_refused(tmp_path, refuses):
    path = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}, {"lens": "[]"}, {"lens": "7"}, {"lens": "no JSON"}):
        save_file({"1.ff2": torch.zeros(8, dtype=torch.uint8)}, path, metadata)
        with refuses(OSError, "no whole subnetwork"):
            load(path)
    with refuses(OSError, "no subnetwork file"):
        load(tmp_path / "absent.safetensors")
    with refuses(OSError, "no subnetwork file"):
        load(tmp_path)
    with refuses(OSError, "no subnetwork file ~nosuchuser_x"):
        load("~nosuchuser_x/absent.safetensors")
    with refuses(OSError, "no subnetwork file"):
        shipped("building", seed=10_000)


def test_a_file_for_another_model_is_refused(made, tmp_path, tiny, refuses):
    path = save(made, tmp_path / "one.safetensors")
    with refuses(ValueError, "another model"):
        load(path, tiny("gpt2", torch.float32))


def test_an_accident_leaves_the_old_file(made, tmp_path, monkeypatch):
    path = save(made, tmp_path / "one.safetensors")
    before = path.read_bytes()

    def half(_, temporary, *__):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save(made.with_bits(made.bits, "new"), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
