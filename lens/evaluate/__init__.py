"""What did an edit do?  Scores of targets behind prompts, CounterFact's measures, and edits on top of each other."""

from lens.evaluate.counterfact import counterfact
from lens.evaluate.report import Estimate, Report, Row
from lens.evaluate.scoring import Scores, score
from lens.evaluate.sequential import sequential
from lens.evaluate.tuning import best, tune

__all__ = ["Estimate", "Report", "Row", "Scores", "best", "counterfact", "score", "sequential", "tune"]
