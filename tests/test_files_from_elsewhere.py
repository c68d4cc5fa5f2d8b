"""What does a file say that is damaged, or that somebody else wrote?  One sentence that names it, or what it held.

Of each kind of file a good one is damaged in drawn ways: cut off, bits flipped, blocks lost or doubled; and what it
says in JSON is changed: keys lost and renamed, values of other types, nested deeply, half a character.  A file with
digests gives the same content or a sentence; one without may give other content, but never an internal error.
"""

from __future__ import annotations

import copy
import json
import traceback
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import lens
from lens.commands import relearn
from lens.data.records import load_records
from lens.edit.mend import MendNetwork, _read, save_network
from lens.evaluate import Report
from lens.evaluate.rows import Row
from lens.evaluate.run_file import RunFile
from lens.results import checkpoint
from lens.results.csv_text import as_csv
from lens.results.provenance import comments
from lens.results.sealed import _seal
from lens.results.whole import write_text
from lens.scale.sweep import Job, Outcome
from lens.scale.sweep.store import Store

ROOT = Path(lens.__file__).parent
DRAWS = 100  # of each way of damage, for each kind of file
DEEP = "@deep@"
VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    "",
    "x",
    "\ud800",
    "a\n|b",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    DEEP,
]
VALUES += [10**400]
JOB = Job("mean", "statistics:fmean", {"data": [2, 4]})
ANSWER = {"model": "tiny", "fingerprint": "0" * 64}


def cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content))]


def flipped(random: Random, content: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 20])):
        found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def lost(random: Random, content: bytes) -> bytes:
    start, size = random.randrange(len(content)), random.choice([1, 8, 100, 4096])
    return content[:start] + random.choice([b"", b"\0" * size]) + content[start + size :]


