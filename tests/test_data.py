"""The built-in world: its files are whole, its facts are sentences, its held-out phrasings are unseen."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from lens import data
from lens.data import manifest, paths
from lens.data.corpus import documents, heldout_paragraphs
from lens.data.prose import paragraphs
from lens.data.records import make_records
from lens.results import whole as files

COUNTERFACT = {
    "case_id",
    "pararel_idx",
    "requested_rewrite",
    "paraphrase_prompts",
    "neighborhood_prompts",
    "attribute_prompts",
    "generation_prompts",
}
REWRITE = {"prompt", "relation_id", "target_new", "target_true", "subject", "relation"}  # theirs, and the id in words


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A small data folder with a manifest of its own, in place of the shipped one."""
    root = tmp_path / "a book" / "data"
    (root / "mini").mkdir(parents=True)
    (root / "world").mkdir()
    (root / "mini" / "model.bin").write_bytes(bytes(range(256)))
    (root / "mini" / "empty").write_bytes(b"")
    shutil.copy(paths.world() / "relations.json", root / "world")
    monkeypatch.setattr(paths, "root", lambda: root)
    manifest.write()
    return root


def test_every_shipped_file_is_whole_and_listed():
    listed = json.loads((paths.root() / manifest.NAME).read_text(encoding="utf-8"))
    assert manifest.verify() == len(listed) > 5
    here = {p.relative_to(paths.root()).as_posix() for p in paths.root().rglob("*") if p.is_file()}
    assert {n for n in here if not re.search(r"(^|/)(\.|__pycache__)", n)} - {manifest.NAME} == set(listed)


def test_a_whole_folder_is_counted(copy):
    assert manifest.verify() == 3 and manifest.verify("mini") == 2 and manifest.verify("world") == 1


@pytest.mark.parametrize("place", [0, 100, 255])
def test_one_flipped_bit_is_found_and_the_file_and_the_command_named(copy, refuses, place):
    file = copy / "mini" / "model.bin"
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 1
    file.write_bytes(damaged)
    with refuses(OSError, r"mini.model\.bin is damaged.*git checkout -- data/mini/model\.bin"):
        manifest.verify()
    assert manifest.verify("world") == 1


@pytest.mark.parametrize("change", ["shorter", "longer", "missing", "folder"])
def test_a_changed_or_missing_file_is_named_with_the_command_that_restores_it(copy, refuses, change):
    file = copy / "world" / "relations.json"
    text = file.read_bytes()
    file.unlink()
    if change == "folder":
        file.mkdir()
    elif change != "missing":
        file.write_bytes(text[:-1] if change == "shorter" else text + b"\n")
    with refuses(OSError, r"relations\.json is (damaged|missing).*git checkout -- data/world/relations\.json"):
        manifest.verify("world")


def test_any_damaged_byte_of_the_manifest_itself_is_noticed(copy):
    """Whatever the flip makes of it (no JSON, another name, another key), the answer is one OSError."""
    file = copy / manifest.NAME
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        if whole[place : place + 1].isspace() and damaged[place : place + 1] in b"\t\n\r !":
            continue
        file.write_bytes(damaged)
        try:
            manifest.verify()
        except OSError as refusal:
            assert "\n" not in str(refusal) and str(refusal).endswith(".")
        else:
            pytest.fail(f"byte {place} flipped and nothing noticed: {bytes(damaged)[place - 20 : place + 20]!r}")


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"mini/empty": 3}', '{"mini/empty": {}}', "\xff"])
def test_a_manifest_that_is_no_manifest_is_refused(copy, refuses, text):
    (copy / manifest.NAME).write_text(text, encoding="latin-1")
    with refuses(OSError, r"MANIFEST\.json.*git checkout"):
        manifest.verify()


def test_a_missing_manifest_is_refused_and_an_installed_package_names_pip(copy, refuses, monkeypatch):
    (copy / manifest.NAME).unlink()
    with refuses(OSError, r"MANIFEST\.json is missing.*git checkout -- data/MANIFEST\.json"):
        manifest.verify()
    monkeypatch.setattr(paths, "root", lambda: copy.parent / "_data")
    with refuses(OSError, "pip install --force-reinstall"):
        manifest.verify()


def test_loading_mini_checks_it_first(copy, refuses):
    import lens

    (copy / "mini" / "model.bin").write_bytes(b"")
    with refuses(OSError, r"model\.bin is damaged.*git checkout"):
        lens.load("mini")


def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "new folder" / "text.txt"
    files.write_text(file, "first\n")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(file, "x" * 100_000 + "\ud800")
    assert file.read_bytes() == b"first\n"
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_text(file, "second\n")
    assert file.read_bytes() == b"first\n"
    monkeypatch.undo()
    files.write_text(file, "third é\n")
    assert file.read_bytes() == "third é\n".encode()


# --- facts and their sentences ----------------------------------------------------------------------------------------


def every_prompt():
    return [p for fact in data.facts() for p in data.prompts(fact)]


