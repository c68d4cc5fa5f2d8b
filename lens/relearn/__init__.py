"""Can removed knowledge come back?  Questions about facts, and training that never names the facts it is asked for."""

from lens.relearn.choosing import zero_shot
from lens.relearn.learners import METHODS
from lens.relearn.questions import Task, blind, commonsense_qa, mark, questions
from lens.relearn.tuning import Tuned, tune

__all__ = ["METHODS", "Task", "Tuned", "blind", "commonsense_qa", "mark", "questions", "tune", "zero_shot"]
