"""Which facts, records and texts are there?  The built-in world, public files, and the reader's own."""

from lens.data.hub import Question, commonsense_qa, wikitext
from lens.data.knowledge import Knowledge, knowledge, target_kgs
from lens.data.opening import load_texts
from lens.data.records import load_records, records
from lens.data.released import load_prompts
from lens.data.text import english, heldout, passages
from lens.data.verbalize import noun_phrase, verbalize
from lens.data.world import Fact, Prompt, Relation, facts, prompts, relations, tails

__all__ = [
    "Fact", "Knowledge", "Prompt", "Question", "Relation", "commonsense_qa", "english", "facts", "heldout", "knowledge",
    "load_prompts", "load_records", "load_texts", "noun_phrase", "passages", "prompts", "records", "relations", "tails",
    "target_kgs", "verbalize", "wikitext",
]  # fmt: skip
