"""The built-in world: its facts and templates, CounterFact-style records, ordinary text, and the files they live in."""

from lens.data.knowledge import Knowledge, knowledge, target_kgs
from lens.data.records import load_records, records
from lens.data.text import heldout, passages
from lens.data.world import Fact, Prompt, Relation, facts, prompts, relations, tails

__all__ = [
    "Fact",
    "Knowledge",
    "Prompt",
    "Relation",
    "facts",
    "heldout",
    "knowledge",
    "load_records",
    "passages",
    "prompts",
    "records",
    "relations",
    "tails",
    "target_kgs",
]