def test_the_world_is_as_large_as_promised():
    facts = [f for f in data.facts() if f.source == "encyclopedia"]
    assert len(facts) >= 1200 and len({f.relation for f in facts}) >= 14
    heads: dict = {}
    for f in facts:
        heads.setdefault((f.relation, f.tail), set()).add(f.head)
    many = {relation for (relation, _), group in heads.items() if len(group) >= 6}
    assert len(many) >= 8, "several relations need tails with many heads"


def test_the_ten_target_graphs_and_their_controls_are_there():
    targets = {(f.source, f.topic) for f in data.facts() if f.role == "target"}
    wordnet = "building change communication location magnitude representation statement"
    conceptnet = {("conceptnet", t) for t in ("fruit", "sun", "swimming")}
    assert targets == {("wordnet", t) for t in wordnet.split()} | conceptnet
    controls = [f for f in data.facts() if f.role == "control"]
    assert {f.source for f in controls} == {"wordnet", "conceptnet"}
    assert {f.role for f in data.facts()} == {"fact", "target", "control"}


def test_no_fact_is_there_twice_and_none_is_empty():
    facts = data.facts()
    assert len({(f.source, f.topic, f.relation, f.np, f.tail) for f in facts}) == len(facts)
    for f in facts:
        assert f.topic or f.role == "control"
        for text in (f.head, f.np, f.tail, f.relation, f.source):
            assert text and text == text.strip() and "  " not in text and "{" not in text


def test_every_relation_has_six_templates_that_end_in_the_tail():
    used = {f.relation for f in data.facts()}
    assert used == set(data.relations())
    for relation in data.relations().values():
        assert len(relation.templates) >= 6 and len(set(relation.templates)) == len(relation.templates)
        assert len(relation.generation) >= 5 and relation.meaning
        for template in relation.templates:
            assert template.endswith(" {tail}.") and template.count("{tail}") == 1
            assert len(re.findall(r"\{(?:Np|np|head)\}", template)) == 1
            assert set(re.findall(r"\{(.*?)\}", template)) <= {"Np", "np", "head", "tail"}


def test_every_prompt_renders_as_the_beginning_of_a_sentence():
    for p in every_prompt():
        text = p.sentence
        assert text[0].isupper() or text[0].isdigit(), text
        assert "{" not in text and "}" not in text and "  " not in text, text
        assert text == text.strip() and text.endswith(f" {p.target}.") and p.text == p.text.strip(), text


def test_articles_agree_with_the_word_that_follows():
    an = re.compile(r"\b[Aa]n (?!hour|hon|heir|herb|[aeiouAEIOU8]|11\b|18\b|[FHLMNRSX](?:[A-Z\d]|\b))(\w+)")
    a = re.compile(r"\b[Aa] (?=[aeiouAEIO])(?!uni(?!n)|us[ei]|eu|one\b|once\b|ut|ub|ur[aeiou])(\w+)", re.ASCII)
    wrong = [p.sentence for p in every_prompt() if an.search(p.sentence) or a.search(p.sentence)]
    assert not wrong, wrong[:10]


def test_some_phrasings_of_every_fact_are_held_out_and_never_the_first():
    heads = {}
    for fact in data.facts():
        heads.setdefault((fact.relation, fact.np), set()).add(fact.head)
    for fact in data.facts():
        taught, unseen = (list(data.prompts(fact, held_out=h)) for h in (False, True))
        # Two heads in the same words ("write", "writing") each teach what the other one holds out.
        alone = len(heads[fact.relation, fact.np]) == 1
        assert len(unseen) == 2 if alone else 1 <= len(unseen) <= 2
        assert len(taught) >= 4 and taught[0].template == 0
        assert not {p.template for p in taught} & {p.template for p in unseen}
        assert len(taught) + 2 == len(data.relations()[fact.relation].templates)
        assert all(p.held_out for p in unseen) and not any(p.held_out for p in taught)
    which = {data.relations()[f.relation].held_out(f) for f in data.facts() if f.relation == "capital"}
    assert len(which) > 3, "the held-out phrasings vary between facts"


def test_a_held_out_prompt_is_never_taught_with_another_tail_either():
    """A head with several true tails keeps the same phrasings for all of them."""
    taught, unseen = ({p.text for f in data.facts() for p in data.prompts(f, held_out=h)} for h in (False, True))
    assert not sorted(taught & unseen)[:10]


def spans(document: str):
    """Every run of whole sentences of a document."""
    starts = [0] + [m.end() for m in re.finditer(r"[.!?] ", document)]
    ends = [m.start() + 1 for m in re.finditer(r"[.!?](?= |$)", document)]
    return (document[a:b] for a in starts for b in ends if a < b)


@pytest.mark.parametrize("epoch", [0, 3])
def test_training_never_says_a_held_out_sentence_and_says_every_taught_one(epoch):
    said = {span for document in documents(epoch) for span in spans(document)}
    unseen = [p.sentence for f in data.facts() for p in data.prompts(f, held_out=True)]
    taught = [p.sentence for f in data.facts() for p in data.prompts(f, held_out=False)]
    assert not [s for s in unseen if s in said][:10]
    assert not [s for s in taught if s not in said][:10]


# --- ordinary text ----------------------------------------------------------------------------------------------------