def doubled(random: Random, content: bytes) -> bytes:
    start = random.randrange(len(content))
    return content[:start] + content[start // 2 :]


def twisted(random: Random, held: object) -> object:
    """A copy of what JSON holds in which one thing, at a drawn depth, is another, renamed or gone."""
    found = copy.deepcopy(held)
    inside = found
    while True:
        key = random.choice(list(inside)) if isinstance(inside, dict) else random.randrange(len(inside))
        if isinstance(inside[key], (dict, list)) and inside[key] and random.random() < 0.7:
            inside = inside[key]
            continue
        way = random.random()
        value = inside.pop(key) if way < 0.3 else inside[key]
        if way < 0.15 and isinstance(inside, dict):
            inside["x"] = value
        elif way >= 0.3:
            inside[key] = random.choice(VALUES)
        return found


def text(held: object) -> str:
    return json.dumps(held).replace(f'"{DEEP}"', "[" * 10**5 + "]" * 10**5)


def lines(change) -> object:
    """A way of damage for JSON Lines: one line's object is changed."""

    def damage(random: Random, content: bytes) -> bytes:
        some = content.decode().splitlines()
        number = random.randrange(len(some))
        some[number] = text(change(random, json.loads(some[number])))
        return ("\n".join(some) + "\n").encode()

    return damage


def said(random: Random, content: bytes) -> bytes:
    return text(twisted(random, json.loads(content))).encode()


def metadata(random: Random, path: Path) -> None:
    """Another metadata text, with the digest that belongs to it, as a stranger's program might write it."""
    with safe_open(path, "pt") as file:
        held, tensors = json.loads(file.metadata()["lens"]), {name: file.get_tensor(name) for name in file.keys()}
    sealed = held.pop("sha256", None)
    body = text(twisted(random, held))
    save_file(tensors, path, {"lens": body[:-1] + _seal(body) if sealed else body})


def unsealed(path: Path, name: str) -> None:
    """The file as the version before wrote it, without digests."""
    with safe_open(path, "pt") as file:
        held, tensors = json.loads(file.metadata()["lens"]), {name: file.get_tensor(name) for name in file.keys()}
    del held["sha256"], held["digests"]
    save_file(tensors, path, {"lens": json.dumps(held | {"format": name})})


BYTES = (cut, flipped, lost, doubled)


@pytest.fixture(scope="module")
def kinds(tiny):
    lm = tiny("gpt2", torch.float32)
    request = lens.Request("the cat sat on the {}", "mat", "dog")
    rows = [Row(i, "Nice", "a", *[0.5] * 9, note="n") for i in range(3)]
    header = {"format": "lens-counterfact-1", "seed": 0, "settings": {}, "options": {}, "editor": "shift"} | ANSWER
    shapes = {(1, "ff1"): tuple(lm.weight(1, "ff1").shape), (2, "ff2"): tuple(lm.weight(2, "ff2").shape)}
    entry = {"head": "cafe", "tail": "restaurant"} | dict.fromkeys(
        ("best_gpt2_input", "best_gpt2_label"), "A cafe is a kind of restaurant"
    )

    def edit(path):
        lens.edit.save(lens.edit.shift(lm, request, layer=1, eta=0.5), path)

    def edited(path):
        found = lens.edit.load(lm, path)
        with found:
            return repr(found), found.settings, [(c.x.tolist(), c.delta.tolist()) for c in found.changes]

    def mask(path, density=0.4):
        bits = {k: lens.kernels.pack(torch.rand(s, generator=torch.Generator().manual_seed(1)) < density)
                for k, s in shapes.items()}  # fmt: skip
        history = ({"step": 1, "hard": {"density": 0.5}},)
        found = lens.mask.Subnetwork(bits, shapes, lens.mask.Config(), history, lm.name, lm.fingerprint, 8, {})
        lens.mask.save(found, path)

    def masked(path, **how):
        found = lens.mask.load(path, lm, **how)
        with found.removed(lm):
            return repr(found), found.config, found.digest(), found.density("site")

    def run(path):
        RunFile(path, header).append(rows)

    def result(path):
        store = Store(path.parent / "sweep")
        store.write(Outcome(JOB, 3.0, None, 1.0, "here"))
        store.path(JOB).replace(path)

    def outcome(path):
        store = Store(path.parent / "sweep")
        store.path(JOB).write_bytes(path.read_bytes())
        return store.read(JOB)

    def curves(path):
        key = dict(zip(relearn.KEY, ("building", "original", "head", "both", "0")))
        write_text(path, as_csv([key | {"step": i, "all": 0.5} for i in range(3)], *comments(lm.device, "head")))

    def network(path):
        save_network(MendNetwork(shapes, 4, 1e-4), path, ANSWER)

    def networked(path):
        found, about = _read(path, Random().random(), False)
        return about, {name: t.tolist() for name, t in found.state_dict().items()}

    def training(path):
        checkpoint.store(path, {"step": 3, "best": torch.ones(9), "history": [{"a": 1.5}]})

    def resumed(path):
        return checkpoint.resume(path, lambda state: (state["step"], state["best"].tolist(), state["history"]), None)

    def records(path):
        path.write_text(json.dumps(lens.data.records()[:2]))

    def prompts(path):
        path.write_text(json.dumps([entry, entry]))

    def texts(path):
        path.write_text("It rained.\n\nThen came the sun.\n" * 5)

    own = BYTES + (said,)
    return {
        "edit": (edit, edited, BYTES, metadata, True),
        "edit, without digests": (lambda p: (edit(p), unsealed(p, "lens-edit-1")), edited, BYTES, metadata, False),
        "mask": (mask, masked, BYTES, metadata, True),
        "mask, lazy": (mask, lambda p: masked(p, lazy=True), BYTES, metadata, True),
        "mask, compressed": (lambda p: mask(p, 0.0), masked, BYTES, metadata, True),
        "mask, without digests": (lambda p: (mask(p), unsealed(p, "lens-mask-1")), masked, BYTES, metadata, False),
        "MEND": (network, networked, BYTES, metadata, True),
        "MEND, without digests": (
            lambda p: (network(p), unsealed(p, "lens-mend-1")), networked, BYTES, metadata, False),
        "checkpoint": (training, resumed, BYTES, None, True),
        "run file": (run, lambda p: str(Report.read(p)), BYTES + (lines(twisted),), None, False),
        "records": (records, lambda p: lens.Request.from_record(load_records(p)[0]), own, None, False),
        "prompts": (prompts, lens.data.load_prompts, own, None, False),
        "texts": (texts, lens.data.load_texts, BYTES, None, False),
        "job result": (result, outcome, own, None, False),
        "learning curves": (curves, lambda p: relearn._read(p, "head"), BYTES, None, False),
    }  # fmt: skip


NAMES = (
    "edit", "edit, without digests", "mask", "mask, lazy", "mask, compressed", "mask, without digests", "MEND",
    "MEND, without digests", "checkpoint", "run file", "records", "prompts", "texts", "job result", "learning curves",
)  # fmt: skip


def test_a_sealed_file_of_a_format_to_come_is_refused(kinds, tmp_path, refuses):
    for name in ("edit", "mask", "mask, lazy", "MEND"):
        make, read, *_ = kinds[name]
        path = tmp_path / "file"
        make(path)
        with safe_open(path, "pt") as file:
            held, tensors = json.loads(file.metadata()["lens"]), {n: file.get_tensor(n) for n in file.keys()}
        body = json.dumps({key: value for key, value in held.items() if key != "sha256"} | {"format": "lens-9"})
        save_file(tensors, path, {"lens": body[:-1] + _seal(body)})
        with refuses(OSError, "no whole"):
            read(path)


def wrong(read, path: Path, good: object, same: bool) -> str | None:
    """What is wrong with what ``read`` says of a damaged file; None where it is a sentence, or what the file held."""
    try:
        found = read(path)
    except Exception as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        sentence = str(error)
        named = path.name in sentence or "case_id" in sentence or "another model" in sentence or "sweep" in sentence
        named |= "ecord number" in sentence
        if not isinstance(error, (OSError, ValueError)) or not where.is_relative_to(ROOT):
            return f"{type(error).__name__} at {where.name}: {sentence[:100]}"
        return None if named and sentence.endswith((".", ")")) else f"no sentence: {sentence[:100]}"
    return None if not same or repr(found) == repr(good) else f"silently something else: {found!r:.100}"


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_gives_a_sentence_or_what_it_held(name, kinds, tmp_path, record_property):
    make, read, ways, reseal, digests = kinds[name]
    path, random, found = tmp_path / "good.file", Random(name), {}
    make(path)
    whole, good = path.read_bytes(), read(path)
    refused = tried = 0
    for way in (*ways, *([reseal] if reseal else [])):
        for draw in range(DRAWS):
            path.write_bytes(whole)
            if way is metadata:
                way(random, path)
            else:
                path.write_bytes(way(random, whole))
            tried += 1
            what = wrong(read, path, good, digests and way is not metadata)
            refused += what is None
            if what:
                found.setdefault(what, f"{getattr(way, '__name__', way)}, draw {draw}")
    path.write_bytes(whole)
    assert repr(read(path)) == repr(good)
    record_property("tried", tried)
    record_property("refused", refused)
    print(f"{name}: {tried} damaged files, {refused} as they should be")
    assert not found
