"""How is a fact written into a model?  Each editor takes a model and requests, and returns an ``Edit`` to apply.

::

    forward pass        shift            one forward pass
    gradient            sgd_step         one step of gradient descent
                        finetune         Adam on one matrix
                        mend             a trained network makes the edit of the gradient
    key and value       rome             one fact, one matrix, least disturbance by ``covariance``
                        memit            many facts, several layers
                        alphaedit        the same, only along directions that text hardly uses
"""

from lens.edit.alphaedit import alphaedit
from lens.edit.branch import branches
from lens.edit.edit import Change, Edit
from lens.edit.finetune import finetune
from lens.edit.memit import memit
from lens.edit.mend import mend
from lens.edit.request import Request
from lens.edit.rome import rome
from lens.edit.settings import settings
from lens.edit.shift import sgd_step, shift
from lens.edit.statistics import Statistics, covariance
from lens.edit.storage import load, save

__all__ = [
    "Change", "Edit", "Request", "Statistics", "alphaedit", "branches", "covariance", "finetune", "load", "memit",
    "mend", "rome", "save", "settings", "sgd_step", "shift",
]  # fmt: skip