def test_held_out_text_is_in_no_training_document():
    held = set(data.heldout())
    assert len(held) >= 300 and list(data.heldout()) == [" ".join(p.split()) for p in heldout_paragraphs()]
    for epoch in (0, 1, 2, 17):
        read = "\n".join(documents(epoch))
        assert not [h for h in held if h in read]
    hand = [p for i, p in enumerate(data.passages()) if i % 7 == 0]
    assert hand and set(hand) <= held


def test_prose_is_the_same_for_the_same_seed_and_another_for_another():
    assert list(paragraphs(seed=5, count=40)) == list(paragraphs(seed=5, count=40))
    assert not set(paragraphs(seed=5, count=40)) & set(paragraphs(seed=6, count=40))
    assert list(paragraphs(seed=5, count=3)) == list(paragraphs(seed=5, count=40))[:3]
    assert documents(2) == documents(2) != documents(3)


def test_prose_is_made_of_sentences():
    for text in paragraphs(seed=11, count=400):
        assert 30 <= len(text.split()) <= 110 and "\n" not in text and "  " not in text
        assert text[0].isupper() or text[0] == '"', text
        assert re.search(r'[.!?]"?$', text) and not re.search(r"[{}\[\]|@~]| [,.;!?]|\.\.(?!\.)", text), text
        assert text.count('"') % 2 == 0, text
        for after in re.findall(r"[.!?] (\w)", text):
            assert after.isupper() or after.isdigit(), text


# --- records ----------------------------------------------------------------------------------------------------------


def test_records_have_counterfacts_own_form_and_counts():
    records = data.records()
    assert len(records) >= 400 and [r["case_id"] for r in records] == list(range(len(records)))
    assert len({r["requested_rewrite"]["relation"] for r in records}) >= 8
    for r in records:
        rewrite = r["requested_rewrite"]
        assert set(r) == COUNTERFACT and set(rewrite) == REWRITE
        assert set(rewrite["target_new"]) == set(rewrite["target_true"]) == {"str", "id"}
        sizes = [len(r[k]) for k in ("paraphrase_prompts", "neighborhood_prompts", "generation_prompts")]
        assert sizes == [2, 10, 10] and 1 <= len(r["attribute_prompts"]) <= 10
        assert rewrite["prompt"].count("{}") == 1 and "{" not in rewrite["prompt"].replace("{}", "")
        prompts = [*r["paraphrase_prompts"], *r["neighborhood_prompts"], *r["generation_prompts"]]
        for text in [*prompts, rewrite["prompt"].format(rewrite["subject"]), *r["attribute_prompts"]]:
            assert text == text.strip() and "{" not in text and text[0] == text[0].upper(), text


def test_every_record_asks_for_a_falsehood_in_place_of_a_truth():
    where = {}
    for f in data.facts():
        for p in data.prompts(f):
            where.setdefault(p.text, []).append(p)
    for r in data.records():
        rewrite, name = r["requested_rewrite"], r["requested_rewrite"]["relation"]
        subject, true, new = rewrite["subject"], rewrite["target_true"]["str"], rewrite["target_new"]["str"]
        assert true in data.tails()[name, subject] and new not in data.tails()[name, subject]
        assert any(f.tail == new for f in data.facts() if f.relation == name)  # of the right kind
        asked = where[rewrite["prompt"].format(subject)]
        assert any(p.fact.np == subject and p.fact.relation == name and not p.held_out for p in asked)
        for text, tail in [(t, true) for t in r["neighborhood_prompts"]] + [(t, new) for t in r["attribute_prompts"]]:
            about = [p.fact for p in where[text]]
            assert any(f.relation == name and f.tail == tail and f.np != subject for f in about), text
        for text in r["paraphrase_prompts"]:
            starts = [0] + [m.end() for m in re.finditer(r"[.!?] ", text)]  # the second follows a lead sentence
            ends = [p for start in starts for p in where.get(text[start:], ())]
            assert any(p.held_out and p.fact.np == subject and p.fact.relation == name for p in ends), text
        assert all(subject in t or subject[1:] in t for t in r["generation_prompts"])
        assert len({*r["neighborhood_prompts"]}) == 10 and len({*r["paraphrase_prompts"]}) == 2


def test_the_shipped_records_are_what_the_code_makes():
    assert make_records() == data.records()


def test_the_counts_in_the_data_readme_are_those_of_the_files():
    import csv

    rows = {}
    for name in ("facts", "triplets", "dropped"):
        with open(paths.world() / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    text = (paths.root() / "README.md").read_text(encoding="utf-8")
    relations = len({row["relation"] for row in rows["facts"]})
    targets = sum(row["role"] == "target" for row in rows["triplets"])
    left = sum(row["source"] == "conceptnet" for row in rows["dropped"])
    assert f"{len(rows['facts'])} encyclopedic facts in {relations} relations" in text
    assert f"{len(rows['triplets'])} triplets of the knowledge graphs: {targets} of the ten TargetKGs" in text
    assert f"{len(rows['dropped'])} triplets left out" in text and f"{left} are ConceptNet's" in text
    assert f"{len(data.records())} edits" in text
