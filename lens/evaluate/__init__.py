"""What did an edit or a mask do?  Scores of targets behind prompts, CounterFact's measures, edits on top of each other,
and what is left of the knowledge that a subnetwork held."""

from lens.evaluate.counterfact import counterfact
from lens.evaluate.for_model import best_phrasing, knowledge_for, known, records_for
from lens.evaluate.knowledge import Removal, knowledge
from lens.evaluate.readings import Measures
from lens.evaluate.report import Estimate, Report
from lens.evaluate.rows import Row
from lens.evaluate.scoring import TargetScores, score
from lens.evaluate.sensitivity import Sweep, sensitivity
from lens.evaluate.sequential import sequential
from lens.evaluate.tuning import best, grid_search

__all__ = [
    "Estimate", "Measures", "Removal", "Report", "Row", "TargetScores", "Sweep", "best", "best_phrasing", "counterfact",
    "knowledge", "knowledge_for", "known", "records_for", "score", "sensitivity", "sequential", "grid_search",
]  # fmt: skip
