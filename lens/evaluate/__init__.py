"""What did an edit do?  Scores of targets behind prompts, and what is made of them."""

from lens.evaluate.scoring import Scores, score

__all__ = ["Scores", "score"]
