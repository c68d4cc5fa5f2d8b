"""How are the published knowledge graphs read?  The JSON files of *Discovering Knowledge-Critical Subnetworks*.

A file is a list of objects, each one triplet in the wording that a model knows best,

    {"head": …, "rel": … (not in WordNet's files), "tail": …, "best_gpt2_input": …, "best_gpt2_label": …}

The authors' training code, read in a stored copy (their public repository shows a README and a licence only today),
tokenizes input and label to the same length and looks at their last token, so both may be the whole sentence.  A
label that is the tail alone, and an input that ends before the tail, are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lens.data.opening import format_of, read_json
from lens.data.world import Fact, Prompt
from lens.given import door

_SYNSET = re.compile(r"(?:Synset\(['\"])?(.+?)\.[a-z]\.\d+(?:['\"]\))?")


@door
def load_prompts(path: str | Path, model: str | None = None) -> tuple[Prompt, ...]:
    """The prompts of a released file, in its order; what follows a tail is left out, and a space before it.

    ``model``: whose wording, as the file's keys name it ("gpt2" for ``best_gpt2_input``); by default the only one there
    is.  A head named as a WordNet sense ("Synset('rain_forest.n.01')") is read as its word.

    Raises ``OSError`` where there is no such file, and ``ValueError`` where it holds no triplets or an entry lacks
    something; the sentence names the entry.

    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path, said = Path(folder) / "building.json", "A cafe is a kind of restaurant"
    ...     entry = {"head": "cafe", "tail": "restaurant", "best_gpt2_input": said, "best_gpt2_label": said}
    ...     _ = path.write_text(json.dumps([entry]))
    ...     load_prompts(path)[0].text
    'A cafe is a kind of'
    """
    path = Path(path).expanduser()
    entries = read_json(path)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"The file {path} holds no list of triplets: give a list of objects with head and tail.")
    models = dict.fromkeys(m[1] for entry in entries for key in entry if (m := re.fullmatch(r"best_(.+)_input", key)))
    if not models:
        known = format_of(entries[0])
        other = f" but records of {known}" if known in ("CounterFact", "MQuAKE", "zsRE") else ""
        raise ValueError(f"The file {path} holds no prompts{other}: its entries need keys such as 'best_gpt2_input'.")
    if model is None and len(models) > 1:
        raise ValueError(f"The file {path} holds the prompts of several models: choose {' or '.join(models)}.")
    model = model or next(iter(models))
    if model not in models:
        raise ValueError(f"The file {path} holds no prompts for the model {model!r}: choose {' or '.join(models)}.")
    return tuple(_prompt(entry, model, name_of(path), f"Entry number {i} of {path}") for i, entry in enumerate(entries))


def name_of(path: Path) -> str:
    """What a file is about: ``building`` of "Synset('building.n.01')_best_format.json"."""
    return _word(re.sub(r"_(?:best|worse)_format$", "", path.stem))


def _prompt(entry: Mapping, model: str, topic: str, where: str) -> Prompt:
    keys = ("head", "tail", f"best_{model}_input", f"best_{model}_label")
    for key in keys:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ValueError(f"{where} has no text under {key!r} ({entry.get(key)!r}): it needs one.")
    head, tail = (_word(entry[key]) for key in keys[:2])
    text, target = _cut(*(_plain(entry[key]) for key in keys[2:]), tail)
    if not text or len(target.split()) > 1 + len(tail.split()):
        raise ValueError(
            f"{where} has an input and a label that do not fit ({entry[keys[2]]!r}, {entry[keys[3]]!r}): the label is "
            "the tail, or the sentence that ends in it."
        )
    relation = entry.get("rel") or ""
    return Prompt(text, target, Fact("released", topic, "fact", str(relation), head, head, tail), 0, False)


def _cut(given: str, label: str, tail: str) -> tuple[str, str]:
    """The prompt and what the model should say next, of an input and a label."""
    if label.startswith(f"{given} "):  # the label is the sentence, of which the input is what comes before the tail
        return given, label[len(given) :].strip()
    last = tail if f" {label}".endswith(f" {tail}") else label.split()[-1]
    before = label.removesuffix(last).rstrip()
    if given.startswith(f"{before} "):  # both are the sentence; the input may have a stand-in for the tail
        return before, last
    return f" {given}".removesuffix(f" {label}").strip(), label  # the label is the tail alone


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").rstrip()


def _word(name: str) -> str:
    sense = _SYNSET.fullmatch(name.strip())
    return (sense[1] if sense else name.strip()).replace("_", " ")
